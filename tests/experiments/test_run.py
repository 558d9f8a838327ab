"""One run of a scenario: the same seed gives the same rows anywhere, whatever goes wrong; nothing is left open."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from p2pmarket.errors import ScenarioError
from p2pmarket.experiments import in_market, rest, scratch
from p2pmarket.experiments.apart import federated_mean
from p2pmarket.experiments.diary import NOT_FINITE
from p2pmarket.experiments.plan import RunPlan
from p2pmarket.experiments.recording import RoundRow, TradeRow
from p2pmarket.experiments.results import RunResult, as_csv, read_run, write_run
from p2pmarket.experiments.run import run_once
from p2pmarket.experiments.scenario import parse_scenario, terms_of
from p2pmarket.experiments.trades import trade_rows
from p2pmarket.experiments.worlds.regression import LinearLearner
from p2pmarket.ledger.trade import ENDS, REFUNDED
from p2pmarket.messages import GainReport
from p2pmarket.network.memory import MemoryNetwork
from p2pmarket.node.strategy import Strategy, Wallet
from p2pmarket.simulation import parties
from p2pmarket.simulation.lives import Ended
from p2pmarket.simulation.parties import Parties
from p2pmarket.simulation.virtual import run
from p2pmarket.simulation.weather import Climate
from p2pmarket.units import CREDIT

FAULTS = {"crash": 0.001, "lost": 0.005, "partings": 3, "skew_ms": 500}
CONTINUOUS = {"market": {"rounds": "continuous"}}
FACTS = {
    "run", "scenario", "digest", "method", "protocol", "seed", "settings", "about", "agents", "broker", "final",
    "ledger", "traffic_bytes", "messages", "crashes", "wall_seconds", "virtual_seconds", "format", "versions",
    "metric_name", "code", "data",
}  # fmt: skip
LEDGER = {"trades", "settled", "moved", "fees", "verified", "problems"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parties' files lie where this test can look for what is left of them."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(scratch, "MEMORY", folder)
    return folder


def document(count: int = 3, *, rounds: int = 3, method: str = "market", **sections: Any) -> dict[str, Any]:
    terms = {"limits": {"max_sellers": 2}, "appraisal": {"max_chain": 1}, **sections.pop("terms", {})}
    world = {"dimension": 8, "rate": 0.05, "broker_samples": 200, **sections.pop("regression", {})}
    return {
        "scenario": {"name": "small", "rounds": rounds, "method": method},
        "regression": world,
        "agent": [{"name": "few", "count": count, "samples": 6, "noise": 0.3}],
        "terms": terms,
        **sections,
    }


def make(document: dict[str, Any], seed: int = 0, **more: Any) -> RunResult:
    return run_once(RunPlan(0, {}, "digest", parse_scenario(document), seed), **more)


def told(run: RunResult) -> tuple[bytes, bytes, str]:
    """All that a run tells, but how long it took."""
    facts = {key: value for key, value in run.facts.items() if key != "wall_seconds"}
    return as_csv(RoundRow, run.rounds), as_csv(TradeRow, run.trades), json.dumps(facts, sort_keys=True)


def problems(run: RunResult, agent: str) -> list[str]:
    return [row.problem for row in run.rounds if row.agent == agent and row.round > 0]


# ---- what a run tells -----------------------------------------------------------------------------------------------


def test_agents_trade_and_nothing_is_open_afterwards(tmp_path: Path, place: Path) -> None:
    run = make(document())
    assert set(run.facts) == FACTS and set(run.facts["ledger"]) == LEDGER
    assert run.facts["ledger"]["verified"] and not run.facts["ledger"]["problems"]
    assert len(run.rounds) == 3 * 4 and {row.round for row in run.rounds} == {0, 1, 2, 3}
    assert run.trades and {row.state for row in run.trades} <= ENDS
    settled = [row for row in run.trades if row.price is not None]
    assert run.facts["ledger"]["settled"] == len(settled) == sum(row.bought for row in run.rounds) > 0
    assert run.facts["ledger"]["moved"] == sum(row.paid for row in run.rounds) == sum(row.price or 0 for row in settled)
    assert sum(row.earned for row in run.rounds) == run.facts["ledger"]["moved"] - run.facts["ledger"]["fees"]
    last = {row.agent: row for row in run.rounds}
    assert {name: final["balance"] for name, final in run.facts["final"].items()} == {
        name: row.balance for name, row in last.items()
    }
    assert sum(row.balance for row in last.values()) + run.facts["ledger"]["fees"] == 3 * 100 * CREDIT
    assert all(row.sent_bytes and row.received_bytes for row in run.rounds if row.round)
    assert list(place.iterdir()) == []
    write_run(tmp_path / "run", run)
    again = read_run(tmp_path / "run")
    assert again is not None and told(again) == told(run)


@pytest.mark.parametrize("method", ["alone", "fedavg"])
def test_without_a_market_there_are_rounds_and_no_trades(method: str) -> None:
    run = make(document(method=method))
    assert set(run.facts) == FACTS and set(run.facts["ledger"]) == LEDGER
    assert len(run.rounds) == 3 * 4 and not run.trades
    assert all(final["loss"] < 8 for final in run.facts["final"].values())
    nothing = None if method == "fedavg" else 0  # FedAvg's bytes are not counted, which is not none
    assert run.facts["traffic_bytes"] is run.facts["messages"] is nothing
    assert {row.sent_bytes for row in run.rounds if row.round} == {nothing}


@pytest.mark.parametrize("every", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_nothing_is_lost_between_two_looks(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = in_market._Market._visit

    async def spoiled(market: Any, agent: Any, number: int) -> Any:
        result = await visit(market, agent, number)
        return dataclasses.replace(result, problem=f"boom {number}") if (agent.name, number) == ("few-0", 1) else result

    monkeypatch.setattr(in_market._Market, "_visit", spoiled)
    given = document(rounds=5)
    given["scenario"]["measure_every"] = every
    run, each = make(given), make(document(rounds=5))
    assert sorted({row.round for row in run.rounds}) == {2: [0, 2, 4, 5], 5: [0, 5]}[every]
    ledger = run.facts["ledger"]
    assert ledger["settled"] == sum(row.bought for row in run.rounds) == sum(row.sold for row in run.rounds) > 0
    assert ledger["moved"] == sum(row.paid for row in run.rounds)
    assert ledger["moved"] - ledger["fees"] == sum(row.earned for row in run.rounds)
    for column in ("offered", "gain", "sent_bytes", "received_bytes"):
        sums = [sum(getattr(row, column) for row in one.rounds) for one in (run, each)]
        assert sums[0] == pytest.approx(sums[1]) and sums[0] > 0
    assert "boom 1" in problems(run, "few-0")[0] and not any(problems(run, "few-1"))


def test_another_seed_is_another_run() -> None:
    assert told(make(document()))[0] != told(make(document(), seed=1))[0]


@pytest.mark.parametrize("faults", [pytest.param(None, marks=pytest.mark.slow), FAULTS])
def test_processes_with_other_hashes_tell_the_same(faults: dict[str, Any] | None, tmp_path: Path) -> None:
    given = document()
    if faults:
        given["faults"] = faults
    here = told(make(given, seed=4))
    program = (
        "import json, sys; from test_run import make, told; "
        "print(json.dumps([str(one) for one in told(make(json.loads(sys.argv[1]), seed=4))]))"
    )
    environment = {
        **os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path),
    }  # fmt: skip
    output = subprocess.run(
        [sys.executable, "-c", program, json.dumps(given)],
        env=environment, cwd=Path(__file__).parent, capture_output=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert json.loads(output.splitlines()[-1]) == [str(one) for one in here]


def test_a_refunded_trade_is_neither_settled_nor_has_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(document())
    sold = [row for row in whole.trades if row.price is not None]

    def refunded(found: Any, **more: Any) -> list[TradeRow]:
        first = bytes.fromhex(sold[0].trade)
        return trade_rows([dataclasses.replace(row, state=REFUNDED) if row.trade == first else row for row in found],
                          **more)  # fmt: skip

    monkeypatch.setattr(in_market, "trade_rows", refunded)
    run = make(document())
    assert run.facts["ledger"]["settled"] == sum(row.price is not None for row in run.trades) == len(sold) - 1
    assert run.facts["ledger"]["moved"] == whole.facts["ledger"]["moved"] - (sold[0].price or 0)


@pytest.mark.parametrize("seed", [2, 3])
def test_trades_are_told_in_the_runs_time_whatever_the_brokers_clock_says(seed: int) -> None:
    run = make(document(2, faults={"skew_ms": 2000, "delay_seconds": 0.0}), seed=seed)
    assert len({row.round for row in run.trades}) == 3
    ends = {row.round: row.time_s for row in run.rounds}
    assert all((row.round - 1) * 10 <= row.time_s <= ends[row.round] for row in run.trades)


# ---- when something goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
@pytest.mark.parametrize("terms", [{}, CONTINUOUS])
def test_under_faults_a_run_ends_and_its_books_agree(seed: int, terms: dict[str, Any]) -> None:
    run = make(document(4, terms=terms, faults={**FAULTS, "crash": 0.002}), seed=seed)
    assert run.facts["crashes"] > 0
    assert run.facts["ledger"]["verified"] and not run.facts["ledger"]["problems"]
    assert {row.state for row in run.trades} <= ENDS
    balances = sum(final["balance"] for final in run.facts["final"].values())
    assert balances + run.facts["ledger"]["fees"] == 4 * 100 * CREDIT


def test_what_is_wrong_in_the_books_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def wrong(folder: Path, agents: list[str], opening: int) -> list[str]:
        assert (folder / "broker" / "ledger.sqlite").exists()
        seen.append(agents)
        return ["a credit is missing"]

    monkeypatch.setattr(in_market, "problems_at_rest", wrong)
    assert make(document(faults=FAULTS)).facts["ledger"]["problems"] == ["a credit is missing"]
    assert seen == [["few-0", "few-1", "few-2"]]


def test_a_trade_that_never_ends_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any, **__: Any) -> bool:
        return False

    monkeypatch.setattr(Parties, "take_up", nothing)
    monkeypatch.setattr(rest, "REST_TURNS", 1)
    monkeypatch.setattr(rest, "open_trades", _one_open)
    found = make(document(2, rounds=1)).facts["ledger"]["problems"]
    assert len(found) == 1 and "does not end" in found[0]


async def _one_open(market: Any) -> list[Any]:
    rows = await market.running.ledger.run(lambda ledger: ledger.trades())
    return [dataclasses.replace(rows[0], state="quoted")]


def test_ends_so_frequent_that_nobody_gets_up_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hopeless:
        network = MemoryNetwork()

        async def start_broker(self) -> None:
            raise Ended

    monkeypatch.setattr(parties, "MOST_STARTS", 5)
    hopeless: Any = Hopeless()
    with pytest.raises(ScenarioError, match="lower it"):
        run(lambda loop: Parties(hopeless, Climate(crash=1.0), random.Random(1)).keep_broker())


class Broken(Strategy):
    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        raise RuntimeError("boom")


def test_a_strategy_that_fails_spoils_its_own_agent_alone() -> None:
    scenario = parse_scenario(document())
    first, *others = scenario.agents
    scenario = dataclasses.replace(scenario, agents=(dataclasses.replace(first, strategy=Broken()), *others))
    result = run_once(RunPlan(0, {}, "digest", scenario, 0))
    assert any("boom" in problem for problem in problems(result, "few-0"))
    assert not any(row.bought for row in result.rounds if row.agent == "few-0")
    assert any(row.bought for row in result.rounds if row.agent != "few-0")
    assert {row.state for row in result.trades} <= ENDS


@pytest.mark.parametrize("method", ["market", "fedavg", "alone"])
def test_learners_that_diverge_are_rows_with_a_problem(method: str) -> None:
    run = make(document(method=method, rounds=2, regression={"rate": 2.0, "steps": 1000}))
    assert all(row.problem == NOT_FINITE for row in run.rounds if row.round)
    assert not run.trades and not math.isfinite(run.facts["final"]["few-0"]["loss"])


def test_who_trades_with_nobody_learns_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two never shows up: its parameters are none from the first round on."""
    learn = LinearLearner.learn

    def lost(learner: LinearLearner) -> None:
        learn(learner)
        if learner.samples == 7:
            learner._theta = learner._theta * math.nan

    monkeypatch.setattr(LinearLearner, "learn", lost)
    given = document(2, terms={"market": {"round_timeout_seconds": 20}})
    given["agent"] = [{"name": "here", "samples": 6}, {"name": "gone", "samples": 7}]
    run = make(given)
    assert problems(run, "gone") == [NOT_FINITE] * 3
    assert problems(run, "here") == [""] * 3
    assert [row.time_s for row in run.rounds if row.agent == "here"] == [0.0, 20.0, 40.0, 60.0]
    assert run.facts["final"]["here"]["loss"] < 8


@pytest.mark.parametrize("terms", [{"market": {"round_timeout_seconds": 10}}, CONTINUOUS])
def test_one_agent_is_a_market_too(terms: dict[str, Any]) -> None:
    run = make(document(1, terms=terms))
    assert problems(run, "few-0") == ["", "", ""] and not run.trades


def test_visits_that_cost_their_time_are_rows_with_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_market, "ANSWER_SECONDS", -295.0)  # a round's wait is 300 s: every visit is too short
    given = document(2, rounds=2, terms={"market": {"round_agents": 3}})
    run = make(given)
    assert all("no answer within 5 s" in problem for problem in problems(run, "few-0"))
    assert run.facts["ledger"]["verified"] and not run.facts["ledger"]["problems"]


def test_in_continuous_rounds_agents_trade() -> None:
    run = make(document(terms=CONTINUOUS))
    assert any(row.bought for row in run.rounds) and not any(row.problem for row in run.rounds)
    assert {row.state for row in run.trades} <= ENDS


# ---- stopping, and where files lie ----------------------------------------------------------------------------------


def test_a_run_that_is_broken_off_leaves_no_files(place: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, of: int) -> None:
        seen.append((done, of))
        assert list(place.iterdir())
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(document(), progress=progress)
    assert seen == [(1, 3), (2, 3)] and list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_used_is_not(place: Path) -> None:
    terms, nothing = _terms(), [{"theta": torch.zeros(2)}]
    left = place / f"{scratch.PREFIX}left"
    left.mkdir()
    (left / scratch.LOCK).touch()
    (place / "another's").mkdir()
    with scratch.room_for(terms, nothing, 1) as first:
        (first / "file").touch()
        assert not left.exists() and (place / "another's").exists()
        with scratch.room_for(terms, nothing, 1) as second:
            assert first != second and (first / "file").exists()
    assert [one.name for one in place.iterdir()] == ["another's"]


def test_what_others_put_there_is_neither_removed_nor_waited_for(place: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / scratch.LOCK).touch()
    (place / f"{scratch.PREFIX}link").symlink_to(kept)
    for name in ("pipe", "linked"):
        (place / f"{scratch.PREFIX}{name}").mkdir()
    os.mkfifo(place / f"{scratch.PREFIX}pipe" / scratch.LOCK)
    (place / f"{scratch.PREFIX}linked" / scratch.LOCK).symlink_to(kept / scratch.LOCK)
    scratch.remove_left_behind(place)
    assert len(list(place.iterdir())) == 3 and (kept / scratch.LOCK).exists()


def test_another_users_folder_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = place / f"{scratch.PREFIX}left"
    left.mkdir()
    (left / scratch.LOCK).touch()
    monkeypatch.setattr(os, "getuid", lambda: left.stat().st_uid + 1)
    scratch.remove_left_behind(place)
    assert left.exists()
    monkeypatch.undo()
    scratch.remove_left_behind(place)
    assert not left.exists()


def test_agents_may_be_called_as_files_are() -> None:
    given = document(2, rounds=1)
    given["agent"] = [{"name": name, "samples": 6} for name in (scratch.LOCK, scratch.PARTIES)]
    run = make(given)
    assert not any(row.problem for row in run.rounds) and set(run.facts["final"]) == {scratch.LOCK, scratch.PARTIES}


def test_files_lie_on_disk_where_memory_is_short_or_not_wanted(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms, nothing = _terms(), [{"theta": torch.zeros(2)}]
    large = scratch.bytes_for(terms, nothing, 1)
    assert large < scratch.bytes_for(terms, [{"theta": torch.zeros(1000)}], 1)
    monkeypatch.setattr(scratch, "_free", lambda: scratch.PART * large)
    with scratch.room_for(terms, nothing, 1) as folder:
        assert folder.parent.parent == place
    for lacking in ("room", "wish"):
        if lacking == "room":
            monkeypatch.setattr(scratch, "_free", lambda: scratch.PART * large - scratch.PART)
        else:
            monkeypatch.setattr(scratch, "_free", lambda: 2**60)
            monkeypatch.setenv("TMPDIR", str(tmp_path))
        with scratch.room_for(terms, nothing, 1) as folder:
            assert folder.parent.parent != place


def _terms() -> Any:
    scenario = parse_scenario(document())
    world = scenario.world.build(scenario.agents, method="market", protocol="honest", seed=0, place=_PLACE)
    return terms_of(scenario, world.terms())


_PLACE: Any = None


# ---- federated averaging --------------------------------------------------------------------------------------------


def test_the_mean_is_weighted_by_samples() -> None:
    mean = federated_mean([(1, {"theta": torch.tensor([0.0, 4.0])}), (3, {"theta": torch.tensor([4.0, 0.0])})])
    assert mean["theta"].tolist() == [3.0, 1.0]


def test_the_mean_leaves_out_counts_and_what_differs_in_shape() -> None:
    one = {"theta": torch.ones(2), "head": torch.ones(3), "batches": torch.tensor(4)}
    other = {"theta": torch.zeros(2), "head": torch.ones(5), "batches": torch.tensor(8)}
    assert set(federated_mean([(1, one), (1, other)])) == {"theta"}


def test_agents_of_two_tasks_have_two_means() -> None:
    given = document(method="fedavg", regression={"tasks": {"one": 0.0, "other": 50.0}})
    given["agent"] = [
        {"name": name, "count": 2, "samples": 40, "task": task} for name, task in (("a", "one"), ("b", "other"))
    ]
    run = make(given)
    last = {row.agent: row for row in run.rounds}
    assert last["a-0"].loss == pytest.approx(last["a-1"].loss, rel=1e-9)
    assert last["b-0"].loss == pytest.approx(last["b-1"].loss, rel=1e-9)
    alone = {row.agent: row for row in make({**given, "scenario": {**given["scenario"], "method": "alone"}}).rounds}
    # Near its own truth, not between the two, which lie 50 apart.
    assert all(last[name].loss < 1.5 * alone[name].loss for name in last)
