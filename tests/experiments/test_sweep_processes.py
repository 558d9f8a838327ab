"""Runs in processes of their own: whatever ends one of them, or all, finished runs stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sweep_work
from small import alone, small

from p2pmarket.errors import DataError, MachineFault, MarketError
from p2pmarket.experiments.document import as_toml
from p2pmarket.experiments.results import read_all
from p2pmarket.experiments.sweep import run_sweep
from p2pmarket.experiments.workers import Job, in_processes

SLOW = {**alone(rounds=2500, measure_every=2500, seeds=6), "regression": {"dimension": 96, "steps": 20}}
"""Six runs of half a second or so."""


def test_every_end_of_a_worker() -> None:
    tasks = {"kill": "kill", "broken": "market error", "bug": "mistake", "foreign": "own error", "fine": "nothing"}
    jobs = [Job(name, task) for name, task in tasks.items()]
    ended = {done.job.name: done.error for done in in_processes(sweep_work.work, jobs, 2, lambda *_: None)}
    assert ended.keys() == tasks.keys()
    assert ended["fine"] is None
    assert type(ended["broken"]) is DataError and str(ended["broken"]) == "no such data"
    assert ended["broken"].code == "data-of-mine"
    assert "the process of the run kill died (ended by SIGKILL); run the same command again" in str(ended["kill"])
    assert "the run bug failed with ValueError: seven; --jobs 1 shows where" in str(ended["bug"])
    assert type(ended["foreign"]) is MachineFault and str(ended["foreign"]) == "mineyours"
    assert all(error is None or isinstance(error, MarketError) for error in ended.values())


def test_processes_make_the_same_rows_as_one(tmp_path: Path) -> None:
    document = small(seeds=2)
    told: list[tuple[str, int, int]] = []
    beside = run_sweep(document, tmp_path / "a", jobs=2, progress=lambda *one: told.append(one))
    here = run_sweep(document, tmp_path / "b", jobs=1)
    assert [(run.rounds, run.trades) for run in beside] == [(run.rounds, run.trades) for run in here]
    assert sorted(one for one in told if one[1] == one[2]) == [
        ("000-market-seed0", 2, 2),
        ("000-market-seed1", 2, 2),
    ]


@pytest.mark.parametrize("how", ["interrupt", pytest.param("kill", marks=pytest.mark.slow)])
def test_an_interrupted_sweep_goes_on(how: str, tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text(as_toml(SLOW))
    arguments = [sys.executable, sweep_work.__file__, str(tmp_path / "slow.toml"), str(tmp_path / "out"), "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline().startswith("finished ")
        if how == "interrupt":
            os.killpg(child.pid, signal.SIGINT)  # as a terminal does: everybody hears it
        else:
            os.kill(child.pid, signal.SIGKILL)
        child.stdout.read()  # ends when the last worker has ended
        complaints = child.stderr.read()
    assert child.returncode == (-signal.SIGINT if how == "interrupt" else -signal.SIGKILL)
    if how == "interrupt":
        assert complaints.count("Traceback") == 1, "no worker complains beside the one that was asked"
    kept = {run.facts["run"]: run.rounds for run in read_all(tmp_path / "out")}
    assert 1 <= len(kept) < 6
    made: set[str] = set()
    runs = run_sweep(
        SLOW, tmp_path / "out", jobs=1, progress=lambda run, done, of: made.add(run) if done < of else None
    )
    assert made == {run.facts["run"] for run in runs} - kept.keys()
    assert {run.facts["run"]: run.rounds for run in runs if run.facts["run"] in kept} == kept
