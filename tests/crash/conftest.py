"""One fork server for each file of crash tests, so that none runs on behind other tests, and the registry of places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from crash_places import Reached, find_places
from crash_world import ForkServer


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    """The clean process that starts parties."""
    with ForkServer() as server:
        yield server


@pytest.fixture(scope="module")
def places(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Reached]:
    """Every place that trade of all kinds reaches."""
    found, wrong = find_places(fork_server, tmp_path_factory.mktemp("p") / "w")
    assert wrong == [], "trade without a kill"
    return found
