"""What the default strategy bids, and what it does not bid for."""

from __future__ import annotations

import pytest

from p2pmarket.messages import GainReport
from p2pmarket.node.strategy import Strategy, Wallet
from p2pmarket.units import CREDIT


def report(gain: float, merit: float = 0.0, loss: float = 2.0) -> GainReport:
    return GainReport(
        b"t" * 16, "digits", "b" * 52, "s" * 52, "digits", b"b" * 32, b"s" * 32, b"d" * 32,
        loss_before=loss, loss_after=loss - gain, gain=gain, gain_low=gain / 2, gain_high=gain,
        merit=merit, merit_low=merit, merit_high=merit, confidence=0.95,
        metric_before=0.8, metric_after=0.9, samples=100, data=b"v" * 32,
        weight=0.5, granularity="model", alignment="weights",
        after=None, left_out=(), reason="", classes=(), groups=(), tasks=(), expires_ms=1,
    )  # fmt: skip


WALLET = Wallet(balance=10 * CREDIT, spent=9 * CREDIT)


@pytest.mark.parametrize(("gain", "bid"), [(1.9e-6, None), (2.1e-6, 0), (0.1, 0)])
def test_float_noise_is_declined_and_what_is_not_the_sellers_is_bid_nothing(gain: float, bid: int | None) -> None:
    assert Strategy().bid(report(gain), WALLET) == bid


def test_a_bid_is_for_merit_and_within_the_budget() -> None:
    assert Strategy().bid(report(0.5, 0.25), WALLET) == 2.5 * CREDIT
    assert Strategy(budget=10 * CREDIT).bid(report(0.5, 0.25), WALLET) == CREDIT
