"""`demo`: a bootstrap, a broker and two agents as processes on this machine; progress, a table, a report folder."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from pathlib import Path

from rich.console import Console

from p2pmarket.cli.books import open_ledger
from p2pmarket.cli.demo_report import AgentCurve, Outcome, results_table, write_report
from p2pmarket.cli.listings import broker_trades
from p2pmarket.cli.report import write_report_page
from p2pmarket.errors import DiskFull, MachineFault, MarketError, SettingsError, UserFault
from p2pmarket.events import Event
from p2pmarket.files import disk_errors
from p2pmarket.simulation.endowments import Endowments, prepare
from p2pmarket.simulation.processes import Child, LocalNet, peers_of
from p2pmarket.tasks import end_tasks
from p2pmarket.units import CREDIT

NAMES = ("A", "B")


def demo(given: argparse.Namespace) -> int:
    """Exit code 0 when both agents trained and the ledger verified."""
    console = Console(stderr=given.json)
    if given.prepare is not None:
        return _prepare(given, console)
    if given.rounds is not None and given.rounds < 1:
        raise SettingsError(f"--rounds {given.rounds} is not above 0")
    report_is_new = not given.report.exists()
    with disk_errors("the report", given.report):  # before the minutes that it tells of
        given.report.mkdir(parents=True, exist_ok=True)
    try:
        return _demo(given, console)
    finally:
        if report_is_new:
            with contextlib.suppress(OSError):
                given.report.rmdir()  # only where nothing was written to it


def _demo(given: argparse.Namespace, console: Console) -> int:
    folder = Path(tempfile.mkdtemp(prefix="p2pmarket-demo-"))
    try:
        outcome = asyncio.run(asyncio.wait_for(_run(given, folder, console), given.timeout_seconds))
    except (asyncio.TimeoutError, TimeoutError):
        raise MachineFault(
            f"the demonstration took longer than {given.timeout_seconds:.0f} s; logs in {folder}"
        ) from None
    except (UserFault, KeyboardInterrupt):
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except MarketError:
        console.print(f"logs of all peers are in {folder}", highlight=False, soft_wrap=True)
        raise
    report = write_report(given.report, outcome)
    page = _page(folder, report, console)
    console.print(results_table(outcome))
    console.print(outcome.conclusion, highlight=False, soft_wrap=True)
    console.print(
        f"report: {report.resolve()} ({', '.join(sorted(path.name for path in report.iterdir()))})",
        highlight=False,
        soft_wrap=True,
    )
    if page is not None:
        console.print(f"look at it in any browser: {page.resolve()}", highlight=False, soft_wrap=True)
    shutil.rmtree(folder, ignore_errors=True)
    if given.json:
        print(json.dumps(outcome.summary()), flush=True)
    return 0 if outcome.ledger_verified else 1


def _page(folder: Path, report: Path, console: Console) -> Path | None:
    """The page that `p2pmarket report` makes of the broker's folder, which is removed; None without matplotlib."""
    path = report / "report.html"
    try:
        write_report_page(_broker_state(folder), path)
    except DiskFull:
        raise
    except MachineFault as error:
        path.unlink(missing_ok=True)  # of an earlier demonstration: it would tell of that
        console.print(f"no page: {error}", highlight=False, markup=False, soft_wrap=True)
        return None
    return path


def _broker_state(folder: Path) -> Path:
    return folder / "peers" / "broker"


def _prepare(given: argparse.Namespace, console: Console) -> int:
    """Writes what the demonstration works on, and tells how to do by hand what it does."""
    endowments = prepare(given.prepare, given.data, agents=len(NAMES), seed=given.seed)
    agent = (
        f"--market digits --test {endowments.test} --epochs {endowments.epochs} --compare_alone "
        f"{' '.join(endowments.flags)}"
    )
    lines = [
        endowments.about,
        "The broker, in one terminal; it prints the address to join through:",
        f"  p2pmarket broker --market {endowments.terms} --validation {endowments.validation}",
        "Two agents, in two others, with that address behind --peers:",
        *(
            f"  p2pmarket node --state ~/.p2pmarket/{path.stem} --data {path} --seed {index} {agent} --peers ADDRESS"
            for index, path in enumerate(endowments.agents)
        ),
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    return 0


async def _run(given: argparse.Namespace, folder: Path, console: Console) -> Outcome:
    started = time.monotonic()
    endowments = await asyncio.to_thread(prepare, folder / "data", given.data, agents=len(NAMES), seed=given.seed)
    epochs = given.rounds or endowments.epochs
    console.print(endowments.about, highlight=False, soft_wrap=True)
    async with LocalNet(folder / "peers") as net:
        with console.status("starting a bootstrap peer, a broker and two agents ..."):
            agents = await _start(net, endowments, epochs, given.seed)
        broker = net.children["broker"]
        console.print(
            f"bootstrap {net.children['bootstrap'].ready['peer_id']}\n"
            f"broker    {broker.ready['peer_id']}, found on the DHT by both agents\n"
            + "\n".join(f"agent {name}   {child.ready['peer_id']}" for name, child in zip(NAMES, agents, strict=True)),
            highlight=False,
            soft_wrap=True,
        )
        curves = [AgentCurve(name, child.ready["peer_id"]) for name, child in zip(NAMES, agents, strict=True)]
        followers = [
            asyncio.create_task(_follow(child, curve, epochs, console))
            for child, curve in zip(agents, curves, strict=True)
        ]
        try:
            await asyncio.gather(*followers)
        finally:
            await end_tasks(followers)
        await broker.stop()
    state = _broker_state(folder)
    trades, _ = broker_trades(state)
    with open_ledger(state, check=False) as ledger:
        verified = ledger.verify()
        balances = {row.peer: row.balance for row in ledger.accounts()}
    return Outcome(
        about=endowments.about,
        curves=tuple(curves),
        trades=tuple(trades),
        balances=balances,
        broker=broker.ready["peer_id"],
        ledger_verified=verified.ok,
        problems=verified.problems,
        seconds=time.monotonic() - started,
    )


async def _start(net: LocalNet, endowments: Endowments, epochs: int, seed: int) -> list[Child]:
    bootstrap = await net.start("bootstrap", "peer")
    peers = ("--initial_peers", *peers_of([bootstrap]))
    await net.start(
        "broker", "broker", *peers, "--market", str(endowments.terms), "--validation", str(endowments.validation)
    )
    common = (
        *("--market", "digits", "--test_data", str(endowments.test), "--epochs", str(epochs), "--compare_alone"),
        *("--credits_per_gain", "10", "--reserve", "0"),
        *endowments.flags,
        *peers,
    )
    starts = [
        net.start(f"agent-{name}", "node", "--data", str(path), "--seed", str(seed * 100 + index), *common)
        for index, (name, path) in enumerate(zip(NAMES, endowments.agents, strict=True))
    ]
    return list(await asyncio.gather(*starts))


async def _follow(child: Child, curve: AgentCurve, epochs: int, console: Console) -> None:
    """Takes in what an agent tells, and tells it on, until it is done."""
    async with contextlib.aclosing(child.events()) as events:
        async for event in events:
            if event["event"] == "done":
                return
            if event["event"] != "round":
                continue
            curve.add(event)
            console.print(_line(curve.name, event, epochs), highlight=False, soft_wrap=True)
    raise MachineFault(f"{child.name} ended before it was done; see {child.log}")


def _line(name: str, event: Event, epochs: int) -> str:
    """One round of one agent in one line of a terminal."""
    paid = sum(purchase["price"] for purchase in event.get("bought", ()))
    earned = sum(sale["price"] - sale["fee"] for sale in event.get("sold", ()))
    cells = [
        f"{event['epoch']:2d}/{epochs} {name}",
        f"market {event['score']:5.1f} %",
        f"alone {event['alone']:5.1f} %",
    ]
    if event.get("gain") is not None:
        cells.append(f"gain {event['gain']:+.3f}")
    if "balance" in event:
        cells += [f"paid {paid / CREDIT:.2f}", f"earned {earned / CREDIT:.2f}", f"has {event['balance'] / CREDIT:.2f}"]
    return "  ".join([*cells, event.get("problem", "")]).rstrip()
