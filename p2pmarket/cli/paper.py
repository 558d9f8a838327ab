"""`paper`: the paper's experiments, each as a table beside the paper's numbers, with plots and one sentence.

Knows: flags, progress and tables. Refuses to know: any experiment (paper/). Exit code 0 when something was measured and
every row of it that claims anything lies in its stated interval, 1 otherwise. What could not run is no disagreement, as
data sets are the user's to bring: it changes no exit code, is told in the last sentence, and makes "complete" false.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from p2pmarket.cli.show import printable
from p2pmarket.errors import DataError, SettingsError
from p2pmarket.files import disk_errors
from p2pmarket.paper.catalogue import EXPERIMENTS, experiment, scenario_folder

if TYPE_CHECKING:
    from p2pmarket.paper.finding import Finding

_PIPE_COLUMNS = 160


def paper(given: argparse.Namespace) -> int:
    """Runs what was named, one experiment after the other."""
    if given.list:
        return _list(as_json=given.json)
    names = _names(given.names)
    if given.seeds is not None and given.seeds < 1:
        raise SettingsError(f"--seeds {given.seeds} is not above 0")
    if given.jobs < 0:
        raise SettingsError(f"--jobs {given.jobs} is below 0; 0 takes all cores")
    if given.data is not None and not given.data.expanduser().exists():
        raise DataError(f"there is nothing at --data {given.data}")
    console = Console(stderr=given.json)
    if not console.is_terminal:
        console = Console(stderr=given.json, width=_PIPE_COLUMNS)
    findings = _run(given, names, console)

    from p2pmarket.paper.output import document_of

    document = document_of(findings, given.effort)
    console.print(_whole(findings, agrees=document["agrees"]), highlight=False, markup=False, soft_wrap=True)
    if given.json:
        print(json.dumps({key: document[key] for key in ("agrees", "complete", "rows", "missing")}), flush=True)
    return 0 if document["agrees"] else 1


def _run(given: argparse.Namespace, names: list[str], console: Console) -> list[Finding]:
    from p2pmarket.paper.finding import Context
    from p2pmarket.paper.output import write_rows
    from p2pmarket.paper.tables import write_tables

    scenarios = scenario_folder(given.scenarios)
    out: Path = given.out.expanduser()
    with disk_errors("the results", out):
        out.mkdir(parents=True, exist_ok=True)
    findings = []
    for name in names:
        with _progress() as told:
            finding = experiment(name).run(
                Context(
                    folder=out / name,
                    scenarios=scenarios,
                    effort=given.effort,
                    data=given.data.expanduser() if given.data else None,
                    device=given.device,
                    jobs=given.jobs,
                    seeds=given.seeds,
                    progress=told,
                )
            )
        _print(finding, console)
        findings.append(finding)
        path = write_rows(out, findings, given.effort)
        tables = write_tables(out)
    console.print(
        f"rows: {path}; tables to paste: {tables}; look at everything: p2pmarket report {out}",
        highlight=False,
        soft_wrap=True,
    )
    return findings


def _names(given: list[str]) -> list[str]:
    if not given:
        raise SettingsError(f"name an experiment, or all: {', '.join(EXPERIMENTS)}")
    names = list(dict.fromkeys(EXPERIMENTS if "all" in given else given))
    for name in names:
        if name not in EXPERIMENTS:
            raise SettingsError(f"there is no experiment {name!r}; there are {', '.join(EXPERIMENTS)}, and all")
    return names


def _list(*, as_json: bool) -> int:
    titles = {name: experiment(name).TITLE for name in EXPERIMENTS}
    if as_json:
        print(json.dumps(titles))
    else:
        width = max(map(len, titles))
        print("\n".join(f"{name:{width}}  {title}" for name, title in titles.items()))
    return 0


def _print(finding: Finding, console: Console) -> None:
    """The table, the sentence, what is missing, and the plots."""
    from p2pmarket.paper.output import COLUMNS, cells_of

    table = Table(title=Text(finding.title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for row in finding.rows:
        table.add_row(*(Text(printable(cell)) for cell in cells_of(row)))
    if finding.rows:
        console.print(table)
    else:
        console.print(Text(finding.title))
    for text in (
        *_notes(finding),
        f"{finding.experiment}: {finding.sentence}" if finding.sentence else "",
        f"{finding.experiment}, not run: {finding.missing}" if finding.missing else "",
        f"plots: {', '.join(map(str, finding.plots))}" if finding.plots else "",
    ):
        if text:
            console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
    console.print()


def _whole(findings: Sequence[Finding], *, agrees: bool) -> str:
    """The last sentence: of what was measured, and of what was not."""
    lacking = [finding.experiment for finding in findings if finding.missing]
    if not any(finding.rows for finding in findings):
        return f"Nothing was measured: {', '.join(lacking)} could not run."
    words = "Everything that was measured agrees" if agrees else "Not everything that was measured agrees"
    return f"{words}; incomplete, for {', '.join(lacking)} did not run, or not whole." if lacking else f"{words}."


def _notes(finding: Finding) -> Iterator[str]:
    """Each row's note, those that are alike together."""
    for note in dict.fromkeys(row.note for row in finding.rows if row.note):
        names = [row.row for row in finding.rows if row.note == note]
        yield f"  {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}"


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr while an experiment runs; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda doing, done, of: bar.update(task, description=printable(doing), completed=done, total=of)
