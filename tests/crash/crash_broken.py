"""Builds that are broken on purpose: what the harness must find, or it finds nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Broken:
    """One such build."""

    apply: Callable[[], None]
    """Patches the modules of a party's process."""
    party: str
    """Whom to kill."""
    place: str
    """Where."""
    deal: str = "standing"


BUILDS: Mapping[str, Broken] = {}
