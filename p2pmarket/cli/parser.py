"""The command line as data: which commands there are, their flags, and the function that carries each out."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from p2pmarket import __version__
from p2pmarket.options import add_flag, add_flags
from p2pmarket.paper.catalogue import EXPERIMENTS
from p2pmarket.settings import BrokerSettings, MarketAccess, NodeSettings, PeerSettings

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Command = Callable[[argparse.Namespace], int]

_EXIT_CODES = (
    "exit codes: 0 done; 1 an error, or a check found a problem; 2 your input; 3 this machine; 4 the network; "
    "5 a peer broke a rule; 6 a peer refused; 130 interrupted"
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser: argparse.ArgumentParser = _Parser(
        prog="p2pmarket",
        description="A peer-to-peer market where organisations that train models apart trade parameters.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"p2pmarket {__version__}")
    levels = ("debug", "info", "warning", "error")
    add_flag(
        parser,
        "--log_level",
        choices=levels,
        help="what to write to stderr (default: warning, of simulated runs: error)",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _demo(commands)
    _testnet(commands)
    node = _command(commands, "node", "roles:run_node", "run an agent: train or watch a checkpoint, and trade")
    add_flags(node, NodeSettings)
    broker = _command(commands, "broker", "roles:run_broker", "run a broker: appraise, price, settle, deliver")
    add_flags(broker, BrokerSettings)
    peer = _command(commands, "peer", "roles:run_peer", "run a peer that only keeps the network together: a bootstrap")
    add_flags(peer, PeerSettings)
    offers = _command(commands, "offers", "listings:offers", "markets and brokers on the network; a market's offers")
    add_flags(offers, MarketAccess)
    _trades(commands)
    _ledger(commands)
    _verify(commands)
    _identity(commands)
    doctor = _command(commands, "doctor", "doctor:doctor", "check this machine and the way to a market")
    add_flags(doctor, MarketAccess)
    _config(commands)
    _inspect(commands)
    _simulate(commands)
    _paper(commands)
    _report(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse drops the error where help cannot be written."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        stream = file or sys.stderr
        if message and stream is not None:
            stream.write(message)


def load_command(given: argparse.Namespace) -> Command:
    """The function that carries out the command that was given."""
    module, name = given.command.split(":")
    function: Command = getattr(importlib.import_module(f"p2pmarket.cli.{module}"), name)
    return function


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def _command(commands: Commands, name: str, command: str, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    parser.set_defaults(command=command)
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def _state(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--state", type=Path, default=Path(default), metavar="FOLDER", help=f"state folder (default: {default})"
    )


def _demo(commands: Commands) -> None:
    demo = _command(commands, "demo", "demo:demo", "watch two agents and a broker trade, as processes on this machine")
    demo.add_argument("--data", help="an .npz with x_train, y_train, x_test, y_test (default: scikit-learn's digits)")
    demo.add_argument("--rounds", type=int, default=None, help="epochs that each agent trains (default: by data)")
    demo.add_argument("--seed", type=int, default=0, help="of weights, batches and who has which data")
    demo.add_argument("--prepare", type=Path, help="only write everybody's data and the terms to this folder, and stop")
    demo.add_argument("--report", type=Path, default=Path("demo-report"), help="folder for the plot and the trades")
    add_flag(
        demo,
        "--timeout_seconds",
        type=float,
        default=900.0,
        metavar="SECONDS",
        help="give up after this time (default: 900)",
    )
    _json(demo)


def _testnet(commands: Commands) -> None:
    testnet = _command(commands, "testnet", "testnet:testnet", "start a market on this machine and leave it running")
    testnet.add_argument("--agents", type=int, default=2, help="agents that train on parts of the digits and trade")
    testnet.add_argument("--epochs", type=int, default=1000, help="epochs that each agent trains")
    testnet.add_argument("--state", type=Path, default=None, help="folder for all peers (default: a temporary one)")
    testnet.add_argument("--seed", type=int, default=0)
    _json(testnet)


def _trades(commands: Commands) -> None:
    trades = _command(commands, "trades", "listings:trades", "trades in an agent's journal or a broker's ledger")
    _state(trades, "~/.p2pmarket/node")
    trades.add_argument("--receipts", type=Path, metavar="FOLDER", help="write every receipt to this folder")
    trades.add_argument("--export", choices=("csv", "beancount"), help="write what was settled for other programs")
    trades.add_argument("--out", type=Path, metavar="FILE", help="a new file for the export (default: stdout)")
    _json(trades)


def _ledger(commands: Commands) -> None:
    ledger = _command(commands, "ledger", "ledger:balances", "the broker's ledger: accounts, audit, export")
    actions = ledger.add_subparsers(metavar="ACTION", required=True)
    for name, help_text in (
        ("balances", "every account's balance, what is held, its limit"),
        ("history", "every movement of money"),
        ("grant", "issue credit to an account"),
        ("limit", "set what an account may spend in 24 hours"),
        ("audit", "re-derive everything from the ledger's file alone; exit code 1 if anything differs"),
        ("export", "every movement of money for spreadsheets or double-entry books"),
        ("salvage", "what agents' receipts tell that an old copy of the ledger has forgotten"),
    ):
        module = "audit" if name in ("audit", "salvage") else "ledger"
        action = _command(actions, name, f"{module}:{name}", help_text)
        _state(action, "~/.p2pmarket/broker")
        if name != "export":
            _json(action)
        if name in ("grant", "limit"):
            action.add_argument("peer", metavar="PEER", help="peer id of the account")
        if name == "grant":
            action.add_argument("amount", metavar="CREDITS", help="how much, such as 12.50")
            action.add_argument("--memo", default="", metavar="TEXT", help="why, kept in the log")
        if name == "limit":
            action.add_argument("credits", metavar="CREDITS", help="such as 50; none: only what the terms say")
        if name == "history":
            action.add_argument("--peer", metavar="PEER", help="of one account only")
        if name in ("audit", "salvage"):
            action.add_argument("--file", type=Path, metavar="FILE", help="a ledger's file, in no broker's folder")
            action.add_argument("--broker", metavar="PEER", help="peer id whose ledger it must be")
        if name == "audit":
            action.add_argument("--receipts", type=Path, metavar="FOLDER", help="*.receipt and *.checkpoint of others")
        if name == "salvage":
            action.add_argument("receipts", type=Path, nargs="+", metavar="RECEIPTS", help="files, or folders of them")
        if name == "export":
            action.add_argument("--format", choices=("csv", "beancount"), required=True)
            action.add_argument("--out", type=Path, metavar="FILE", help="a new file (default: stdout)")


def _verify(commands: Commands) -> None:
    verify = _command(commands, "verify", "verify:verify", "check a receipt offline: who paid whom, in which log")
    verify.add_argument("receipt", type=Path, metavar="RECEIPT", help="a file that `trades --receipts` wrote")
    verify.add_argument("--broker", metavar="PEER", help="peer id of the broker that must have signed it")
    verify.add_argument("--checkpoint", type=Path, metavar="FILE", help="a checkpoint of that broker, to compare")
    _json(verify)


def _identity(commands: Commands) -> None:
    identity = _command(commands, "identity", "identity:show", "the key that is this peer's id and account")
    actions = identity.add_subparsers(metavar="ACTION", required=True)
    for name, help_text in (
        ("show", "print the peer id"),
        ("create", "make a new identity"),
        ("backup", "copy the identity to a file"),
        ("restore", "take the identity from a backup"),
    ):
        action = _command(actions, name, f"identity:{name}", help_text)
        _state(action, "~/.p2pmarket/node")
        add_flag(
            action,
            "--identity_path",
            type=Path,
            metavar="FILE",
            help="identity file (default: identity.key in the state folder)",
        )
        _json(action)
        if name in ("backup", "restore"):
            action.add_argument("file", type=Path, metavar="FILE", help="the backup")


def _config(commands: Commands) -> None:
    config = _command(commands, "config", "config:show", "settings and where each value comes from")
    actions = config.add_subparsers(metavar="ACTION", required=True)
    show = _command(actions, "show", "config:show", "print every setting and its origin")
    roles = show.add_subparsers(dest="role", metavar="ROLE", required=True)
    for role, kind in (("node", NodeSettings), ("broker", BrokerSettings)):
        parser = roles.add_parser(role, help=f"settings of the {role}", allow_abbrev=False)
        add_flags(parser, kind)


def _inspect(commands: Commands) -> None:
    inspect = _command(
        commands,
        "inspect",
        "inspect:inspect",
        "a model's permutation symmetries: what alignment can move, and why not more",
    )
    inspect.add_argument(
        "model",
        metavar="MODEL",
        help="a built-in model, or package.module:factory from an installed package or PYTHONPATH",
    )
    inspect.add_argument("--arguments", default="{}", metavar="JSON", help="the model's arguments, as a JSON object")
    inspect.add_argument(
        "--input",
        action="append",
        metavar="SHAPE",
        help="what the model takes, such as 2x3x224x224, or 2x16:int64<1000 for indices; again for a second input",
    )
    inspect.add_argument(
        "--spec", metavar="FUNCTION", help="test the spec of package.module:function(model) instead of finding one"
    )
    _json(inspect)


def _paper(commands: Commands) -> None:
    paper = _command(
        commands,
        "paper",
        "paper:paper",
        "the paper's tables and figures, beside its numbers; exit code 1 where a row is outside its interval",
    )
    paper.epilog = (
        f"{_EXIT_CODES}. A data set that is not there is your input, where nothing else was measured; beside what was "
        "measured it is told, and changes no exit code. What is finished is kept: the same command goes on from there"
    )
    paper.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(EXPERIMENTS)}; or all")
    efforts = paper.add_mutually_exclusive_group()
    for effort, help_text in (
        ("quick", "few seeds and little data: all of it in minutes on two cores"),
        ("full", "the paper's full settings, for a GPU"),
    ):
        efforts.add_argument(f"--{effort}", dest="effort", action="store_const", const=effort, help=help_text)
    paper.set_defaults(effort="normal")
    paper.add_argument(
        "--seeds", type=int, metavar="N", help="how many, for each part that is run (default: by effort)"
    )
    paper.add_argument("--data", type=Path, metavar="PATH", help="data sets' usual files: one, or a folder of them")
    paper.add_argument("--device", default="cpu", metavar="DEV", help="that computes: cpu, cuda (default: cpu)")
    paper.add_argument("--jobs", type=int, default=0, metavar="N", help="runs at a time (default: as there are cores)")
    paper.add_argument(
        "--out",
        type=Path,
        default=Path("paper-results"),
        metavar="DIR",
        help="results, plots, rows.json, tables.md; what is finished there is not run again (default: paper-results)",
    )
    paper.add_argument("--scenarios", type=Path, metavar="DIR", help="the paper's scenario files (default: those here)")
    paper.add_argument("--list", action="store_true", help="only say which experiments there are")
    _json(paper)


def _simulate(commands: Commands) -> None:
    simulate = _command(
        commands,
        "simulate",
        "simulate:simulate",
        "run whole markets from a scenario file: many agents, many seeds, sweeps; docs/simulation.md",
    )
    simulate.add_argument("scenario", type=Path, nargs="?", metavar="SCENARIO.toml", help="who trades what, how long")
    simulate.add_argument("--out", type=Path, metavar="DIR", help="results; goes on there (default: runs/NAME)")
    simulate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="another value in the scenario, such as scenario.rounds=5 or agent.A.samples=100; may be given again",
    )
    simulate.add_argument("--seeds", type=int, metavar="N", help="so many seeds instead of the scenario's")
    simulate.add_argument("--jobs", type=int, default=0, metavar="N", help="runs at once (default: one a core)")
    simulate.add_argument("--data", type=Path, metavar="PATH", help="where data sets lie: a folder, or one file")
    simulate.add_argument("--device", default="cpu", help="train and appraise on cpu, cuda, or auto (default: cpu)")
    simulate.add_argument(
        "--format", choices=("csv", "parquet"), default="csv", help="of the files of all runs together (default: csv)"
    )
    simulate.add_argument("--check", action="store_true", help="show what would be run, and run nothing")
    simulate.add_argument("--new", type=Path, metavar="FILE", help="write a scenario to begin with to a new file")
    simulate.add_argument(
        "--kind", choices=("regression", "images"), default="regression", help="of --new (default: regression)"
    )
    add_flag(simulate, "--no_plots", action="store_true", help="draw nothing")
    _json(simulate)


def _report(commands: Commands) -> None:
    report = _command(
        commands,
        "report",
        "report:report",
        "one HTML page to look at: a simulation's results, an agent's journal, a broker's ledger",
    )
    report.add_argument(
        "folder", type=Path, metavar="DIR", help="what simulate or paper wrote, or the state folder of a node or broker"
    )
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="the page to write, or to replace (default: report.html)"
    )
    _json(report)
