"""Folders of results as a simulation would write them: made up from a seed, through experiments/results.py."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket.experiments.recording import RoundRow, TradeRow
from p2pmarket.experiments.results import RunResult, write_run

CREDIT = 1_000_000
ENDS = ("delivered", "delivered", "delivered", "unmatched", "declined", "no-deal", "expired", "lapsed", "refunded")


def made_up_run(
    number: int = 0,
    method: str = "market",
    seed: int = 1,
    *,
    agents: Sequence[str] = ("A", "B"),
    rounds: int = 50,
    tasks: Sequence[str] = ("mnist",),
    offers: int = 1,
    settings: Mapping[str, Any] | None = None,
    accuracy: bool = True,
    problem: str = "",
    verified: bool = True,
) -> RunResult:
    """A run whose numbers look like those of a real one: markets learn faster, prices fall with the gains."""
    chance = random.Random(f"{number} {method} {seed}")
    name, trading = f"{number:03d}-{method}-seed{seed}", method not in ("alone", "fedavg")
    task_of = {agent: tasks[place % len(tasks)] for place, agent in enumerate(agents)}
    balance = dict.fromkeys(agents, 20 * CREDIT)
    best = {agent: (0.9 if trading else 0.7) + chance.uniform(-0.05, 0.05) for agent in agents}
    rows, trades = [], []
    for round_ in range(rounds + 1):
        bought: dict[str, list[TradeRow]] = {agent: [] for agent in agents}
        sold: dict[str, list[TradeRow]] = {agent: [] for agent in agents}
        if trading and round_ and len(agents) > 1:
            for buyer in agents:
                for seller in chance.sample([one for one in agents if one != buyer], min(offers, len(agents) - 1)):
                    row = _trade(chance, name, method, seed, round_, buyer, seller, task_of[buyer])
                    trades.append(row)
                    if row.state in ("delivered", "lapsed") and row.price is not None and row.fee is not None:
                        bought[buyer].append(row)
                        sold[seller].append(row)
                        balance[buyer] -= row.price
                        balance[seller] += row.price - row.fee
        for agent in agents:
            part = 1 - 0.93**round_
            metric = 0.1 + (best[agent] - 0.1) * part + chance.uniform(-0.01, 0.01)
            loss = 2.3 * (1 - metric) + chance.uniform(-0.02, 0.02)
            rows.append(
                RoundRow(
                    name, method, seed, agent, task_of[agent], round_, round_ * 60.0, loss,
                    metric if accuracy else loss,
                    offered=len(bought[agent]), bought=len(bought[agent]), sold=len(sold[agent]),
                    gain=sum(row.gain for row in bought[agent]),
                    paid=sum(row.price or 0 for row in bought[agent]),
                    earned=sum((row.price or 0) - (row.fee or 0) for row in sold[agent]),
                    balance=balance[agent], sent_bytes=1000, received_bytes=2000,
                    problem=problem if round_ == rounds // 2 and agent == agents[0] else "",
                )
            )  # fmt: skip
    settled = [row for row in trades if row.state in ("delivered", "lapsed")]
    facts = {
        "run": name, "scenario": "two halves of the digits", "digest": "00" * 32, "method": method,
        "protocol": "honest", "seed": seed, "settings": dict(settings or {}),
        "agents": {
            agent: {"peer": f"peer-{agent}", "task": task_of[agent], "strategy": "collaborative", "about": ""}
            for agent in agents
        },
        "broker": "broker-peer" if trading else "",
        "final": {row.agent: {"loss": row.loss, "metric": row.metric, "balance": row.balance} for row in rows},
        "ledger": {
            "trades": len(trades), "settled": len(settled), "moved": sum(row.price or 0 for row in settled),
            "fees": sum(row.fee or 0 for row in settled), "verified": verified,
            "problems": [] if verified else ["account <b>A</b> has 1 micro-credit too much"],
        },
        "traffic_bytes": 1_234_567, "messages": 999, "crashes": 2, "wall_seconds": 12.5, "virtual_seconds": 3000.0,
        "versions": {"p2pmarket": "0.1.0", "torch": "2", "python": "3.11"},
    }  # fmt: skip
    return RunResult(facts, tuple(rows), tuple(trades))


def _trade(
    chance: random.Random, run: str, method: str, seed: int, round_: int, buyer: str, seller: str, task: str
) -> TradeRow:
    gain = 0.4 * 0.93**round_ * chance.uniform(0.4, 1.6) - 0.01
    state = chance.choice(ENDS) if gain > 0 else "declined"
    bid = round(10 * CREDIT * gain) if gain > 0 else None
    ask = round(6 * CREDIT * abs(gain) * chance.uniform(0.2, 1.0)) if bid and state != "declined" else None
    price = (bid + ask) // 2 if bid and ask and state in ("delivered", "lapsed", "refunded") else None
    return TradeRow(
        run, method, seed, round_, round_ * 60.0, f"{chance.getrandbits(128):032x}", buyer, seller, task, "",
        state, "too-dear" if state == "declined" and gain > 0 else "", 0.4 if gain > 0 else 0.0, 0.3,
        2.0, 2.0 - gain, gain, gain - 0.05, gain + 0.05, gain * 0.8,
        bid if state != "declined" else None, ask, price, None if price is None else price // 100,
    )  # fmt: skip


def write_runs(folder: Path, runs: Sequence[RunResult]) -> Path:
    """The folder with these runs in it."""
    for run in runs:
        write_run(folder / "runs" / str(run.facts["run"]), run)
    return folder


def two_agents(folder: Path) -> Path:
    """A market and everybody alone, three seeds each."""
    return write_runs(folder, [made_up_run(0, method, seed) for method in ("market", "alone") for seed in (1, 2, 3)])


def many_agents(folder: Path) -> Path:
    """200 agents with two tasks, 20 rounds, two seeds."""
    names = [f"agent-{place:03d}" for place in range(200)]
    return write_runs(
        folder,
        [
            made_up_run(0, method, seed, agents=names, rounds=20, tasks=("north", "south"), offers=3, accuracy=False)
            for method in ("market", "alone")
            for seed in (1, 2)
        ],
    )


def sweep(folder: Path) -> Path:
    """Three settings of one thing, two methods, two seeds."""
    return write_runs(
        folder,
        [
            made_up_run(place, method, seed, agents=("A", "B", "C"), rounds=12, settings={"pricing.fee_percent": fee})
            for place, fee in enumerate((0, 1.5, 5))
            for method in ("market", "alone")
            for seed in (1, 2)
        ],
    )


def without_trades(folder: Path) -> Path:
    """One round in which nobody had anything to sell."""
    run = made_up_run(agents=("only one",), rounds=1)
    return write_runs(folder, [dataclasses.replace(run, trades=())])
