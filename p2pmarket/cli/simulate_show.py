"""What `simulate` shows: how far the runs are, what they came to, what a scenario would run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from p2pmarket.cli.show import printable
from p2pmarket.experiments.document import Document
from p2pmarket.experiments.results import SUMMARY_FILE
from p2pmarket.experiments.run import RunPlan
from p2pmarket.experiments.worlds.contract import World
from p2pmarket.market import MarketTerms
from p2pmarket.units import CREDIT

MOST_ROWS = 40
"""Of a table; the rest is in the files."""
MOST_TOLD = 8
"""Agents whose problems are told."""
PIPE_COLUMNS = 240
MOST_SHOWN = 3
"""Running runs beside the bar."""


def terminal(*, stderr: bool) -> Console:
    """Where tables go: as wide as the terminal, or wide enough that no cell is folded."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=PIPE_COLUMNS)


class Display:
    """A bar on a terminal: finished runs, rounds of those that run, the time that is left. Silent elsewhere."""

    def __init__(self, plans: Sequence[RunPlan], console: Console) -> None:
        self.finished = 0
        self._count = len(plans)
        self._console = console
        self._running: dict[str, tuple[int, int]] = {}
        self._total = sum(plan.scenario.rounds for plan in plans)
        self._done = 0
        self._progress = Progress(
            TextColumn("{task.fields[runs]}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("runs", total=self._total, runs=f"runs 0/{self._count}", now="")

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def progress(self, run: str, done: int, of: int) -> None:
        """As `run_sweep` tells it."""
        self._done += done - self._running.get(run, (0, 0))[0]
        self._running[run] = (done, of)
        if done == of:
            self.finished += 1
            self._running.pop(run)
        now = [f"{name} {rounds}/{all_}" for name, (rounds, all_) in self._running.items()]
        more = f" and {len(now) - MOST_SHOWN} more" if len(now) > MOST_SHOWN else ""
        self._progress.update(
            self._task,
            completed=self._done,
            runs=f"runs {self.finished}/{self._count}",
            now=printable(", ".join(now[:MOST_SHOWN]) + more),
        )


# ---- the end --------------------------------------------------------------------------------------------------------


def show_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """A table of the points, and what is wrong with a ledger."""
    points = summary["points"]
    paths = list(dict.fromkeys(path for point in points for path in point["settings"] if path != "scenario.method"))
    names = [path.rpartition(".")[2] for path in paths]
    both = any(point["metric"] != point["loss"] for point in points)
    beside = any(point["less_loss_than_alone"] for point in points)
    title = f"{summary['scenario']}: final means over agents and seeds, on test data"
    table = Table(title=Text(printable(title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for path, name in zip(paths, names, strict=True):
        table.add_column(Text(printable(path if names.count(name) > 1 else name)))
    for heading in ("method", "seeds", "loss", *["accuracy %"] * both, *["less than alone"] * beside):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for heading in ("trades", "settled", "credits moved", "ledger"):
        table.add_column(heading, justify="left" if heading == "ledger" else "right")
    for point in points[:MOST_ROWS]:
        with_ledger = bool(point["trades"]) or point["method"] not in ("alone", "fedavg")
        cells = [str(point["settings"].get(path, "")) for path in paths]
        cells += [point["method"], str(point["seeds"]), _plus_minus(point["loss"])]
        cells += [_plus_minus(point["metric"], 100.0)] * both
        cells += [_plus_minus(point["less_loss_than_alone"], 100.0, " %")] * beside
        cells += [f"{point['trades']:.0f}", f"{point['settled']:.0f}", f"{point['moved'] / CREDIT:.2f}"]
        cells += [("verified" if point["verified"] else "DOES NOT VERIFY") if with_ledger else ""]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)
    if len(points) > MOST_ROWS:
        console.print(f"and {len(points) - MOST_ROWS} more points, in summary.json", highlight=False)
    agents = {name for point in points for name in point["agents"]}
    if 1 < len(agents) and len(points) <= MOST_ROWS:
        console.print(_agents_table(points))
    _show_agent_problems(console, summary["agent_problems"])
    for problem in summary["problems"][:MOST_ROWS]:
        _print_line(console, f"A LEDGER IS WRONG: {problem}")


def _show_agent_problems(console: Console, problems: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each agent that had any, those whose visits failed most often first."""
    worst = sorted(problems.items(), key=lambda one: one[1]["failed"], reverse=True)
    for name, one in worst[:MOST_TOLD]:
        count = f"{one['failed']} of {one['visits']} visits failed: " if one["failed"] else ""
        more = f" (and {one['reasons'] - 1} other reasons)" if one["reasons"] > 2 else ""
        more = " (and another reason)" if one["reasons"] == 2 else more
        _print_line(console, f"{name}: {count}{one['reason']}{more}")
    if len(worst) > MOST_TOLD:
        _print_line(console, f"and {len(worst) - MOST_TOLD} more agents with problems, in {SUMMARY_FILE}")


def _print_line(console: Console, line: str) -> None:
    """Whole, however narrow the terminal, and as it is."""
    console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def _agents_table(points: Sequence[Mapping[str, Any]]) -> Table:
    """Each agent's final loss, a line a point."""
    names = list(dict.fromkeys(name for point in points for name in point["agents"]))[:8]
    table = Table(title="final loss of each agent", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("point")
    for name in names:
        table.add_column(Text(printable(name)), justify="right", no_wrap=True)
    for point in points:
        label = " ".join(str(value) for value in (point["settings"] or {"": point["method"]}).values())
        cells = [_plus_minus(point["agents"].get(name, {}).get("loss")) for name in names]
        table.add_row(*(Text(printable(cell)) for cell in (label, *cells)))
    return table


def _plus_minus(value: Mapping[str, float | None] | None, scale: float = 1.0, unit: str = "") -> str:
    """A mean, with half of its interval where there are several seeds."""
    if not value or value["mean"] is None:
        return ""
    mean, half = scale * value["mean"], value["half_width"]
    if scale != 1.0:
        return f"{mean:.1f}" + (f" ± {scale * half:.1f}" if half is not None else "") + unit
    return f"{mean:.4g}" + (f" ± {half:.2g}" if half is not None else "") + unit


# ---- --check --------------------------------------------------------------------------------------------------------


def show_check(
    plans: Sequence[RunPlan], document: Document, world: World, terms: MarketTerms, out: Path, as_json: bool
) -> None:
    """What would be run: the scenario with all its defaults, the agents, the market's terms, the number of runs."""
    scenario = plans[0].scenario
    points = {plan.digest: plan.settings for plan in plans}
    if as_json:
        found = {"scenario": document, "runs": len(plans), "points": list(points.values()), "out": str(out)}
        print(json.dumps({**found, "terms": _plain(terms)}))
        return
    print(printable(f"{scenario.name}: {scenario.about or 'no word about it'}"))
    print(printable(f"{world.about}"))
    kept = {key: value for key, value in vars(scenario).items() if key not in ("agents", "world", "terms", "climate")}
    for section, values in (
        ("scenario", kept),
        (scenario.world.KEY, _plain(scenario.world)),
        ("faults", _plain(scenario.climate) if scenario.climate else {}),
        ("terms", _plain(terms)),
    ):
        for line in _listed(section, values):
            print(printable(line))
    for agent, learner in list(zip(scenario.agents, world.learners, strict=True))[:MOST_ROWS]:
        print(printable(f"agent {agent.name}: {agent.task}, {learner.about}; {agent.strategy!r}"))
    if len(scenario.agents) > MOST_ROWS:
        print(f"and {len(scenario.agents) - MOST_ROWS} more agents")
    for number, settings in list(enumerate(points.values()))[:MOST_ROWS]:
        if settings:
            print(
                printable(
                    f"point {number:03d}: " + ", ".join(f"{path} = {value!r}" for path, value in settings.items())
                )
            )
    if len(points) > MOST_ROWS:
        print(f"and {len(points) - MOST_ROWS} more points")
    rounds = sum(plan.scenario.rounds for plan in plans)
    print(printable(f"{len(plans)} runs of {len(points)} points, {rounds} rounds in all; results would go to {out}"))


def _plain(record: Any) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        found[field.name] = json.loads(json.dumps(value, default=repr))
    return found


def _listed(section: str, values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{section}.{key} = {value!r}"
