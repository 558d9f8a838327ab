"""What does a simulated market cost as it grows?

`python -m benchmarks.simulation` (a table) or `--json`; `--agents 10 25 50 100 200 --rounds 20 --seed 0 --plot FILE`.

The scenario is examples/scenarios/hundreds.toml with fewer agents of each kind: agents that each see 20 to 60 noisy
samples of 32 numbers, a barrier round after each training step, at most two sellers appraised for each buyer. Each
number of agents is run in a process of its own, one after the other; its times begin when everything is imported and
hold all else: keys and books of every agent, its Hello, appraisals, bids, settlements, deliveries, receipts, the rows,
the check of the whole ledger. Every run must come out right (ledger verified, no trade open) or there are no figures.

cpu_s, wall_s    of one process, which computes on one core
ms_visit         cpu_s over the visits to the market (agents times rounds); ms_trade: over the settled trades
later_ms_visit   the median round after the first, for each of its visits: without the start of the agents
bytes_visit      what all parties wrote to one another, over the visits; messages_visit: writes
rss_mib          most memory of the process; own_mib: without what it had when everything was imported
alone_cpu_s      the baseline: the same agents with the same data and rounds, without a market
growth           ms_visit over that of the smallest market of the run: 1 is a cost in proportion to the agents
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SCENARIO = Path(__file__).resolve().parent.parent / "examples" / "scenarios" / "hundreds.toml"
AGENTS = (10, 25, 50, 100, 200)
GOAL_SECONDS = 300.0
"""For 200 agents and 20 rounds."""


def scenario_of(agents: int, rounds: int) -> Any:
    """The scenario's document with so many agents in all, of each kind in the same part."""
    from p2pmarket.experiments.document import read_document

    document = read_document(SCENARIO)
    document.pop("sweep", None)
    document["scenario"]["rounds"] = rounds
    kinds, before, given = document["agent"], 0, 0
    total = sum(kind["count"] for kind in kinds)
    for kind in kinds:
        before += kind["count"]
        kind["count"], given = round(agents * before / total) - given, round(agents * before / total)
    document["agent"] = [kind for kind in kinds if kind["count"] > 0]
    return document


def measure(agents: int, rounds: int, seed: int) -> dict[str, float]:
    """One market's row, in this process."""
    import torch

    from p2pmarket.experiments.document import digest_of
    from p2pmarket.experiments.run import RunPlan, run_once
    from p2pmarket.experiments.scenario import parse_scenario

    torch.set_num_threads(1)
    document = scenario_of(agents, rounds)
    alone = {**document, "scenario": {**document["scenario"], "method": "alone"}}
    plans = [RunPlan(0, {}, digest_of(each), parse_scenario(each), seed) for each in (alone, document)]
    imported_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    alone_cpu = time.process_time()
    run_once(plans[0])
    alone_cpu = time.process_time() - alone_cpu
    wall, cpu = time.perf_counter(), time.process_time()
    ends = []
    run = run_once(plans[1], progress=lambda done, of: ends.append(time.process_time()))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    ledger, visits = run.facts["ledger"], agents * rounds
    problems = [row.problem for row in run.rounds if row.problem] + list(ledger["problems"])
    if problems or not ledger["verified"]:
        raise SystemExit(f"the market of {agents} did not come out right: {(problems or ['not verified'])[0]}")
    most_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    later = [end - before for before, end in zip(ends, ends[1:], strict=False)] or [cpu]
    return {
        "agents": agents,
        "visits": visits,
        "wall_s": wall,
        "cpu_s": cpu,
        "alone_cpu_s": alone_cpu,
        "ms_visit": 1000 * cpu / visits,
        "later_ms_visit": 1000 * statistics.median(later) / agents,
        "ms_trade": 1000 * cpu / max(1, ledger["settled"]),
        "trades": ledger["settled"],
        "appraised": ledger["trades"],
        "megabytes": run.facts["traffic_bytes"] / 1e6,
        "bytes_visit": run.facts["traffic_bytes"] / visits,
        "messages_visit": run.facts["messages"] / visits,
        "rss_mib": most_kib / 1024,
        "own_mib": (most_kib - imported_kib) / 1024,
        "loss": statistics.fmean(final["loss"] for final in run.facts["final"].values()),
    }


def in_child(agents: int, rounds: int, seed: int) -> dict[str, float]:
    """The same in a process of its own."""
    flags = ["--only", str(agents), "--rounds", str(rounds), "--seed", str(seed)]
    child = subprocess.run([sys.executable, "-m", "benchmarks.simulation", *flags], stdout=subprocess.PIPE, check=False)
    if child.returncode:
        raise SystemExit(child.returncode)
    row: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return row


def plot(rows: list[dict[str, float]], rounds: int, path: Path) -> None:
    """Cost against the number of agents: seconds, a visit's milliseconds and bytes, memory."""
    from p2pmarket.charts import BASELINE, COLORS, figure, save_png

    agents = [row["agents"] for row in rows]
    with figure(1, 3, width=4.4, height=3.6) as (made, axes):
        seconds, each, memory = axes[0]
        seconds.plot(agents, [row["cpu_s"] for row in rows], "o-", color=COLORS[0], label="with a market")
        seconds.plot(agents, [row["alone_cpu_s"] for row in rows], "o--", color=BASELINE, label="the same agents alone")
        seconds.set_title(f"{rounds} rounds, processor seconds")
        seconds.legend()
        each.plot(agents, [row["ms_visit"] for row in rows], "o-", color=COLORS[0], label="ms, all in all")
        each.plot(agents, [row["later_ms_visit"] for row in rows], "o--", color=COLORS[2], label="ms, a later round")
        each.plot(agents, [row["bytes_visit"] / 1000 for row in rows], "s-", color=COLORS[3], label="kB written")
        each.set_title("of one visit to the market")
        each.legend()
        memory.plot(agents, [row["rss_mib"] for row in rows], "o-", color=COLORS[4], label="process")
        memory.plot(agents, [row["own_mib"] for row in rows], "o--", color=COLORS[0], label="without imports")
        memory.set_title("most memory, MiB")
        memory.legend()
        for axis in axes[0]:
            axis.set_xlabel("agents")
            axis.set_ylim(bottom=0)
        save_png(made, path)


def show(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = figures["rows"]
    table = Table("figure", *(str(row["agents"]) for row in rows), title=f"{figures['rounds']} rounds, by agents")
    for name in list(rows[0])[1:]:
        table.add_row(
            name, *(f"{row[name]:,.2f}" if isinstance(row[name], float) else f"{row[name]:,}" for row in rows)
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a simulated market costs as it grows.")
    parser.add_argument("--agents", type=int, nargs="+", default=list(AGENTS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="a picture of it")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        print(json.dumps(measure(options.only, options.rounds, options.seed)))
        return
    rows = []
    for agents in sorted(set(options.agents)):
        rows.append(in_child(agents, options.rounds, options.seed))
        rows[-1]["growth"] = rows[-1]["ms_visit"] / rows[0]["ms_visit"]
        print(f"{agents} agents: {rows[-1]['cpu_s']:.1f} s of the processor", file=sys.stderr)
    figures = {"rows": rows, "rounds": options.rounds, "seed": options.seed, "goal_s": GOAL_SECONDS}
    if options.plot is not None:
        plot(rows, options.rounds, options.plot)
    if options.json:
        short = [{name: round(value, 4) for name, value in row.items()} for row in rows]
        print(json.dumps({**figures, "rows": short}))
    else:
        show(figures)


if __name__ == "__main__":
    main()
