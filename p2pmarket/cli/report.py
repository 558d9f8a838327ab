"""`report`: one HTML page of a simulation's results, of an agent's journal or of a broker's ledger."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from p2pmarket import __version__
from p2pmarket.cli.show import printable
from p2pmarket.files import replacing
from p2pmarket.units import format_bytes, now_ms

if TYPE_CHECKING:
    from p2pmarket.report.story import Story


def report(given: argparse.Namespace) -> int:
    """Writes the page and says where."""
    path: Path = (given.out or Path("report.html")).expanduser()
    story, size = write_report_page(given.folder.expanduser(), path)
    if given.json:
        found = {"kind": story.kind, "title": story.title, "headline": story.headline, "warnings": list(story.warnings)}
        print(json.dumps({**found, "path": str(path), "bytes": size}))
        return 0
    print(printable(story.headline))
    for warning in story.warnings:
        print(printable(f"warning: {warning}"))
    print(f"wrote {printable(str(path))} ({format_bytes(size)}); open it in any browser")
    return 0


def write_report_page(folder: Path, path: Path) -> tuple[Story, int]:
    """Writes the page that tells of a folder, as anybody may read it whom the umask lets; what it tells, and its bytes.

    :raises DataError: nothing can be told of the folder
    :raises DiskFull, MachineFault: the page cannot be written, or matplotlib is not installed
    """
    from p2pmarket.report.find import story_of
    from p2pmarket.report.page import write_page
    from p2pmarket.report.words import moment

    story = story_of(folder)
    page = write_page(story, f"Made by p2pmarket {__version__} on {moment(now_ms())} UTC.").encode(
        errors="backslashreplace"
    )
    with replacing(path, "the report") as temporary:
        temporary.unlink()  # it is for its owner alone; the one that is written here is as the umask has it
        temporary.write_bytes(page)
    return story, len(page)
