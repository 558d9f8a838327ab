"""Virtual time, lives that end anywhere, randomness from one seed: two processes, one trace."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from chaos_examples import as_in_service, plan_of, run_seed

from p2pmarket.simulation import chance
from p2pmarket.simulation.lives import CURRENT, Ended, Life
from p2pmarket.simulation.virtual import START_MS, Deadlock, VirtualLoop, run
from p2pmarket.simulation.weather import Crash, Crashes
from p2pmarket.threads import OwnThread

HERE = Path(__file__).parent


class Cell:
    """A resource that notes what was done with it, and in which thread."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.threads = {threading.current_thread()}

    def note(self, word: str) -> str:
        self.done.append(word)
        self.threads.add(threading.current_thread())
        return word

    def close(self) -> None:
        self.done.append("closed")


# ---- time -----------------------------------------------------------------------------------------------------------


def test_an_hour_costs_no_time() -> None:
    async def main(loop: VirtualLoop) -> tuple[float, int]:
        await asyncio.sleep(3600)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1800)
        return loop.time(), loop.now_ms()

    began = time.monotonic()
    seconds, utc_ms = run(main)
    assert time.monotonic() - began < 60
    assert seconds == pytest.approx(5400) and utc_ms == START_MS + 5_400_000


def test_timers_come_in_the_order_of_their_times() -> None:
    async def main(loop: VirtualLoop) -> list[float]:
        seen: list[float] = []

        async def nap(seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append(loop.time())

        await asyncio.gather(*(nap(seconds) for seconds in (30.0, 1e-6, 86_400.0 * 365, 0.5)))
        return seen

    assert run(main) == pytest.approx([1e-6, 0.5, 30.0, 86_400.0 * 365])


def test_what_would_wait_for_ever_is_an_error_that_says_where() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    async def main(loop: VirtualLoop) -> None:
        await asyncio.create_task(forgotten(), name="the forgotten one")

    with pytest.raises(Deadlock, match=r"the forgotten one in .*forgotten line \d+ > Event.wait line"):
        run(main)


def test_work_for_threads_is_done_in_order_and_without_threads() -> None:
    delays = iter([0.5, 0.0, 0.1] * 100)

    async def main(loop: VirtualLoop) -> tuple[list[str], list[str], set[threading.Thread]]:
        thread = OwnThread("cell", Cell)
        await thread.open()
        heard: list[str] = []

        async def ask(word: str) -> None:
            heard.append(await thread.run(Cell.note, word))

        await asyncio.gather(*(ask(f"{number}") for number in range(9)))
        assert await asyncio.to_thread(threading.current_thread) is threading.current_thread()
        cell = thread._resource
        assert cell is not None
        await thread.close()
        return cell.done, heard, cell.threads

    before = threading.active_count()
    done, heard, threads = run(main, VirtualLoop(work_seconds=lambda: next(delays)))
    assert done == [*"012345678", "closed"] and heard == [*"012345678"]
    assert threads == {threading.current_thread()} and threading.active_count() == before


def test_what_work_raises_is_its_callers() -> None:
    async def main(loop: VirtualLoop) -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)

    run(main)


def test_sets_of_tasks_have_one_order() -> None:
    async def main(loop: VirtualLoop) -> list[int]:
        tasks = {asyncio.ensure_future(asyncio.sleep(0, number)) for number in range(50)}
        futures = {loop.create_future() for _ in range(50)}
        order = [task.result() for task in [*tasks] if await task is not None]
        for future in futures:
            future.cancel()
        return order + [hash(future) for future in futures]

    assert run(main) == run(main)


# ---- lives ----------------------------------------------------------------------------------------------------------


def test_what_runs_in_a_life_stops_at_its_end_and_has_no_more_effect() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        cell, life = Cell(), Life("party")
        life.on_end.append(lambda: cell.note("gone"))

        async def inner() -> None:
            try:
                await asyncio.sleep(5)
                cell.note("woke")
            finally:
                await asyncio.to_thread(cell.note, "tidied")

        async def outer() -> None:
            asyncio.ensure_future(inner())  # noqa: RUF006 - its life owns it
            cell.note(CURRENT.get().name)  # type: ignore[union-attr]
            while True:
                await asyncio.sleep(1)
                await asyncio.to_thread(cell.note, "tick")

        outside = asyncio.ensure_future(life.within(outer()))
        await asyncio.sleep(2.5)
        life.end()
        await life.buried()
        with pytest.raises(Ended):
            await outside
        with pytest.raises(Ended):
            await life.within(outer())
        await asyncio.sleep(10)
        return cell.done

    assert run(main) == ["party", "tick", "tick", "gone"]


@pytest.mark.parametrize(("what", "step", "done"), [("work", 2, ["a"]), ("done", 2, ["a", "b"])])
def test_a_life_ends_before_or_after_its_nth_piece_of_work(what: str, step: int, done: list[str]) -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        cell = Cell()
        crashes = Crashes([Crash("party", what, step)])
        life = Life("party", crashes)

        async def work() -> None:
            for word in "abc":
                await asyncio.to_thread(cell.note, word)

        with pytest.raises(Ended):
            await life.within(work())
        await life.buried()
        assert crashes.happened == [Crash("party", what, step)]
        return cell.done

    assert run(main) == done


# ---- chance ---------------------------------------------------------------------------------------------------------


def test_seeded_randomness_stays_in_its_context() -> None:
    def draw() -> tuple[bytes, str]:
        return secrets.token_bytes(16), secrets.token_hex(4)

    def draw_twice_elsewhere() -> list[tuple[bytes, str]]:
        drawn: list[tuple[bytes, str]] = []
        thread = threading.Thread(target=lambda: drawn.extend([draw(), draw()]))
        thread.start()
        thread.join()
        return drawn

    found, pauses = [], []
    before = random.getstate()
    for seed in (1, 1, 2):
        with chance.seeded(chance.stream(seed, "ids")):
            found.append(draw())
            pauses.append((random.uniform(0.8, 1.2), random.random(), random.sample(range(99), 9)))
            one, other = draw_twice_elsewhere()
            assert found[-1] not in (one, other) and one != other
    assert found[0] == found[1] != found[2] and pauses[0] == pauses[1] != pauses[2]
    assert random.getstate() == before
    assert draw() != draw() and secrets.token_bytes is chance._system_bytes


# ---- whole markets --------------------------------------------------------------------------------------------------


def fingerprint(seed: int) -> str:
    """Everything that a run decided: what was said when, who has what, the root of the ledger's log."""
    report = run_seed(plan_of(seed, visits=4))
    return f"{report.outcome.trace.digest()} {sorted(report.balances.items())} {report.root.hex()} {report.states}"


def in_another_process(seed: int, hash_seed: str) -> str:
    program = (
        "import pytest, logging; from test_virtual import fingerprint; from chaos_examples import as_in_service\n"
        "logging.disable(); as_in_service(pytest.MonkeyPatch())\n"
        f"print(fingerprint({seed}))"
    )
    path = os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=HERE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("seed", [1, 3], ids=["continuous", "barrier"])
def test_a_seed_gives_the_same_market_in_every_process(
    seed: int, quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    as_in_service(monkeypatch)
    caplog.set_level("CRITICAL", "p2pmarket")
    first = in_another_process(seed, "1")
    assert first == in_another_process(seed, "2")
    assert first == fingerprint(seed)
    assert first != fingerprint(seed + 100)
