"""Runs that meet the end of memory or of the room for their parties' files: told as that, and never a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import alone, small

from p2pmarket.errors import DiskFull, MachineFault
from p2pmarket.experiments import results, sweep
from p2pmarket.experiments.sweep import run_sweep
from p2pmarket.ledger.journal import Ledger

NO_ROOM = r"no room for a simulated market's files in .*; free space.*ulimit -f.* TMPDIR \(in the run 000-market"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_memory_that_ends_is_a_fault_of_the_machine(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(sweep, "run_once", fail)
    with pytest.raises(MachineFault, match="the run 000-alone-seed0 needs more memory than there is") as told:
        run_sweep(alone(), tmp_path, jobs=1)
    assert told.value.__cause__ is error


def test_another_mistake_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(sweep, "run_once", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        run_sweep(alone(), tmp_path, jobs=1)


def test_a_ledger_that_never_had_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DiskFull("the disk failed under somewhere (disk I/O error); check the disk, then start again")

    monkeypatch.setattr(Ledger, "open", fail)
    with pytest.raises(DiskFull, match=NO_ROOM):
        run_sweep(small(), tmp_path, jobs=1)


def test_a_ledger_that_has_no_room_any_more_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents hear of it as of a broker that is busy; their failed visits would be a result."""
    original, calls = Ledger.expire, []

    def fail(ledger: Ledger) -> list[bytes]:
        calls.append(ledger)
        if len(calls) == 10:
            raise DiskFull("the disk failed under somewhere (disk I/O error); check the disk, then start again")
        return original(ledger)

    monkeypatch.setattr(Ledger, "expire", fail)
    with pytest.raises(DiskFull, match=NO_ROOM):
        run_sweep(small(), tmp_path, jobs=1)
    assert len(calls) >= 10 and not results.is_finished(tmp_path, "000-market-seed0")
