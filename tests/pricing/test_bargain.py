"""Other points between bid and ask than the middle, both directions of a trade at once, and offers in rounds."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.market import PRICING
from p2pmarket.pricing.bargaining import (
    MIDPOINT,
    MILLION,
    Exchange,
    Price,
    Values,
    bargain,
    first_overlap,
    nash_product,
    net_payment,
    strike,
)

amounts = st.integers(0, MAX_AMOUNT)
shares = st.integers(0, MILLION)
pairs = st.builds(Values, amounts, amounts)


def price_of(bid: int, ask: int, k_ppm: int) -> int:
    price = strike(bid, ask, 0, k_ppm)
    assert price is not None
    return price.price


@given(amounts, amounts, shares, shares)
def test_price_is_rational_conserved_and_rounded_towards_the_ask(one: int, other: int, fee: int, k_ppm: int) -> None:
    ask, bid = sorted((one, other))
    price = strike(bid, ask, fee, k_ppm)
    assert price is not None and ask <= price.price <= bid
    assert price.proceeds + price.fee == price.price and 0 <= price.fee
    assert 0 <= ask + Fraction(k_ppm, MILLION) * (bid - ask) - price.price < 1
    assert bid == ask or strike(ask, bid, fee, k_ppm) is None


@given(st.lists(amounts, min_size=3, max_size=3), st.lists(shares, min_size=2, max_size=2))
def test_price_rises_with_bid_ask_and_k(three: list[int], two: list[int]) -> None:
    low, middle, high = sorted(three)
    less, more = sorted(two)
    assert price_of(middle, low, less) <= price_of(high, low, less) <= price_of(high, low, more)
    assert price_of(high, low, more) <= price_of(high, middle, more)


def test_k_names_the_ends_and_the_middle() -> None:
    assert [price_of(9, 4, k) for k in (0, MIDPOINT, MILLION)] == [4, 6, 9]
    assert price_of(1_000_000, 0, 123_456) == 123_456
    assert price_of(MAX_AMOUNT, 0, MILLION) == MAX_AMOUNT
    assert strike(9, 4, 0) == strike(9, 4, 0, MIDPOINT) and PRICING == {"posted": 0, "midpoint": MIDPOINT}
    for k in (-1, MILLION + 1):
        with pytest.raises(ValueError, match="k of"):
            strike(9, 4, 0, k)


def best_bids(value: int, asks: range, k_ppm: int, most: int) -> set[int]:
    """The bids of 0 ... most that earn a buyer most, over asks that are all alike likely."""
    earned = {
        bid: sum(value - price.price for ask in asks if (price := strike(bid, ask, 0, k_ppm))) for bid in range(most)
    }
    return {bid for bid, gain in earned.items() if gain == max(earned.values())}


def best_asks(cost: int, bids: range, k_ppm: int, most: int) -> set[int]:
    """The asks of 0 ... most that earn a seller most, over bids that are all alike likely."""
    earned = {
        ask: sum(price.price - cost for bid in bids if (price := strike(bid, ask, 0, k_ppm))) for ask in range(most)
    }
    return {ask for ask, gain in earned.items() if gain == max(earned.values())}


def test_who_gains_by_lying_under_which_rule() -> None:
    everything = range(0, 61)
    for truth in range(10, 60, 7):
        assert truth in best_bids(truth, everything, 0, 61), "posted: a buyer cannot do better than its value"
        assert truth in best_asks(truth, everything, MILLION, 61), "k = 1: a seller cannot do better than its cost"
        for k_ppm in (MIDPOINT, MILLION):
            assert max(best_bids(truth, everything, k_ppm, 61)) < truth
        for k_ppm in (0, MIDPOINT):
            assert min(best_asks(truth, everything, k_ppm, 61)) > truth or truth == 59


@given(pairs, pairs, shares)
def test_two_ways_is_rational_and_conserves_money(a: Values, b: Values, fee: int) -> None:
    exchange = bargain(a, b, fee)
    assert sum(exchange.changes) == 0
    assert (exchange.price_a is None) == (b.other < a.own) and (exchange.price_b is None) == (a.other < b.own)
    assert nash_product(a, b, exchange) >= 0
    if exchange.price_a is not None:
        assert a.own <= exchange.price_a.price <= b.other, "the corrected box of A's price never binds"
    if exchange.price_b is not None:
        assert b.own <= exchange.price_b.price <= a.other
    if fee == 0:
        assert exchange.changes == (exchange.net, -exchange.net, 0)


@given(pairs, pairs, shares)
def test_two_ways_treats_both_alike(a: Values, b: Values, fee: int) -> None:
    one, other = bargain(a, b, fee), bargain(b, a, fee)
    assert (one.price_a, one.price_b) == (other.price_b, other.price_a) and one.net == -other.net


@given(pairs, pairs)
def test_net_payment_is_equation_1(a: Values, b: Values) -> None:
    exchange = bargain(a, b)
    if exchange.price_a is not None and exchange.price_b is not None:
        apart = abs(exchange.net - net_payment(a, b))
        odd = (a.own + b.other) % 2, (b.own + a.other) % 2
        assert apart == (Fraction(1, 2) if sum(odd) == 1 else 0)
    assert net_payment(a, b) == -net_payment(b, a)


def test_no_integer_prices_beat_it_in_the_nash_product() -> None:
    """Every pair of agents with values 0 ... 4, against every pair of prices, and against leaving a direction out."""
    some = range(5)
    for own_a, other_a, own_b, other_b in itertools.product(some, repeat=4):
        a, b = Values(own_a, other_a), Values(own_b, other_b)
        exchange = bargain(a, b)
        chosen = nash_product(a, b, exchange)
        best = 0
        for price_a, price_b in itertools.product((None, *range(-6, 12)), repeat=2):
            sold = 0 if price_a is None else 1
            bought = 0 if price_b is None else 1
            gain_a = sold * ((price_a or 0) - own_a) + bought * (other_a - (price_b or 0))
            gain_b = bought * ((price_b or 0) - own_b) + sold * (other_b - (price_a or 0))
            if gain_a >= 0 and gain_b >= 0:
                best = max(best, gain_a * gain_b)
        assert chosen == best, (a, b)


def test_a_bad_direction_is_dropped_and_not_subsidised() -> None:
    """A's parameters are worth 10 more to B than to A, B's are worth 4 less to A than to B."""
    a, b = Values(own=0, other=2), Values(own=6, other=10)
    exchange = bargain(a, b)
    assert exchange == Exchange(Price(5, 0), None) and exchange.net == 5
    assert nash_product(a, b, exchange) == 25
    both = Exchange(Price(5, 0), Price(4, 0))
    assert nash_product(a, b, both) == 9, "traded both ways, the surplus is 6 in place of 10"


def test_the_product_of_two_losses_is_no_agreement() -> None:
    """Nobody gains, both factors are -5: a maximiser that forgets their sign would call 25 better than no trade."""
    a, b = Values(own=10, other=0), Values(own=10, other=0)
    assert bargain(a, b) == Exchange(None, None) and nash_product(a, b, bargain(a, b)) == 0
    with pytest.raises(ValueError, match="no agreement"):
        nash_product(a, b, Exchange(Price(5, 0), Price(5, 0)))


def test_the_box_that_the_paper_prints_excludes_the_solution() -> None:
    """It has P_a in [v_a(a), v_a(b)], a's two values; the price of a's parameters lies between a's and b's value."""
    a, b = Values(own=2, other=4), Values(own=1, other=10)
    exchange = bargain(a, b)
    assert exchange.price_a == Price(6, 0) and not a.own <= 6 <= a.other
    assert a.own <= 6 <= b.other


@given(amounts, amounts)
def test_the_optimal_scenario_pays_the_gain_of_b_less_that_of_a(delta_a: int, delta_b: int) -> None:
    """Each seller values its own as their buyer does: v_a(a) = v_b(a) = Delta_b, v_b(b) = v_a(b) = Delta_a."""
    a, b = Values(own=delta_b, other=delta_a), Values(own=delta_a, other=delta_b)
    assert net_payment(a, b) == bargain(a, b).net == delta_b - delta_a


def test_refuses_values_that_are_no_amounts() -> None:
    for own, other in ((-1, 0), (0, -1), (MAX_AMOUNT + 1, 0)):
        with pytest.raises(ValueError, match="outside"):
            Values(own, other)


offers = st.lists(st.integers(0, 40), min_size=1, max_size=6)


@given(st.data(), offers)
def test_first_overlap_is_the_first_round_that_strikes(data: st.DataObject, some: list[int]) -> None:
    bids = sorted(some)
    asks = sorted(data.draw(st.lists(st.integers(0, 40), min_size=len(bids), max_size=len(bids))), reverse=True)
    struck = [index for index, (bid, ask) in enumerate(zip(bids, asks, strict=True)) if strike(bid, ask, 0)]
    assert first_overlap(bids, asks) == (struck[0] if struck else None)


def test_first_overlap_known_cases() -> None:
    assert first_overlap([1, 3, 5], [9, 6, 5]) == 2
    assert first_overlap([5, 5, 9], [5, 5, 5]) == 0, "what would come later is not waited for"
    assert first_overlap([1, 2], [4, 3]) is None and first_overlap([], []) is None


@pytest.mark.parametrize(
    ("bids", "asks", "says"),
    [
        ([3, 2], [9, 9], "only rises"),
        ([9, 8], [5, 5], "only rises"),
        ([1, 1], [5, 6], "only falls"),
        ([1], [5, 4], "one of each"),
        ([-1], [5], "outside"),
        ([1], [MAX_AMOUNT + 1], "outside"),
    ],
)
def test_first_overlap_refuses_steps_back(bids: list[int], asks: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        first_overlap(bids, asks)
