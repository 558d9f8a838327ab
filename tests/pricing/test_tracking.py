"""An ask that follows one buyer's bids: it comes near what stays or shrinks, gives way, and can be led down."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from p2pmarket.pricing import Observation, strike, tracking_ask
from p2pmarket.pricing.tracking import REMEMBERED

PAGE = (Path(__file__).parents[2] / "docs" / "pricing.md").read_text()
HALF = 500_000


def asked(bids: list[int], k_ppm: int = HALF) -> list[int]:
    """What a seller that follows its buyer asks at each of its bids, knowing what came of those before."""
    seen: list[Observation] = []
    asks = []
    for at, bid in enumerate(bids):
        asks.append(tracking_ask(seen, k_ppm))
        price = strike(bid, asks[-1], 0, k_ppm)
        if price is None:
            seen.append(Observation.unsold(asks[-1], "b", at))
        else:
            seen.append(Observation.sold(price.price, asks[-1], k_ppm, "b", at))
    return asks


def part_earned(bids: list[int]) -> float:
    prices = [strike(bid, ask, 0) for bid, ask in zip(bids, asked(bids), strict=True)]
    return sum(price.price for price in prices if price) / sum(bids)


def test_the_table_of_the_page() -> None:
    (table,) = re.findall(r"^\| bids \| asks \|\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    lines = [
        [list(map(int, cell.split(", "))) for cell in line.strip("|\n ").split(" | ")] for line in table.splitlines()
    ]
    assert len(lines) == 5
    for bids, asks in lines:
        assert asked(bids) == asks


def test_bids_that_shrink_jump_and_alternate_are_followed() -> None:
    shrinking = [round(1e6 * 0.98**number) for number in range(100)]
    alternating = [one // (1 if number % 2 else 5) for number, one in enumerate(shrinking)]
    jumping = [1_000_000] * 50 + [20_000] * 50
    assert part_earned(shrinking) > 0.95
    assert part_earned(alternating) > 0.9
    assert part_earned(jumping) > 0.95
    assert part_earned([shrinking[0]]) == 0.5  # nothing is known before the first


def test_where_bids_are_noise_it_keeps_away_from_them() -> None:
    draw = random.Random(1)
    wild = [round(1e6 * draw.lognormvariate(0.0, 1.0)) for _ in range(200)]
    asks = asked(wild)
    lost = sum(ask > bid for ask, bid in zip(asks, wild, strict=True)) / len(wild)
    assert lost < 0.25 and part_earned(wild) > 0.5
    calm = [round(1e6 * draw.lognormvariate(0.0, 0.01)) for _ in range(200)]
    assert part_earned(calm) > 0.9 > part_earned(wild)


def test_refusals_bring_the_ask_down_to_the_lowest() -> None:
    seen = [Observation(1_000_000, "b", 0)] * 10
    last = 1_000_001
    for at in range(40):
        ask = tracking_ask(seen, HALF, lowest=100)
        assert 100 <= ask < last or ask == last == 100
        last = ask
        seen.append(Observation.unsold(ask, "b", at))
    assert last == 100


def test_a_buyer_can_lead_it_down() -> None:
    honest = asked([1_000_000] * 60)
    shading = asked([round(1e6 * 0.9**number) for number in range(60)])
    assert honest[-1] == 1_000_000
    assert shading[-1] < 3000


def test_with_k_near_one_it_matters_only_to_sell() -> None:
    assert asked([1_000_000] * 30, 1_000_000)[-1] < 1_000_000
    assert asked([1_000_000] * 30, 100_000)[-1] == 1_000_000


def test_nothing_known_and_the_oldest_forgotten() -> None:
    assert tracking_ask([], HALF, lowest=7) == 7
    recent = [Observation(500, "b", at) for at in range(REMEMBERED)]
    assert tracking_ask([Observation(9_000_000, "b", 0), *recent], HALF) == tracking_ask(recent, HALF)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="posted price"):
        tracking_ask([], 0)
    with pytest.raises(ValueError, match="k of 2000000"):
        tracking_ask([], 2_000_000)
    with pytest.raises(ValueError, match="lowest ask"):
        tracking_ask([], HALF, lowest=-1)
