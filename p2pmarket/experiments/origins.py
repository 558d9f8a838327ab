"""What a run is made with beside its scenario: somebody's own code, by its modules' digests, and files of data.

Knows: which modules and which data set a scenario names. Refuses to know: what is in them; a module's own imports are
not looked at, and of a large file its size and its two ends. Nothing here fails: what cannot be read is "".
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from p2pmarket.datasets import find_images
from p2pmarket.errors import DataError
from p2pmarket.experiments.scenario import Scenario
from p2pmarket.experiments.worlds.contract import Place
from p2pmarket.experiments.worlds.images import ImageSettings

_END_BYTES = 2**16
"""Of each end of a file of data."""


class Origins(NamedTuple):
    """What a run is made with."""

    code: Mapping[str, str]
    """Module -> SHA-256 of its source file, hexadecimal; of this package's own its version says enough."""
    data: str
    """How many files, their bytes, and a digest of their ends; "" for data that are drawn, or come with a package."""


def origins_of(scenario: Scenario, place: Place) -> Origins:
    """What a run of this scenario is made with now."""
    modules = {type(agent.strategy).__module__ for agent in scenario.agents}
    references = {agent.strategy_name for agent in scenario.agents}
    data = ""
    if isinstance(scenario.world, ImageSettings):
        references.add(scenario.world.model)
        data = _data(scenario.world.data, place)
    modules |= {reference.partition(":")[0] for reference in references if ":" in reference}
    ours = __name__.partition(".")[0]
    return Origins({one: _source(one) for one in sorted(modules) if one.partition(".")[0] != ours}, data)


def _source(module: str) -> str:
    """Found without being imported, where it is not yet: a model's is only when one is made."""
    try:
        known = sys.modules.get(module)
        if known is not None:
            file = inspect.getsourcefile(known)
        else:
            spec = importlib.util.find_spec(module)
            file = spec.origin if spec is not None and spec.has_location else None
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    except Exception:  # a package's own module may fail in any way, and whoever makes the run says so
        return ""


def _data(name: str, place: Place) -> str:
    try:
        source = find_images(name, place.data)
        if source == Path():
            return ""
        files = [source] if source.is_file() else sorted(one for one in source.iterdir() if one.is_file())
        total, digest = 0, hashlib.sha256()
        for path in files:
            size = path.stat().st_size
            with path.open("rb") as file:
                first = file.read(_END_BYTES)
                file.seek(max(0, size - _END_BYTES))
                digest.update(b"%d " % size + first + file.read(_END_BYTES))
            total += size
        return f"{len(files)} files, {total} bytes, {digest.hexdigest()[:32]}"
    except (OSError, DataError):
        return ""
