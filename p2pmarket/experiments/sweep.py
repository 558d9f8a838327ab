"""All runs of a scenario: every point of its sweep with every seed, on all cores, kept one by one as they are finished.

Knows: which runs there are, which are finished already, and what to do when one fails: the others go on, and the error
is raised at the end. Refuses to know: how a run goes (run.py), how processes are kept (workers.py), what files look
like (results.py). Finished runs are never removed: a folder of another scenario raises `ScenarioError`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from p2pmarket.errors import DiskFull, MachineFault, MarketError, ScenarioError
from p2pmarket.experiments import results
from p2pmarket.experiments.combined import check_format, write_combined
from p2pmarket.experiments.document import MAX_POINTS, Document, Point, as_toml, digest_of, points_of, with_value
from p2pmarket.experiments.locks import locked
from p2pmarket.experiments.results import RunResult, read_run, write_run
from p2pmarket.experiments.run import HERE, RunPlan, run_once
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.experiments.scratch import MEMORY, remove_left_behind
from p2pmarket.experiments.summary import summary_of
from p2pmarket.experiments.workers import Job, in_processes
from p2pmarket.experiments.worlds.contract import Place
from p2pmarket.files import disk_errors

Progress = Callable[[str, int, int], None]
"""Told a run's name, its finished rounds and how many it has; they are equal once the run is finished and kept."""

NO_PART_OF_A_RUN = ("name", "about", "seed", "seeds")
"""Keys of [scenario] that change no run: a run is the same under another name, or beside more seeds."""


def plans_of(document: Document, seeds: tuple[int, ...] | None = None) -> list[RunPlan]:
    """All runs of a scenario, point by point, each checked.

    :param seeds: instead of the scenario's own
    :raises ScenarioError: names the first wrong key, and the sweep's values where it is one of them
    """
    found: dict[tuple[str, int], RunPlan] = {}
    for point in points_of(document):
        _check_axes(point.settings)
        for plan in _plans(point, seeds, document):
            found.setdefault((plan.digest, plan.seed), plan)  # two points may be the same but for the scenario's name
        if len(found) > MAX_POINTS:
            raise ScenarioError(f"more than {MAX_POINTS:,} runs; make the sweep or its seeds fewer")
    return list(found.values())


def run_sweep(
    document: Document,
    out: Path,
    *,
    place: Place = HERE,
    jobs: int = 0,
    seeds: tuple[int, ...] | None = None,
    plans: Sequence[RunPlan] | None = None,
    progress: Progress = lambda run, done, of: None,
    format: str = "csv",
    log_level: str = "ERROR",
) -> list[RunResult]:
    """Makes every run of the scenario that is not finished in `out`; all of its runs, in order.

    Each run has one thread, so that results do not depend on how many run at once. With one job the runs are made in
    this process. A script that calls this with more needs `if __name__ == "__main__":`, as every one that starts
    processes.

    :param jobs: processes; 0: one for each core, or a single one with a GPU, which they would share
    :param seeds: instead of the scenario's own
    :param plans: `plans_of` the document and the seeds, where the caller has made them
    :param progress: told of every run that is finished, those of before first; may raise to stop
    :param format: "csv" or "parquet", of the files that hold all finished runs together
    :param log_level: from which on the package's log tells of what happens in a run, as `logging` names it; a delivery
        that comes too late is a warning to an operator, and in a simulation what was asked for
    :raises ScenarioError: the scenario is wrong, or `out` holds runs of another one
    :raises MarketError: as a run raised it, with the run's name; what is finished is kept
    """
    check_format(format)
    plans = plans_of(document, seeds) if plans is None else plans
    with _folder(out):
        plans = _numbered(plans, _kept(document, out))
        scenario = {**document, "scenario": {**document["scenario"], "seeds": sorted({plan.seed for plan in plans})}}
        scenario["scenario"].pop("seed", None)
        results.write_scenario(out, as_toml(scenario))
        todo = []
        for plan in plans:
            if results.is_finished(out, plan.name):
                progress(plan.name, plan.scenario.rounds, plan.scenario.rounds)
            else:
                todo.append(plan)
        documents = {_digest(point.document): point.document for point in points_of(document)}
        tasks = [
            _Task(documents[plan.digest], plan.number, plan.settings, plan.seed, out, place, log_level) for plan in todo
        ]
        failed = _make(todo, tasks, _count(jobs, place, len(todo)), progress)
        if any(isinstance(error, DiskFull) for _, error in failed):
            raise _first(failed)
        read = {plan.name: read_run(results.folder_of(out, plan.name)) for plan in plans}
        found = {name: run for name, run in read.items() if run is not None}
        write_combined(out, results.each_run(out, found), format)
        results.write_summary(out, summary_of(found.values()))
        if failed:
            raise _first(failed)
    return list(found.values())


def _check_axes(paths: Iterable[str]) -> None:
    for path in paths:
        section, _, key = path.partition(".")
        if section == "sweep" or (section == "scenario" and key in NO_PART_OF_A_RUN):
            raise ScenarioError(f"{path} changes no run, and is nothing to sweep over; seeds are in [scenario]")


def _mistake(document: Document) -> str:
    """What is wrong with the scenario without its sweep; empty where nothing is."""
    try:
        parse_scenario({key: value for key, value in document.items() if key != "sweep"})
    except ScenarioError as error:
        return str(error)
    return ""


def _plans(point: Point, seeds: tuple[int, ...] | None, base: Document) -> list[RunPlan]:
    try:
        scenario = parse_scenario(point.document)
    except ScenarioError as error:
        if not point.settings:
            raise
        if str(error) == _mistake(base):
            raise  # it is there without the sweep too
        where = ", ".join(f"{path} = {value!r}" for path, value in point.settings.items())
        raise ScenarioError(f"{error} (the sweep's {where})") from None
    digest = _digest(point.document)
    return [RunPlan(point.number, point.settings, digest, scenario, seed) for seed in seeds or scenario.seeds]


def _digest(document: Document) -> str:
    """Of what makes a run but for its seed."""
    table = document.get("scenario", {})
    kept = {key: value for key, value in table.items() if key not in NO_PART_OF_A_RUN}
    return digest_of({**document, "scenario": kept})


# ---- the folder -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The folder of results, for this process alone.

    :raises ScenarioError: it is none, or another process makes runs in it
    :raises DiskFull, MachineFault: it cannot be made
    """
    if out.exists() and not out.is_dir():
        raise ScenarioError(f"{out} is a file; name a folder for the results with --out")
    if out.is_dir() and any(out.iterdir()) and not results.is_results(out):
        raise ScenarioError(f"{out} holds other things than results; name a new folder with --out")
    with contextlib.ExitStack() as stack:
        try:
            with disk_errors("the results", out):
                out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(out / results.LOCK_FILE, create=True))  # first: the folder is known by it
                (out / results.RUNS_FOLDER).mkdir(exist_ok=True)
        except MachineFault as error:
            if isinstance(error.__cause__, BlockingIOError):
                raise ScenarioError(
                    f"another process is making runs in {out}; wait for it, or name another --out"
                ) from None
            raise
        yield


def _kept(document: Document, out: Path) -> dict[str, int]:
    """Numbers of the points that have finished runs, by digest.

    :raises ScenarioError: one of them is a run of another scenario, or of this one as it was
    """
    axes = {path for point in points_of(document)[:1] for path in point.settings}
    base = {key: value for key, value in document.items() if key != "sweep"}
    found: dict[str, int] = {}
    for facts in results.read_facts(out):
        settings = facts["settings"]
        same = set(settings) == axes
        if same and facts["digest"] not in found:
            point = base
            for path, value in settings.items():
                point = with_value(point, path, value)
            same = _digest(point) == facts["digest"]
        if not same:
            raise ScenarioError(
                f"{out} holds runs of another scenario, or of this one before it was changed, such as {facts['run']}; "
                "name another folder with --out (only more seeds, and more values of the same sweep, can join)"
            )
        found[facts["digest"]] = int(facts["run"].partition("-")[0])
    return found


def _numbered(plans: Sequence[RunPlan], kept: Mapping[str, int]) -> list[RunPlan]:
    """The plans with the numbers of points that have runs already, whatever was put before them since."""
    numbers = dict(kept)
    taken = set(kept.values())
    free = max([*taken, *(plan.number for plan in plans)], default=0) + 1
    for plan in plans:
        if plan.digest not in numbers:
            number = plan.number
            if number in taken:
                number, free = free, free + 1
            numbers[plan.digest] = number
            taken.add(number)
    return [dataclasses.replace(plan, number=numbers[plan.digest]) for plan in plans]


# ---- making the runs ------------------------------------------------------------------------------------------------

Failed = list[tuple[str, MarketError]]


def _count(jobs: int, place: Place, todo: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(jobs or (cores if place.device == "cpu" else 1), todo)


def _make(todo: Sequence[RunPlan], tasks: Sequence[_Task], count: int, progress: Progress) -> Failed:
    """Makes the runs, and tells which failed; after a full disk no further one is begun."""
    rounds = {plan.name: plan.scenario.rounds for plan in todo}

    def underway(run: str, done: int) -> None:
        progress(run, min(done, rounds[run] - 1), rounds[run])

    failed: Failed = []
    jobs = [Job(plan.name, task) for plan, task in zip(todo, tasks, strict=True)]
    with contextlib.closing(_here(jobs, underway) if count <= 1 else _beside(jobs, count, underway)) as ended:
        for name, error in ended:
            if error is None:
                progress(name, rounds[name], rounds[name])
                continue
            failed.append((name, error))
            if isinstance(error, DiskFull):
                break
    return failed


Ended = Generator[tuple[str, MarketError | None], None, None]


def _here(jobs: Sequence[Job], underway: Callable[[str, int], None]) -> Ended:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, task in jobs:
            try:
                _carry_out(task, functools.partial(underway, name))
            except MarketError as error:
                yield name, error
            else:
                yield name, None
    finally:
        torch.set_num_threads(threads)


def _beside(jobs: Sequence[Job], count: int, underway: Callable[[str, int], None]) -> Ended:
    try:
        with contextlib.closing(in_processes(_carry_out, jobs, count, underway)) as ended:
            for done in ended:
                yield done.job.name, done.error
    finally:
        for place in (MEMORY, Path(tempfile.gettempdir())):
            remove_left_behind(place)  # of workers that were ended or died; what others use is locked


@dataclasses.dataclass(frozen=True)
class _Task:
    """A run as it travels to another process, which reads the scenario itself: strategies need not be sendable."""

    document: Document
    number: int
    settings: Mapping[str, Any]
    seed: int
    out: Path
    place: Place
    log_level: str


def _carry_out(task: _Task, tell: Callable[[int], None]) -> None:
    (plan,) = _plans(Point(task.number, task.settings, task.document), (task.seed,), task.document)
    with _logged_from(task.log_level):
        run = run_once(plan, task.place, lambda done, of: tell(done))
    write_run(results.folder_of(task.out, plan.name), run)


@contextlib.contextmanager
def _logged_from(level: str) -> Iterator[None]:
    """The package's log from a level on; a worker's goes to stderr."""
    if multiprocessing.parent_process() is not None:
        logging.basicConfig(level=level)  # of a worker, which is nobody else's process
    log = logging.getLogger("p2pmarket")
    before = log.level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)


def _first(failed: Failed) -> MarketError:
    """The first error, of its own class, with the run's name and how many more failed."""
    name, error = min(failed, key=lambda one: one[0])
    sentence, others = str(error), len(failed) - 1
    if name not in sentence:
        sentence += f" (in the run {name})"
    if others:
        sentence += f"; {others} more {'run' if others == 1 else 'runs'} failed"
    error.args = (sentence,)
    return error
