"""`simulate`: whole markets from a scenario file, every point of its sweep with every seed, on all cores."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from p2pmarket.cli.show import printable
from p2pmarket.cli.simulate_check import show_check, without_faults
from p2pmarket.cli.simulate_show import Display, show_summary, terminal
from p2pmarket.errors import DataError, DiskFull, MachineFault, ScenarioError
from p2pmarket.experiments.document import Document, axis_over, read_document, read_value, with_value
from p2pmarket.experiments.plan import RunPlan, plans_of
from p2pmarket.experiments.results import PLOTS_FOLDER, SUMMARY_FILE, RunResult
from p2pmarket.experiments.resuming import finished_in
from p2pmarket.experiments.scenario import terms_of
from p2pmarket.experiments.summary import summary_of
from p2pmarket.experiments.sweep import run_sweep
from p2pmarket.experiments.templates import template
from p2pmarket.experiments.worlds.contract import Place
from p2pmarket.files import disk_errors
from p2pmarket.report.plots import plot_results

DEFAULT_OUT = Path("runs")
"""Where results go, in a folder of the scenario's name."""


def simulate(given: argparse.Namespace) -> int:
    """Exit code 0 when all runs are finished and all ledgers verify."""
    if given.new is not None:
        return _new(given)
    if given.scenario is None:
        raise ScenarioError("name a scenario, such as examples/scenarios/two-agents.toml, or begin one with --new FILE")
    if given.jobs < 0:
        raise ScenarioError(f"--jobs {given.jobs} is below 0; it is how many runs at once, 0 for one a core")
    document = _document(given)
    place = Place(given.data.expanduser() if given.data else None, _device(given.device))
    if given.check:
        return _check(given, document, place)
    return _run(given, document, place)


def _new(given: argparse.Namespace) -> int:
    path: Path = given.new.expanduser()
    if given.scenario is not None:
        raise ScenarioError(f"--new writes a scenario to {path} and runs none; leave {given.scenario} out")
    name = re.sub(r"[^\w-]+", "-", path.stem).strip("-_")[:48] or "new"
    try:
        with disk_errors("the scenario", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(template(given.kind, name))
    except MachineFault as error:
        if isinstance(error.__cause__, FileExistsError):
            raise ScenarioError(f"{path} is there already; name a new file with --new") from None
        raise
    if given.json:
        print(json.dumps({"path": str(path), "kind": given.kind}))
    else:
        command = f"p2pmarket simulate {shlex.quote(str(path))} --check"
        print(printable(f"wrote {path}; see what it runs: {command}"))
    return 0


def _document(given: argparse.Namespace) -> Document:
    document = read_document(given.scenario.expanduser())
    paths = []
    for one in given.set:
        path, equals, value = one.partition("=")
        if not equals:
            raise ScenarioError(f"--set {one} has no value; write it as --set path=value, such as scenario.rounds=5")
        document = with_value(document, path.strip(), read_value(value.strip()))
        paths.append(path.strip())
    for path in paths:
        if (axis := axis_over(document, path)) is not None:
            raise ScenarioError(
                f"--set {path} would change nothing, as [sweep] sets {axis} in every run; write "
                f"--set sweep.{axis}='[...]' with the values that you want"
            )
    if given.seeds is not None:
        document = with_value(document, "scenario.seeds", given.seeds)
        document["scenario"].pop("seed", None)
    return document


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _plans(document: Document) -> list[RunPlan]:
    """All runs, with a warning where something that was asked for would change nothing."""
    plans = plans_of(document)
    if methods := without_faults(plans):
        runs = f"the method {methods[0]}" if len(methods) == 1 else f"the methods {' and '.join(methods)}"
        text = f"[faults] changes nothing in runs of {runs}, which have no messages and no processes"
        print(f"p2pmarket: warning: {text}", file=sys.stderr)
    return plans


def _check(given: argparse.Namespace, document: Document, place: Place) -> int:
    plans = _plans(document)
    first = plans[0]
    scenario = first.scenario
    world = scenario.world.build(
        scenario.agents, method=scenario.method, protocol=scenario.protocol, seed=first.seed, place=place
    )
    terms_of(scenario, world.terms())  # what the parser cannot know: whether they fit the world's own
    out = _out(given, document)
    finished, refused = 0, None
    try:
        finished = finished_in(out, document, plans)
    except (ScenarioError, DataError) as error:
        refused = error
    if refused is None or not given.json:
        show_check(plans, document, world, out, given.json, None if refused else finished)
    if refused is not None:
        raise refused
    return 0


def _out(given: argparse.Namespace, document: Document) -> Path:
    out: Path = given.out.expanduser() if given.out else DEFAULT_OUT / document["scenario"]["name"]
    return out


def _run(given: argparse.Namespace, document: Document, place: Place) -> int:
    plans = _plans(document)
    out = _out(given, document)
    console = terminal(stderr=given.json)
    display = Display(plans, Console(stderr=True))
    try:
        with display:
            runs = run_sweep(
                document, out, place=place, jobs=given.jobs, plans=plans, progress=display.progress,
                format=given.format, log_level=(given.log_level or "error").upper(),
            )  # fmt: skip
    except KeyboardInterrupt:
        kept = f"{display.finished} of {len(plans)} runs are finished and kept in {out}"
        print(f"p2pmarket: interrupted; {printable(kept)}, and the same command goes on from there", file=sys.stderr)
        raise
    summary = summary_of(runs)
    plots = [] if given.no_plots else _plots(runs, out, console)
    show_summary(console, summary)
    where = f"results: {out} ({SUMMARY_FILE}, runs.{given.format}, rounds.{given.format}, trades.{given.format}"
    where += f", {len(plots)} plots in {PLOTS_FOLDER})" if plots else ")"
    for line in (where, f"look at them: p2pmarket report {shlex.quote(str(out))}"):
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
    if given.json:
        print(json.dumps({**summary, "out": str(out), "plots": [str(path) for path in plots]}), flush=True)
    return 0 if summary["verified"] else 1


def _plots(runs: Sequence[RunResult], out: Path, console: Console) -> list[Path]:
    """Plots, where there is matplotlib; results are results without them."""
    try:
        return plot_results(runs, out / PLOTS_FOLDER)
    except DiskFull:
        raise
    except MachineFault as error:
        console.print(printable(f"no plots: {error}"), highlight=False, markup=False, soft_wrap=True)
        return []
