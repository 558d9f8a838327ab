"""`paper`: the paper's experiments, each as a table beside the paper's numbers, with plots and one sentence.

Knows: flags, tables and what is said. Refuses to know: any experiment (paper/). Exit code 0 when every row that claims
anything lies in its stated interval, 1 otherwise. What could not run is no disagreement, as data sets are the user's to
bring: beside what was measured it changes no exit code, is told in the last sentence, and makes "complete" false. Where
nothing at all could be measured it raises `DataError` (exit code 2), and leaves rows.json as it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from p2pmarket.cli.paper_progress import Progress
from p2pmarket.cli.show import printable
from p2pmarket.errors import DataError, SettingsError
from p2pmarket.files import disk_errors
from p2pmarket.paper.catalogue import EXPERIMENTS, experiment, scenario_folder

if TYPE_CHECKING:
    from p2pmarket.paper.finding import Finding

_PIPE_COLUMNS = 160
_EFFORTS = {
    "quick": " (a first look: fewer seeds, and where time needs it fewer rounds or less data)",
    "full": " (full)",
}
"""What a table is said to be of, where its numbers are not those of docs/experiments.md."""


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
    out: Path = given.out.expanduser()
    progress = Progress(names, Console(stderr=True))
    try:
        return _findings(given, names, console, progress)
    except KeyboardInterrupt:
        kept = printable(progress.kept(out))
        print(f"p2pmarket: interrupted; {kept}, and the same command goes on from there", file=sys.stderr)
        raise


def _findings(given: argparse.Namespace, names: list[str], console: Console, progress: Progress) -> list[Finding]:
    """
    :raises DataError: nothing could be measured, as data sets are not there; nothing is written then
    """
    from p2pmarket.paper.finding import Context
    from p2pmarket.paper.output import write_rows
    from p2pmarket.paper.tables import write_tables

    scenarios = scenario_folder(given.scenarios)
    out: Path = given.out.expanduser()
    with disk_errors("the results", out):
        out.mkdir(parents=True, exist_ok=True)
    findings: list[Finding] = []
    for name in names:
        with progress.experiment(name) as told:
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
        findings.append(finding)
        if finding.rows or len(names) > 1:
            _print(finding, console, _EFFORTS.get(given.effort, ""))
        if any(one.rows for one in findings):
            path = write_rows(out, findings, given.effort)
            tables = write_tables(out)
    if not any(finding.rows for finding in findings):
        reasons = dict.fromkeys(finding.missing for finding in findings)
        raise DataError(f"nothing was measured, {', '.join(names)} could not run: {'; '.join(reasons)}")
    where = f"rows: {path}; tables to paste: {tables}; look at everything: p2pmarket report {out}"
    console.print(printable(where), highlight=False, markup=False, soft_wrap=True)
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


def _print(finding: Finding, console: Console, effort: str) -> None:
    """The table, the sentence, what is missing, and the plots."""
    from p2pmarket.paper.output import COLUMNS, cells_of

    table = Table(title=Text(f"{finding.title}{effort}"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for row in finding.rows:
        table.add_row(*(Text(_shown(cell, console)) for cell in cells_of(row)))
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
            console.print(_shown(text, console), highlight=False, markup=False, soft_wrap=True)
    console.print()


def _shown(text: str, console: Console) -> str:
    """A text without what steers a terminal, and with +- where the output's encoding has no plus-minus sign."""
    try:
        "±".encode(console.encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-")
    return printable(text)


def _whole(findings: Sequence[Finding], *, agrees: bool) -> str:
    """The last sentence: of what was measured, and of what was not."""
    lacking = [finding.experiment for finding in findings if finding.missing]
    words = "Everything that was measured agrees" if agrees else "Not everything that was measured agrees"
    if against := sum(row.against_paper and bool(row.agrees) for finding in findings for row in finding.rows):
        words += f" with what is stated, which in {against} rows is the opposite of the paper's"
    return f"{words}; incomplete, for {', '.join(lacking)} did not run, or not whole." if lacking else f"{words}."


def _notes(finding: Finding) -> Iterator[str]:
    """Each row's note, those that are alike together."""
    for note in dict.fromkeys(row.note for row in finding.rows if row.note):
        names = [row.row for row in finding.rows if row.note == note]
        yield f"  {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}"
