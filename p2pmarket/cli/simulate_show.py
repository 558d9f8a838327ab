"""What `simulate` shows: how far the runs are, what they came to."""

from __future__ import annotations

import dataclasses
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from p2pmarket.cli.show import printable
from p2pmarket.experiments.results import SUMMARY_FILE
from p2pmarket.experiments.run import RunPlan
from p2pmarket.experiments.summary import label_of, names_of
from p2pmarket.experiments.worlds.contract import ACCURACY, ALONE, FEDAVG
from p2pmarket.units import CREDIT

MOST_ROWS = 40
"""Of a table; the rest is in the files."""
MOST_TOLD = 8
"""Agents whose problems are told."""
PIPE_COLUMNS = 240
SPACES = 3
"""Between two columns."""
MOST_SHOWN = 3
"""Running runs beside the bar."""


def terminal(*, stderr: bool) -> Console:
    """Where tables go: as wide as the terminal, or wide enough that no cell is folded."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=PIPE_COLUMNS)


APART_S = 5.0
"""The least time between two lines where there is no terminal: a log is to be read."""
APART_PART = 0.05
"""And the least part of the time that went by: a long log too."""


class Display:
    """A bar on a terminal: finished runs, rounds of those that run, the time that is left. Elsewhere a line now and
    then, none of what takes a few seconds.
    """

    def __init__(self, plans: Sequence[RunPlan], console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._said_at = clock()
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
        if not self._console.is_terminal:
            self._say()

    def _say(self) -> None:
        """A line, unless it is too soon after the last: what is true then is said with the next step of a run, and
        after the last step of all in any case.
        """
        now = self._clock()
        spent = now - self._began
        whole = self.finished == self._count
        closes = whole and self._said_at > self._began
        if now - self._said_at < max(APART_S, APART_PART * spent) and not closes:
            return
        self._said_at = now
        rounds = "" if whole else f" ({self._done} of {self._total} rounds)"
        _print_line(self._console, f"{self.finished} of {self._count} runs{rounds}, {_duration(spent)}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


# ---- the end --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Column:
    """Of a table: a heading and a text for each row."""

    heading: str
    cells: Sequence[str]
    number: bool = True
    """Never broken, and at the right."""


def show_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """Tables of the points, which agents had problems, and what is wrong with a ledger."""
    points = summary["points"][:MOST_ROWS]
    title = f"{summary['scenario']}: final means over agents and seeds, on test data"
    paths = list(dict.fromkeys(path for point in points for path in point["settings"]))
    keys = [
        _Column(name, [str(point["settings"].get(path, "")) for point in points], number=False)
        for path, name in names_of(paths).items()
    ]
    keys.append(_Column("method", [point["method"] for point in points], number=False))
    _show_table(console, title, keys, _columns(points))
    if len(summary["points"]) > MOST_ROWS:
        console.print(f"and {len(summary['points']) - MOST_ROWS} more points, in {SUMMARY_FILE}", highlight=False)
    agents = list(dict.fromkeys(name for point in points for name in point["agents"]))
    if 1 < len(agents) and len(summary["points"]) <= MOST_ROWS:
        _show_agents(console, points, agents)
    _show_agent_problems(console, summary["agent_problems"])
    for problem in summary["problems"][:MOST_ROWS]:
        _print_line(console, f"A LEDGER IS WRONG: {problem}")


def _columns(points: Sequence[Mapping[str, Any]]) -> Iterator[_Column]:
    """All but the points' names, the most important first."""
    yield _Column("seeds", [str(point["seeds"]) for point in points])
    yield _Column("loss", [_plus_minus(point["loss"]) for point in points])
    if _has_metric(points):
        yield _Column(_metric_heading(points), [_metric(point, point["metric"]) for point in points])
    if any(point["less_loss_than_alone"] for point in points):
        yield _Column(
            "less than alone", [_plus_minus(point["less_loss_than_alone"], 100.0, " %") for point in points]
        )  # fmt: skip
    yield _Column("trades", [f"{point['trades']:.0f}" for point in points])
    yield _Column("settled", [f"{point['settled']:.0f}" for point in points])
    yield _Column("credits moved", [f"{point['moved'] / CREDIT:.2f}" for point in points])
    if any(point["fees"] for point in points):
        yield _Column("fees", [f"{point['fees'] / CREDIT:.2f}" for point in points])
    yield _Column("ledger", [_ledger(point) for point in points], number=False)


def _ledger(point: Mapping[str, Any]) -> str:
    if not point["trades"] and point["method"] in (ALONE, FEDAVG):
        return ""
    return "verified" if point["verified"] else "DOES NOT VERIFY"


def _show_agents(console: Console, points: Sequence[Mapping[str, Any]], agents: Sequence[str]) -> None:
    """Each agent's final loss, and its metric where that is another; a line a point."""
    keys = [_Column("point", [label_of(point["method"], point["settings"]) for point in points], number=False)]
    losses = [
        _Column(name, [_plus_minus(point["agents"].get(name, {}).get("loss")) for point in points]) for name in agents
    ]
    _show_table(console, "final loss of each agent", keys, losses)
    if _has_metric(points):
        metrics = [
            _Column(name, [_metric(point, point["agents"].get(name, {}).get("metric")) for point in points])
            for name in agents
        ]
        _show_table(console, f"final {_metric_heading(points)} of each agent", keys, metrics)


def _has_metric(points: Sequence[Mapping[str, Any]]) -> bool:
    return any(point["metric"] != point["loss"] for point in points)


def _metric_heading(points: Sequence[Mapping[str, Any]]) -> str:
    name = str(points[0]["metric_name"])
    return f"{name} %" if name == ACCURACY else name


def _metric(point: Mapping[str, Any], value: Mapping[str, float | None] | None) -> str:
    return _plus_minus(value, 100.0 if point["metric_name"] == ACCURACY else 1.0)


def _show_table(console: Console, title: str, keys: Sequence[_Column], columns: Iterable[_Column]) -> None:
    """One table, or several with the same first columns where the terminal is too narrow for one: no number is cut."""
    rest = list(columns)
    while rest:
        count = len(rest)
        while count > 1 and not _fits(console, [*keys, *rest[:count]]):
            count -= 1
        console.print(_table(title, [*keys, *rest[:count]]))
        title, rest = "", rest[count:]


def _fits(console: Console, columns: Sequence[_Column]) -> bool:
    """Whether a table of them needs to fold nothing but words."""
    return sum(_narrowest(column) + SPACES for column in columns) < console.width


def _narrowest(column: _Column) -> int:
    """Its width, in cells, with a heading that takes as many lines as it likes, and texts too."""
    texts = [printable(cell) for cell in column.cells]
    words = [*column.heading.split(), *(texts if column.number else [word for text in texts for word in text.split()])]
    return max(map(cell_len, words), default=0)


def _table(title: str, columns: Sequence[_Column]) -> Table:
    made = Table(
        title=Text(printable(title)) if title else None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )  # fmt: skip
    for column in columns:
        heading = printable(column.heading)
        if column.number:
            heading = "\n".join(textwrap.wrap(heading, _narrowest(column)))
        made.add_column(
            Text(heading), justify="right" if column.number else "left", no_wrap=column.number, overflow="fold"
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


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


def _plus_minus(value: Mapping[str, float | None] | None, scale: float = 1.0, unit: str = "") -> str:
    """A mean, with half of its interval where there are several seeds."""
    if not value or value["mean"] is None:
        return ""
    mean, half = scale * value["mean"], value["half_width"]
    if scale != 1.0:
        return f"{mean:.1f}" + (f" ± {scale * half:.1f}" if half is not None else "") + unit
    return f"{mean:.4g}" + (f" ± {half:.2g}" if half is not None else "") + unit
