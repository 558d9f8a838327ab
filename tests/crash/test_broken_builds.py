"""The harness against builds that are broken on purpose: each must be found, for the reason that it is broken for."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crash_books import summary
from crash_broken import BUILDS
from crash_campaign import Campaign, Tally, broken_kills
from crash_world import ForkServer

MOST_KILLS = 6
"""Until a build must be found."""
SIGNS = {
    "split-settlement": "lost",
    "no-replies": "paid_not_delivered",
    "early-answers": "lost",
    "no-intent": "paid_not_delivered",
    "fetched-first": "paid_not_delivered",
}


@pytest.fixture(scope="module")
def tallies(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Tally]:
    """What is found of each build. All at once: mostly they are waited for."""
    folder: Path = tmp_path_factory.mktemp("b")

    def find(name: str) -> Tally:
        return Campaign(
            fork_server, folder / name, broken_kills(name), enough=MOST_KILLS, worlds=1, broken=name, patience_s=8.0,
            stop_at=SIGNS[name],
        ).run()  # fmt: skip

    with ThreadPoolExecutor(len(BUILDS)) as threads:
        return dict(zip(BUILDS, threads.map(find, BUILDS), strict=True))


@pytest.mark.parametrize("name", BUILDS)
def test_a_broken_build_is_found(name: str, tallies: Mapping[str, Tally]) -> None:
    found = summary(tallies[name].problems)
    assert found[SIGNS[name]], f"after {tallies[name].kills} kills: {tallies[name].problems}"


def test_each_build_has_its_sign() -> None:
    assert SIGNS.keys() == BUILDS.keys()
