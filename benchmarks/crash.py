"""What survives `kill -9`? Broker, buyer and seller as real processes, killed by the hundred, and the books after each.

`python -m benchmarks.crash` (a table) or `--json`; `--kills 1000 --worlds 2 --seed 0 --broken NAME --places`.

Every kill is a SIGKILL of one living process while a trade is under way: half of them at named fail points (each that
a party reaches once before any comes again), the others at random times. The process is started again at once, both
agents visit the market until nothing is open, and then all books are held against each other (tests/crash/crash_books):
conservation, holds, one settlement and one end a trade, paid if and only if delivered or deliverable, both journals
against the ledger, no bid paid twice, the log's own audit.

Real are broker, agents, ledger, journals, parcels and their sealing; the processes, their files and SIGKILL. Made for
this are the transport (Unix sockets on one machine, authenticated by nothing), the start (a fork of a process that has
imported everything, some 20 ms) and the appraiser, which measures nothing: a real appraisal moves no money and would
take longer than everything else. So `recovery_s` (from the restart until both visits are done, the next trade of a
restarted agent included) is without a program's start and without an appraisal. Half of the worlds trade parcels of
several chunks.

lost_payments: money or a payment that was acknowledged is gone. Zero failures in n kills bound the rate of failures by
3/n at 95 % (the rule of three): that and no more is shown. kill -9 says nothing of power cuts:
tests/ledger/test_faulty_disk.py is about disks. `--broken` runs a build that is broken on purpose and must be red.
Exit status 1 where anything was found.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "crash"))
crash_broken = importlib.import_module("crash_broken")
crash_campaign = importlib.import_module("crash_campaign")
crash_places = importlib.import_module("crash_places")
crash_world = importlib.import_module("crash_world")

PROGRESS_SECONDS = 10.0
BROKEN_PATIENCE_SECONDS = 10.0


def measure(kills: int, worlds: int, seed: int, broken: str) -> dict[str, Any]:
    """The figures of one campaign."""
    began = told = time.monotonic()

    def progress(tally: Any) -> None:
        nonlocal told
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{tally.kills} kills, {len(tally.problems)} problems, {told - began:.0f} s", file=sys.stderr)

    with tempfile.TemporaryDirectory() as name, crash_world.ForkServer() as server:
        folder = Path(name)
        places, wrong = ((), []) if broken else crash_places.find_places(server, folder / "places")
        order = crash_campaign.broken_kills(broken) if broken else crash_campaign.kills(places, seed)
        patience_s = BROKEN_PATIENCE_SECONDS if broken else crash_world.PATIENCE_SECONDS
        campaign = crash_campaign.Campaign(
            server, folder, order, enough=kills, worlds=worlds, broken=broken, patience_s=patience_s, told=progress
        )
        figures: dict[str, Any] = campaign.run().figures()
        figures["problems"] = [*wrong, *figures["problems"]]
        return {**figures, "places": len(places), "seconds": round(time.monotonic() - began, 1)}


def list_places() -> str:
    """The registry of fail points, as docs/settlement.md has it."""
    with tempfile.TemporaryDirectory() as name, crash_world.ForkServer() as server:
        return str(crash_places.table(crash_places.find_places(server, Path(name) / "places")[0]))


def show(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    bound = figures["rate_below_at_95"]
    table = Table("figure", "value", title=f"{figures['kills']} kills in {figures['seconds']:.0f} s")
    for name, value in figures.items():
        if name not in ("kills", "seconds", "problems", "slowest", "rate_below_at_95"):
            table.add_row(name, str(value))
    table.add_row("failures a kill, at 95 %", "there were failures" if bound is None else f"below {bound:.4f} (3/n)")
    for sentence in figures["slowest"]:
        table.add_row("slowest", sentence)
    for sentence in figures["problems"]:
        table.add_row("problem", sentence)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="SIGKILL in the middle of trades, and the books afterwards.")
    parser.add_argument("--kills", type=int, default=1000, help="how many must have hit (default 1000)")
    parser.add_argument("--worlds", type=int, default=2, help="markets side by side, of three processes each")
    parser.add_argument("--seed", type=int, default=0, help="of the order of kills; their moments are the machine's")
    parser.add_argument("--broken", default="", choices=("", *crash_broken.BUILDS), help="a build that must be red")
    parser.add_argument("--places", action="store_true", help="print the registry of fail points and kill nobody")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.places:
        print(list_places(), end="")
        return
    figures = measure(options.kills, options.worlds, options.seed, options.broken)
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)
    sys.exit(1 if figures["problems"] else 0)


if __name__ == "__main__":
    main()
