"""All runs of a scenario in one process: which there are, which are made again, what a failure leaves."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
from small import alone, small

from p2pmarket import __version__
from p2pmarket.errors import DataError, DiskFull, MachineFault, ScenarioError
from p2pmarket.experiments import results, sweep
from p2pmarket.experiments.document import Document, with_value
from p2pmarket.experiments.plan import plans_of
from p2pmarket.experiments.results import RunResult, read_all
from p2pmarket.experiments.run import RunPlan, run_once
from p2pmarket.experiments.sweep import run_sweep

METHODS = {"scenario": {"method": ["alone", "fedavg"]}}


def made_by(document: Document, out: Path, **options: Any) -> tuple[list[str], list[RunResult]]:
    """The runs that are made, and all that are returned."""
    made: list[str] = []
    finished: list[str] = []

    def progress(run: str, done: int, of: int) -> None:
        if done == of:
            finished.append(run)
        elif run not in made:
            made.append(run)

    found = run_sweep(document, out, jobs=1, progress=progress, **options)
    assert sorted(finished) == sorted(run.facts["run"] for run in found)
    return made, found


def test_every_point_with_every_seed(tmp_path: Path) -> None:
    made, runs = made_by(small(sweep=METHODS, seeds=2), tmp_path / "out")
    names = ["000-alone-seed0", "000-alone-seed1", "001-fedavg-seed0", "001-fedavg-seed1"]
    assert made == names
    assert [run.facts["run"] for run in runs] == names
    assert [run.facts["settings"] for run in runs[1:3]] == [{"scenario.method": "alone"}, {"scenario.method": "fedavg"}]
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".") == [
        "rounds.csv", "runs", "runs.csv", "scenario.toml", "summary.json", "trades.csv",
    ]  # fmt: skip


def test_a_market_is_run_twice_the_same(tmp_path: Path) -> None:
    one, other = (run_sweep(small(), tmp_path / name, jobs=1) for name in "ab")
    assert one[0].trades and one[0].rounds == other[0].rounds and one[0].trades == other[0].trades
    different = run_sweep(small(), tmp_path / "c", jobs=1, seeds=(1,))
    assert different[0].rounds[-1].loss != one[0].rounds[-1].loss


def test_what_is_finished_is_not_made_again_and_more_joins(tmp_path: Path) -> None:
    document = alone(seeds=2)
    made_by(document, tmp_path)
    assert made_by(document, tmp_path)[0] == []
    made, runs = made_by(document, tmp_path, seeds=(0, 1, 5))
    assert made == ["000-alone-seed5"] and len(runs) == 3
    renamed = with_value(with_value(document, "scenario.name", "other"), "scenario.about", "words")
    assert made_by(renamed, tmp_path)[0] == []


def test_a_run_without_its_last_file_is_made_again(tmp_path: Path) -> None:
    _, before = made_by(alone(seeds=3), tmp_path)
    (results.folder_of(tmp_path, "000-alone-seed1") / "run.json").unlink()
    made, after = made_by(alone(seeds=3), tmp_path)
    assert made == ["000-alone-seed1"]
    assert [run.rounds for run in after] == [run.rounds for run in before]


def test_points_that_are_put_before_others_leave_these_their_numbers(tmp_path: Path) -> None:
    def over(*samples: int) -> Document:
        return alone(sweep={"agent": {"A": {"samples": list(samples)}}})

    made_by(over(10, 20), tmp_path)
    made, runs = made_by(over(5, 10, 15, 20), tmp_path)
    assert made == ["004-alone-seed0", "002-alone-seed0"]
    numbers = {run.facts["settings"]["agent.A.samples"]: run.facts["run"][:3] for run in runs}
    assert numbers == {5: "004", 10: "000", 15: "002", 20: "001"}
    assert len(read_all(tmp_path)) == 4
    assert len(run_sweep(over(20), tmp_path, jobs=1)) == 1
    assert len(read_all(tmp_path)) == 4


def change_facts(out: Path, run: str, **facts: Any) -> None:
    file = results.folder_of(out, run) / results.RUN_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))


def test_a_run_of_another_version_is_taken_up_and_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, before = made_by(alone(seeds=3), tmp_path)
    assert before[0].facts["versions"]["p2pmarket"] == __version__ and before[0].facts["format"] == 1
    change_facts(tmp_path, "000-alone-seed1", versions={"p2pmarket": "0.0.7"})
    assert made_by(alone(seeds=1), tmp_path)[0] == []
    assert caplog.records == [], "a run that nobody asks for now is nobody's matter"
    made, after = made_by(alone(seeds=4), tmp_path)
    assert made == ["000-alone-seed3"] and [run.rounds for run in after[:3]] == [run.rounds for run in before]
    (told,) = caplog.messages
    assert told.startswith(f"in {tmp_path} p2pmarket 0.0.7 made 1 of the runs, such as 000-alone-seed1, and this is")
    assert f"{__version__}; they are kept as they are, and another --out computes them anew" in told
    caplog.clear()
    for seed in range(4):
        change_facts(tmp_path, f"000-alone-seed{seed}", versions={})
    assert made_by(alone(seeds=4), tmp_path)[0] == []
    assert "p2pmarket of an unknown version made 4 of the runs" in caplog.text and len(caplog.records) == 1


def test_a_run_of_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    made_by(alone(), tmp_path)
    change_facts(tmp_path, "000-alone-seed0", format=2, digest=None)
    for read in (lambda: made_by(alone(), tmp_path), lambda: read_all(tmp_path)):
        with pytest.raises(DataError, match=r"run.json was written by a newer p2pmarket, in its format 2; update this"):
            read()
    change_facts(tmp_path, "000-alone-seed0", format="2")
    with pytest.raises(DataError, match="format is str, no int"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("scenario.rounds", 3, "scenario.rounds was 2, is 3"),
        ("agent.A.samples", 7, "agent.A.samples was 6, is 7"),
        ("scenario.method", "fedavg", 'scenario.method was "alone", is "fedavg"'),
        ("sweep.agent.A.samples", [6], "[sweep] was over nothing, is over agent.A.samples"),
        ("faults.lost", 0.1, "faults.lost was not given, is 0.1"),
    ],
)
def test_the_folder_of_another_scenario_is_left_alone(path: str, value: Any, told: str, tmp_path: Path) -> None:
    run_sweep(alone(), tmp_path, jobs=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    wanted = f"another scenario, or of this one before it was changed ({told}), such as 000-alone-seed0; name another"
    with pytest.raises(ScenarioError, match=re.escape(wanted)):
        run_sweep(with_value(alone(), path, value), tmp_path, jobs=1)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("text", ["", "[scenario]\nrounds = 7\n", "not TOML"])
def test_a_scenario_that_is_not_the_runs_own_tells_no_change(text: str, tmp_path: Path) -> None:
    run_sweep(alone(), tmp_path, jobs=1)
    (tmp_path / "scenario.toml").write_text(text)
    with pytest.raises(ScenarioError, match=r"before it was changed, such as 000-alone-seed0; name another"):
        run_sweep(alone(rounds=3), tmp_path, jobs=1)


def test_a_swept_value_is_no_change(tmp_path: Path) -> None:
    run_sweep(small(sweep=METHODS, method="market"), tmp_path, jobs=1)
    with pytest.raises(ScenarioError, match=r"changed \(scenario\.rounds was 2, is 3\), such"):
        run_sweep(small(sweep=METHODS, method="alone", rounds=3, about="other", seeds=2), tmp_path, jobs=1)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScenarioError, match="file is a file; name a folder .* --out"):
        run_sweep(alone(), tmp_path / "file", jobs=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ScenarioError, match="holds other things than results"):
        run_sweep(alone(), tmp_path / "full", jobs=1)
    run_sweep(alone(), tmp_path / "used", jobs=1)
    with (tmp_path / "used" / results.LOCK_FILE).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ScenarioError, match="another process is making runs in"):
            run_sweep(alone(), tmp_path / "used", jobs=1)
    run_sweep(alone(), tmp_path / "used", jobs=1)


@pytest.mark.parametrize("beside", ["runs/mine/runs/000-market-seed0/run.json", "runs/notes.txt", "notes.txt"])
def test_a_scenario_that_lies_beside_other_things_is_not_written_over(beside: str, tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text("# mine")
    (tmp_path / beside).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / beside).write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ScenarioError, match="holds other things than results"):
        run_sweep(alone(), tmp_path, jobs=1)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_that_was_broken_off_at_once_is_taken_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_sweep(alone(), tmp_path, jobs=1, progress=_interrupt)
    assert read_all(tmp_path) == [] and (tmp_path / "scenario.toml").exists()
    assert len(run_sweep(alone(), tmp_path, jobs=1)) == 1
    (tmp_path / results.LOCK_FILE).unlink()  # as a copy without hidden files
    assert len(run_sweep(alone(), tmp_path, jobs=1)) == 1


def _interrupt(run: str, done: int, of: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_lock_that_is_no_file_is_neither_followed_nor_waited_for(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_sweep(alone(), out, jobs=1)
    (out / results.LOCK_FILE).unlink()
    if kind == "link":
        (out / results.LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(out / results.LOCK_FILE)
    with pytest.raises(MachineFault, match="cannot write the results to"):
        run_sweep(alone(), out, jobs=1)
    assert not (tmp_path / "elsewhere").exists()


def failing(monkeypatch: pytest.MonkeyPatch, errors: dict[int, BaseException]) -> list[int]:
    """Seeds whose runs raise; those that were begun."""
    begun: list[int] = []
    original = run_once

    def run(plan: RunPlan, *given: Any) -> RunResult:
        begun.append(plan.seed)
        if plan.seed in errors:
            raise errors[plan.seed]
        return original(plan, *given)

    monkeypatch.setattr(sweep, "run_once", run)
    return begun


def test_the_others_go_on_when_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {1: DataError("no such data", code="mine"), 3: DataError("none either")}
    begun = failing(monkeypatch, dict(errors))
    with pytest.raises(DataError) as raised:
        run_sweep(alone(seeds=5), tmp_path, jobs=1)
    assert str(raised.value) == "no such data (in the run 000-alone-seed1); 1 more run failed"
    assert raised.value.code == "mine"
    assert begun == [0, 1, 2, 3, 4]
    assert [run.facts["seed"] for run in read_all(tmp_path)] == [0, 2, 4]
    assert (tmp_path / "runs.csv").read_text().count("\n") == 4
    assert json.loads((tmp_path / "summary.json").read_text())["runs"] == 3
    monkeypatch.undo()
    assert made_by(alone(seeds=5), tmp_path)[0] == ["000-alone-seed1", "000-alone-seed3"]


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = failing(monkeypatch, {2: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run_sweep(alone(seeds=4), tmp_path, jobs=1)
    assert begun == [0, 1, 2] and len(read_all(tmp_path)) == 2
    monkeypatch.undo()
    assert len(made_by(alone(seeds=4), tmp_path)[0]) == 2


def test_progress_may_stop_a_run_and_a_market_is_left_in_order(tmp_path: Path) -> None:
    def progress(run: str, done: int, of: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(small(), tmp_path, jobs=1, progress=progress)
    assert read_all(tmp_path) == []
    assert len(run_sweep(small(), tmp_path, jobs=1)) == 1


def test_a_full_disk_stops_all_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def no_room(path: Path, data: bytes) -> int:
        if "seed1" in str(path) and "rounds" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", no_room)
    begun = failing(monkeypatch, {})
    with pytest.raises(DiskFull, match=r"cannot write the results to .*seed1.*the disk is full; free some space"):
        run_sweep(alone(seeds=4), tmp_path, jobs=1)
    assert begun == [0, 1]
    assert [run.facts["seed"] for run in read_all(tmp_path)] == [0]
    monkeypatch.undo()
    assert len(run_sweep(alone(seeds=4), tmp_path, jobs=1)) == 4


@pytest.mark.parametrize("path", ["scenario.seeds", "scenario.name", "sweep.deeper"])
def test_sweeps_that_change_no_run(path: str) -> None:
    with pytest.raises(ScenarioError, match="nothing to sweep over"):
        plans_of({**alone(), "sweep": {path: ["a", "b"]}})


def test_a_wrong_value_of_a_sweep_is_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"unknown key 'dimensoin' .*\(the sweep's regression.dimensoin = 4\)"):
        run_sweep(alone(sweep={"regression.dimensoin": [4, 5]}), tmp_path / "out", jobs=1)
    with pytest.raises(ScenarioError, match="there is no 'C' in that list; it has A, B"):
        run_sweep(alone(sweep={"agent.C.samples": [4, 5]}), tmp_path / "out", jobs=1)
    with pytest.raises(ScenarioError, match=r"samples in \[\[agent\]\] 'A' is 0; .*samples = 0"):
        run_sweep(alone(sweep={"agent.A.samples": [4, 0]}), tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


def test_too_many_runs() -> None:
    with pytest.raises(ScenarioError, match="more than 100,000 runs"):
        plans_of(alone(seeds=10_000, sweep={"agent.A.samples": list(range(1, 12))}))


def test_points_that_are_the_same_are_run_once() -> None:
    assert len(plans_of(alone(sweep={"agent.A.samples": [4, 5, 4]}))) == 2


@pytest.mark.parametrize(("level", "heard"), [("ERROR", False), ("WARNING", True)])
def test_warnings_of_a_run_are_heard_when_they_are_asked_for(
    level: str, heard: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def warn(*given: Any) -> RunResult:
        logging.getLogger("p2pmarket.node.buyer").warning("a late delivery is dropped")
        return run_once(*given)

    monkeypatch.setattr(sweep, "run_once", warn)
    sweep.run_sweep(alone(), tmp_path / "out", jobs=1, log_level=level)
    assert ("a late delivery is dropped" in caplog.text) is heard
    assert logging.getLogger("p2pmarket").level == logging.NOTSET, "as it was"
