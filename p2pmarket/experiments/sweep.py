"""All runs of a scenario: every point of its sweep with every seed, on all cores, kept one by one as they are finished.

Knows: what to do when a run fails: the others go on, and the error is raised at the end. Refuses to know: which runs
there are (plan.py) and which of them a folder has already (resuming.py), how a run goes (run.py), how processes are
kept (workers.py), what files look like (results.py). Finished runs are never removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from p2pmarket.errors import DiskFull, MachineFault, MarketError
from p2pmarket.experiments import results
from p2pmarket.experiments.combined import check_format, write_combined
from p2pmarket.experiments.document import Document, Point, as_toml, points_of
from p2pmarket.experiments.plan import RunPlan, digest_of_runs, plans_at, plans_of
from p2pmarket.experiments.results import RunResult, read_run, write_run
from p2pmarket.experiments.resuming import kept_points, numbered, results_folder, tell_origins, tell_versions
from p2pmarket.experiments.run import HERE, run_once
from p2pmarket.experiments.scratch import MEMORY, remove_left_behind
from p2pmarket.experiments.summary import summary_of
from p2pmarket.experiments.workers import Job, in_processes
from p2pmarket.experiments.worlds.contract import Place

Progress = Callable[[str, int, int], None]
"""Told a run's name, its finished rounds and how many it has; they are equal once the run is finished and kept."""


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
    with results_folder(out):
        kept = results.read_facts(out)
        plans = numbered(plans, kept_points(document, kept, out))
        finished = {facts["run"]: facts for facts in kept}
        taken_up = [(plan, finished[plan.name]) for plan in plans if plan.name in finished]
        tell_versions([facts for _, facts in taken_up], out)
        tell_origins(taken_up, place, out)
        scenario = {**document, "scenario": {**document["scenario"], "seeds": sorted({plan.seed for plan in plans})}}
        scenario["scenario"].pop("seed", None)
        results.write_scenario(out, as_toml(scenario))
        todo = []
        for plan in plans:
            if results.is_finished(out, plan.name):
                progress(plan.name, plan.scenario.rounds, plan.scenario.rounds)
            else:
                todo.append(plan)
        documents = {digest_of_runs(point.document): point.document for point in points_of(document)}
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
    (plan,) = plans_at(Point(task.number, task.settings, task.document), (task.seed,), task.document)
    with _logged_from(task.log_level), _memory_errors(plan.name):
        run = run_once(plan, task.place, lambda done, of: tell(done))
    write_run(results.folder_of(task.out, plan.name), run)


@contextlib.contextmanager
def _memory_errors(run: str) -> Iterator[None]:
    """Turns what Python and torch raise where memory ends into a sentence.

    :raises MachineFault: it has ended
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error).lower()
        if not isinstance(error, MemoryError) and "alloc" not in said and "out of memory" not in said:
            raise
        raise MachineFault(
            f"the run {run} needs more memory than there is; make its models, its data or its agents fewer or smaller, "
            "or run fewer at once with --jobs"
        ) from error


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
