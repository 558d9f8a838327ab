"""Runs in processes of their own, one a core: each worker makes one run after another and keeps what it makes.

Knows: how workers are started, told, watched and ended. Refuses to know: which runs there are and what their results
mean (sweep.py). A worker that dies takes one run with it, by name, and another takes its place. Workers end with the
process that started them, whichever way that ends; Ctrl-C is that process's affair and never theirs.

A worker and its starter talk over a pipe of their own, so that it is always known who was at which run; that is what
`concurrent.futures` does not tell.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from p2pmarket import errors
from p2pmarket.errors import MachineFault, MarketError

LOOK_EVERY_SECONDS = 0.2
"""Between two looks at how far the running ones are."""
END_SECONDS = 5.0
"""A worker that was asked to end has this long before it is killed."""

Work = Callable[[Any, Callable[[int], None]], None]
"""Does one job, telling the finished rounds; a function of a module, so that another process can import it."""


class Job(NamedTuple):
    """One run to make."""

    name: str
    task: Any
    """What `Work` is given; goes through a pipe."""


class Done(NamedTuple):
    """A job that ended."""

    job: Job
    error: MarketError | None


class _Worker:
    """One process and what it is at."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.rounds = context.RawValue("i", 0)
        self.job: Job | None = None
        self.told = 0
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, self.rounds, work), daemon=True, name="p2pmarket-run"
        )
        with _without_interrupts():
            self.process.start()
        theirs.close()

    def begin(self, job: Job) -> None:
        """Gives it a job."""
        self.rounds.value, self.told, self.job = 0, 0, job
        with contextlib.suppress(OSError):  # it has died, which `take` tells
            self.pipe.send(job)

    def take(self) -> Done:
        """The end of its job, for which it has just sent word, or died."""
        job, self.job = self.job, None
        assert job is not None
        try:
            error: MarketError | None = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(END_SECONDS)
            error = MachineFault(
                f"the process of the run {job.name} died ({_ending(self.process.exitcode)}); run the same command "
                "again to make that run anew, with fewer --jobs where memory is short"
            )
        return Done(job, error)

    def end(self) -> None:
        """Ends it, whatever it is at."""
        self.process.terminate()
        self.process.join(END_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


def in_processes(
    work: Work, jobs: Sequence[Job], count: int, progress: Callable[[str, int], None]
) -> Generator[Done, None, None]:
    """Does the jobs on `count` processes, and tells each as it ends; closing the iterator ends all of them.

    :param progress: told a running job's name and its finished rounds
    """
    waiting = deque(jobs)
    multiprocessing.resource_tracker.ensure_running()  # else the first start lets interrupts in again
    workers: list[_Worker] = []
    try:
        while len(workers) < min(count, len(jobs)):
            workers.append(_Worker(work))
            workers[-1].begin(waiting.popleft())
        while busy := [worker for worker in workers if worker.job is not None]:
            heard = multiprocessing.connection.wait([worker.pipe for worker in busy], LOOK_EVERY_SECONDS)
            for worker in busy:
                rounds = worker.rounds.value
                if worker.job is not None and rounds > worker.told:
                    worker.told = rounds
                    progress(worker.job.name, rounds)
                if worker.pipe not in heard:
                    continue
                done = worker.take()
                if waiting:
                    if not worker.process.is_alive():
                        worker.end()
                        workers.remove(worker)
                        worker = _Worker(work)
                        workers.append(worker)
                    worker.begin(waiting.popleft())
                yield done
    finally:
        for worker in workers:
            worker.process.terminate()  # all at once, so that they end side by side
        for worker in workers:
            worker.end()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the end of this; a process that is started meanwhile never hears it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _serve(pipe: Any, rounds: Any, work: Work) -> None:
    """A worker's life: jobs until there is nobody to send any."""
    import torch

    torch.set_num_threads(1)
    starter = multiprocessing.parent_process()

    def tell(done: int) -> None:
        rounds.value = done
        if starter is not None and not starter.is_alive():
            sys.exit(1)  # nobody waits for this run, and another start may be making it

    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        pipe.send(_error_of(job, work, tell))


def _error_of(job: Job, work: Work, tell: Callable[[int], None]) -> MarketError | None:
    try:
        work(job.task, tell)
        return None
    except MarketError as error:
        if type(error) is getattr(errors, type(error).__name__, None):
            return error
        return MachineFault(str(error), code=error.code)  # a class of somebody's own, that may not travel
    except Exception as error:  # a mistake of ours, or of somebody's own strategy
        return MachineFault(
            f"the run {job.name} failed with {type(error).__name__}: {error}; --jobs 1 shows where it happened"
        )
