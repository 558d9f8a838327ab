"""A results folder as a sweep finds it: whether it may make runs in it, and which points have finished runs already.

Knows: that a folder is one sweep's at a time and one scenario's for ever, but for more seeds and more values; that a
run which another version made, or other code or data than are here now, may not be what this one would make, which the
log tells. Refuses to know: how runs are made (sweep.py), what files look like (results.py). A folder of another
scenario, of other things, or of a sweep that still goes on raises `ScenarioError`; nothing in it is changed then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from p2pmarket import __version__
from p2pmarket.errors import MachineFault, ScenarioError
from p2pmarket.experiments import results
from p2pmarket.experiments.changes import told_changes
from p2pmarket.experiments.document import Document, points_of, read_document, with_value
from p2pmarket.experiments.locks import locked
from p2pmarket.experiments.origins import Origins, origins_of
from p2pmarket.experiments.plan import RunPlan, digest_of_runs, part_of_runs
from p2pmarket.experiments.results import Facts
from p2pmarket.experiments.worlds.contract import Place
from p2pmarket.files import disk_errors

log = logging.getLogger(__name__)


@contextlib.contextmanager
def results_folder(out: Path) -> Iterator[None]:
    """The folder of results, for this process alone.

    :raises ScenarioError: it is none, or another process makes runs in it
    :raises DiskFull, MachineFault: it cannot be made
    """
    _check_is_for_results(out)
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


def _check_is_for_results(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ScenarioError(f"{out} is a file; name a folder for the results with --out")
    if out.is_dir() and any(out.iterdir()) and not results.is_results(out):
        raise ScenarioError(f"{out} holds other things than results; name a new folder with --out")


def finished_in(out: Path, document: Document, plans: Sequence[RunPlan]) -> int:
    """How many of the plans' runs are finished in `out`, which is only looked at: a sweep would not make them again.

    :raises ScenarioError: a sweep would refuse the folder
    :raises DataError: a run's facts cannot be read
    """
    _check_is_for_results(out)
    kept = kept_points(document, results.read_facts(out), out)
    return sum(results.is_finished(out, plan.name) for plan in numbered(plans, kept))


def kept_points(document: Document, kept: Iterable[Facts], out: Path) -> dict[str, int]:
    """Numbers of the points that have finished runs, by digest.

    :param kept: facts of all finished runs in `out`
    :raises ScenarioError: one of them is a run of another scenario, or of this one as it was
    """
    axes = {path for point in points_of(document)[:1] for path in point.settings}
    base = _without_sweep(document)
    found: dict[str, int] = {}
    for facts in kept:
        settings = facts["settings"]
        same = set(settings) == axes
        if same and facts["digest"] not in found:
            point = base
            for path, value in settings.items():
                point = with_value(point, path, value)
            same = digest_of_runs(point) == facts["digest"]
        if not same:
            changes = _changes(document, facts, out)
            raise ScenarioError(
                f"{out} holds runs of another scenario, or of this one before it was changed"
                f"{f' ({changes})' if changes else ''}, such as {facts['run']}; name another folder with --out (only "
                "more seeds, and more values of the same sweep, can join)"
            )
        found[facts["digest"]] = int(facts["run"].partition("-")[0])
    return found


def _changes(document: Document, facts: Facts, out: Path) -> str:
    """What has changed since a run was made, in words; empty where the folder's own scenario is not that run's."""
    try:
        before = read_document(out / results.SCENARIO_FILE)
        point = _without_sweep(before)
        for path, value in facts["settings"].items():
            point = with_value(point, path, value)
        if digest_of_runs(point) != facts["digest"]:
            return ""
        axes = list(points_of(document)[0].settings)
    except ScenarioError:
        return ""
    if set(facts["settings"]) != set(axes):
        over = [", ".join(paths) or "nothing" for paths in (facts["settings"], axes)]
        return f"[sweep] was over {over[0]}, is over {over[1]}"
    was, now = (part_of_runs(_without_sweep(one)) for one in (before, document))
    return told_changes(was, now, without=axes)


def _without_sweep(document: Document) -> Document:
    return {key: value for key, value in document.items() if key != "sweep"}


def numbered(plans: Sequence[RunPlan], kept: Mapping[str, int]) -> list[RunPlan]:
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


def tell_versions(taken_up: Iterable[Facts], out: Path) -> None:
    """One warning in the log where runs that are taken up were made by another version of this package."""
    made_by = {facts["run"]: facts.get("versions", {}).get("p2pmarket", "of an unknown version") for facts in taken_up}
    others = {run: version for run, version in made_by.items() if version != __version__}
    if others:
        log.warning(
            "in %s p2pmarket %s made %d of the runs, such as %s, and this is %s; they are kept as they are, and "
            "another --out computes them anew",
            out, ", ".join(sorted(set(others.values()))), len(others), min(others), __version__,
        )  # fmt: skip


def tell_origins(taken_up: Iterable[tuple[RunPlan, Facts]], place: Place, out: Path) -> None:
    """One warning in the log where runs that are taken up were made with other code or data than are here now."""
    now: dict[str, Origins] = {}
    others: dict[str, list[str]] = {}
    for plan, facts in taken_up:
        if plan.digest not in now:
            now[plan.digest] = origins_of(plan.scenario, place)
        code, data = now[plan.digest]
        before = facts.get("code", {})
        changed = [name for name, digest in code.items() if digest and before.get(name) not in (None, "", digest)]
        if data and facts.get("data") not in (None, "", data):
            changed.append("the data")
        if changed:
            others[plan.name] = changed
    if others:
        log.warning(
            "in %s %d of the runs, such as %s, were made with other code or data than are here now (%s changed since); "
            "they are kept as they are, and another --out computes them anew",
            out, len(others), min(others), ", ".join(dict.fromkeys(one for names in others.values() for one in names)),
        )  # fmt: skip
