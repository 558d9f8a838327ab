"""The price lies between ask and bid, and every micro-credit the buyer pays goes somewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.bargaining import MILLION, Price, strike

amounts = st.integers(0, MAX_AMOUNT)
fees = st.integers(0, MILLION)


@given(amounts, amounts, fees)
def test_trades_exactly_when_the_bid_reaches_the_ask(bid: int, ask: int, fee_ppm: int) -> None:
    assert (strike(bid, ask, fee_ppm) is not None) == (bid >= ask)


@given(amounts, amounts, fees)
def test_price_is_individually_rational_and_conserved(one: int, other: int, fee_ppm: int) -> None:
    ask, bid = sorted((one, other))
    price = strike(bid, ask, fee_ppm)
    assert price is not None
    assert ask <= price.price <= bid
    assert 0 <= price.fee <= price.price and price.proceeds + price.fee == price.price
    assert price.fee * MILLION <= price.price * fee_ppm < (price.fee + 1) * MILLION


@given(amounts, amounts)
def test_no_other_integer_beats_the_midpoint_in_the_nash_product(one: int, other: int) -> None:
    ask, bid = sorted((one, other))
    price = strike(bid, ask, 0)
    assert price is not None
    chosen = (bid - price.price) * (price.price - ask)
    for rival in (price.price - 1, price.price + 1):
        if ask <= rival <= bid:
            assert (bid - rival) * (rival - ask) <= chosen


@given(amounts, amounts, amounts, fees)
def test_price_rises_with_bid_and_with_ask(first: int, second: int, third: int, fee_ppm: int) -> None:
    low, middle, high = sorted((first, second, third))
    lower_bid, higher_bid = strike(middle, low, fee_ppm), strike(high, low, fee_ppm)
    lower_ask, higher_ask = strike(high, low, fee_ppm), strike(high, middle, fee_ppm)
    assert lower_bid and higher_bid and lower_ask and higher_ask
    assert lower_bid.price <= higher_bid.price and lower_ask.price <= higher_ask.price
    assert lower_bid.fee <= higher_bid.fee and lower_bid.proceeds <= higher_bid.proceeds


def test_the_odd_micro_credit_goes_towards_the_ask() -> None:
    assert strike(8, 5, 0) == Price(6, 0)
    assert strike(7, 7, 0) == Price(7, 0)
    assert strike(1_000_000, 0, 20_000) == Price(500_000, 10_000)
    assert strike(4, 5, 0) is None


@pytest.mark.parametrize(
    "bid, ask, fee", [(-1, 0, 0), (1, -1, 0), (MAX_AMOUNT + 1, 0, 0), (1, 0, -1), (1, 0, MILLION + 1)]
)
def test_refuses_what_is_no_amount(bid: int, ask: int, fee: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        strike(bid, ask, fee)
