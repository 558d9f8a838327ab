"""What a folder of runs comes to: each point of a sweep in one line, over its seeds, beside what agents reach alone.

Knows: the facts of finished runs. Refuses to know: files, tables of terminals. A point is compared with the runs of
method "alone" that have its other settings and its seed: differences of pairs, so that what a seed makes hard for
everybody does not count.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from p2pmarket.experiments.results import Facts, RunResult, is_sound
from p2pmarket.experiments.spread import mean_and_spread, mean_of
from p2pmarket.experiments.worlds.contract import ALONE

FEW_AGENTS = 16
"""So many are told one by one."""
MAX_REASON = 300
"""Characters of a reason that is told again."""
MAX_VALUE = 24
"""Characters of a value in a point's label."""
METHOD_PATH = "scenario.method"


def summary_of(runs: Iterable[RunResult]) -> dict[str, Any]:
    """A summary for scripts: docs/simulation.md lists its keys.

    Every mean has half the width of its 95 % interval over seeds beside it, None for one seed.
    """
    runs = list(runs)
    facts = [run.facts for run in runs]
    points: dict[str, list[Facts]] = {}
    for one in facts:
        points.setdefault(one["digest"], []).append(one)
    alone = {(_others(one), one["seed"]): one for one in facts if one["method"] == ALONE}
    return {
        "scenario": facts[0]["scenario"] if facts else "",
        "runs": len(facts),
        "verified": all(is_sound(one) for one in facts),
        "problems": [f"{one['run']}: {problem}" for one in facts for problem in one["ledger"].get("problems", ())],
        "failed_visits": sum(agent.get("failed", 0) for one in facts for agent in one["agents"].values()),
        "agent_problems": _agent_problems(runs),
        "points": [_point(same, alone) for same in points.values()],
    }


def label_of(method: str, settings: Mapping[str, Any]) -> str:
    """A point in words for people: "market, fee_percent 5"; of paths that end alike, as much as tells them apart."""
    return ", ".join([method, *(f"{name} {_short(settings[path])}" for path, name in names_of(settings).items())])


def names_of(paths: Iterable[str]) -> dict[str, str]:
    """A name for each path but the method's: its last part, or more of them where others end alike."""
    paths = [path for path in paths if path != METHOD_PATH]
    names = {path: path.rpartition(".")[2] for path in paths}
    for path in paths:
        parts, count = path.split("."), 1
        while count < len(parts) and any(f".{other}".endswith(f".{names[path]}") for other in paths if other != path):
            count += 1
            names[path] = ".".join(parts[-count:])
    return names


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:MAX_VALUE]


def _agent_problems(runs: Iterable[RunResult]) -> dict[str, dict[str, Any]]:
    """What went wrong for each agent, over all runs: agents without a problem are left out."""
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    visits: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for run in runs:
        for row in run.rounds:
            if row.problem:
                reasons[row.agent][row.problem] += 1
        for agent, about in run.facts["agents"].items():
            visits[agent] += about.get("visits", 0)  # of runs of before there is none
            failed[agent] += about.get("failed", 0)
    return {
        agent: {
            "visits": visits[agent],
            "failed": failed[agent],
            "reason": counts.most_common(1)[0][0][:MAX_REASON],
            "reasons": len(counts),
        }
        for agent, counts in reasons.items()
    }


def _point(runs: Sequence[Facts], alone: Mapping[tuple[str, int], Facts]) -> dict[str, Any]:
    first = runs[0]
    found: dict[str, Any] = {
        "settings": first["settings"],
        "method": first["method"],
        "protocol": first["protocol"],
        "seeds": len(runs),
        "loss": _spread([_mean(one, "loss") for one in runs]),
        "metric": _spread([_mean(one, "metric") for one in runs]),
        "metric_name": first.get("metric_name", "metric"),
        "less_loss_than_alone": None,
        "trades": _ledger_mean(runs, "trades"),
        "settled": _ledger_mean(runs, "settled"),
        "moved": _ledger_mean(runs, "moved"),
        "fees": _ledger_mean(runs, "fees"),
        "traffic_bytes": _mean_or_none([one["traffic_bytes"] for one in runs]),
        "crashes": statistics.fmean(one["crashes"] for one in runs),
        "wall_seconds": statistics.fmean(one["wall_seconds"] for one in runs),
        "verified": all(is_sound(one) for one in runs),
        "agents": {},
    }
    pairs = [(one, alone[_others(one), one["seed"]]) for one in runs if (_others(one), one["seed"]) in alone]
    if first["method"] != ALONE and pairs:
        parts = [1.0 - _mean(one, "loss") / _mean(other, "loss") for one, other in pairs if _mean(other, "loss")]
        found["less_loss_than_alone"] = _spread(parts) if parts else None
    if len(first["final"]) <= FEW_AGENTS:
        found["agents"] = {
            agent: {
                what: _spread([float(one["final"][agent][what]) for one in runs])
                for what in ("loss", "metric", "balance")
            }
            for agent in first["final"]
        }
    return found


def _others(facts: Facts) -> str:
    """What else than its method a point was made with."""
    return json.dumps({path: value for path, value in facts["settings"].items() if path != METHOD_PATH}, sort_keys=True)


def _mean(facts: Facts, what: str) -> float:
    return mean_of(float(last[what]) for last in facts["final"].values())


def _ledger_mean(runs: Sequence[Facts], what: str) -> float:
    return statistics.fmean(one["ledger"].get(what, 0) for one in runs)


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    """None where it was not counted."""
    counted = [value for value in values if value is not None]
    return statistics.fmean(counted) if len(counted) == len(values) else None


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """A mean and half of its interval; None where there is no finite one, as JSON has no other word for it."""
    mean, half = mean_and_spread(values)
    return {"mean": mean if math.isfinite(mean) else None, "half_width": _finite(half)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
