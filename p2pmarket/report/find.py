"""Which of the things that can be told of a folder is: results, a paper's results, a broker, an agent.

Knows: which files tell. Refuses to know: what is in them. A folder that is none of these raises DataError.
"""

from __future__ import annotations

from pathlib import Path

from p2pmarket.errors import DataError
from p2pmarket.report import from_journal, from_ledger
from p2pmarket.report.from_journal import story_of_journal
from p2pmarket.report.from_ledger import story_of_ledger
from p2pmarket.report.from_paper import folders_in, holds_results, is_paper, story_of_paper
from p2pmarket.report.from_results import story_of_results
from p2pmarket.report.story import Story

KEY_FILE = "identity.key"
MAX_NAMED = 8
"""Folders that a sentence names."""


def story_of(folder: Path) -> Story:
    """The page of a folder, whatever it is of.

    :raises DataError: it is none of these, or its results cannot be read
    :raises MarketError: its ledger or journal cannot be opened
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; name the folder that simulate, paper, a node or a broker wrote to")
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; name one that simulate, paper, a node or a broker wrote to")
    for file, tell in ((from_ledger.FILE, story_of_ledger), (from_journal.FILE, story_of_journal)):
        if (folder / file).is_file():
            if not (folder / KEY_FILE).is_file():
                raise DataError(f"{folder} holds {file} without the {KEY_FILE} it belongs to; name the whole folder")
            return tell(folder)
    if holds_results(folder):
        return story_of_results(folder)
    if is_paper(folder):
        return story_of_paper(folder)
    if states := [str(one.relative_to(folder)) for one in folders_in(folder, _is_state)]:
        more = f" and {len(states) - MAX_NAMED:,} more" if len(states) > MAX_NAMED else ""
        raise DataError(
            f"{folder} is nothing that a report can tell of, but beneath it are {', '.join(states[:MAX_NAMED])}{more}: "
            "name one of them"
        )
    if (page := folder / "report.html").is_file():
        raise DataError(f"{folder} is a report already: look at {page} in a browser")
    raise DataError(
        f"{folder} is nothing that a report can tell of: looked for results (runs/*/run.json, or folders "
        f"that have it, or rows.json), for an agent's {from_journal.FILE} and for a broker's {from_ledger.FILE}"
    )


def _is_state(folder: Path) -> bool:
    """Whether a broker or an agent keeps its books there."""
    return (folder / KEY_FILE).is_file() and any(
        (folder / file).is_file() for file in (from_ledger.FILE, from_journal.FILE)
    )
