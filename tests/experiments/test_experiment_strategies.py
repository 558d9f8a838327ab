"""The paper's buyer and seller, and the seller that follows bids: what they name, and that a whole market uses them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from p2pmarket.errors import SettingsError
from p2pmarket.experiments.document import Document, read_document, with_value
from p2pmarket.experiments.recording import TradeRow
from p2pmarket.experiments.strategies import EXACT, GAIN, LEARNED, PRINTED, TIGHT, Following, RatioTrader, estimate
from p2pmarket.experiments.sweep import run_sweep
from p2pmarket.messages import AskRequest, GainReport
from p2pmarket.node.strategy import Knowledge, PastAsk, Wallet
from p2pmarket.pricing.theorem import printed_bounds
from p2pmarket.units import CREDIT

FIGURE_5 = Path(__file__).parents[2] / "examples" / "paper" / "figure-5.toml"
REQUEST = AskRequest("m", b"t" * 16, b"b" * 16, b"s" * 32, 1)
WALLET = Wallet(balance=1000 * CREDIT, spent=0)
TOLD = dataclasses.replace(REQUEST, weight=0.8, own_weight=0.2, own_ratio=1.25)
"""e_a = (1, 0), e_b = (0, 2): the buyer's ratio is 5."""


def report(gain: float, loss: float) -> GainReport:
    return GainReport(
        b"t" * 16, "m", "b" * 52, "s" * 52, "linear", b"b" * 32, b"s" * 32, b"d" * 32,
        loss_before=loss, loss_after=loss - gain, gain=gain, gain_low=gain, gain_high=gain,
        merit=gain, merit_low=gain, merit_high=gain, confidence=0.95,
        metric_before=loss, metric_after=loss - gain, samples=100, data=b"v" * 32,
        weight=0.5, granularity="model", alignment="identity",
        after=None, left_out=(), reason="", classes=(), groups=(), tasks=(), expires_ms=1,
    )  # fmt: skip


def knowing(past: list[PastAsk], k_ppm: int = 500_000) -> Knowledge:
    return Knowledge(now_ms=10, k_ppm=k_ppm, fee_ppm=0, past=tuple(past))


def sold(ask: int, price: int | None, at_ms: int, buyer: bytes = REQUEST.buyer) -> PastAsk:
    return PastAsk(ask, price, buyer.hex(), at_ms)


# ---- buying ---------------------------------------------------------------------------------------------------------


def test_the_papers_buyer_pays_the_ratio_and_so_for_no_gain() -> None:
    ratio, gain = RatioTrader(), RatioTrader(value_is=GAIN)
    assert ratio.value(report(1.0, loss=2.0), WALLET) == 2 * CREDIT  # 2 / 1
    assert gain.value(report(1.0, loss=2.0), WALLET) == CREDIT
    assert ratio.value(report(0.0, loss=2.0), WALLET) == CREDIT
    assert gain.value(report(0.0, loss=2.0), WALLET) == 0
    assert RatioTrader(credits_per_ratio=7).value(report(1.0, loss=2.0), WALLET) == 14
    assert ratio.value(report(1.0, loss=2.0), Wallet(balance=5, spent=0)) == 5
    assert ratio.value(report(2.0, loss=2.0), Wallet(balance=9, spent=0)) == 9  # nothing is left of the loss


# ---- selling --------------------------------------------------------------------------------------------------------


def test_what_each_seller_makes_of_what_is_told() -> None:
    asks = {kind: RatioTrader(seller=kind).ask(TOLD) for kind in (PRINTED, TIGHT, EXACT)}
    assert asks[PRINTED] == pytest.approx(printed_bounds(0.2, 0.8, 1.25).lower * CREDIT, abs=1)
    assert asks[PRINTED] == pytest.approx(0.036 * CREDIT, rel=0.01)
    assert asks[TIGHT] == pytest.approx(0.279 * CREDIT, rel=0.01)
    assert asks[EXACT] == pytest.approx(5 * CREDIT, rel=2e-5) and (asks[EXACT] or 0) < 5 * CREDIT
    assert RatioTrader(seller=EXACT, value_is=GAIN).ask(TOLD) == pytest.approx(4 * CREDIT, rel=2e-5)
    assert RatioTrader(seller=PRINTED, value_is=GAIN).ask(TOLD) == 0
    assert RatioTrader(seller="nothing", reserve=3).ask(TOLD) == 3
    assert RatioTrader(sell=False).ask(TOLD) is None and RatioTrader().standing_ask() is None


def test_a_seller_that_is_told_nothing_knows_nothing() -> None:
    only_the_buyers = dataclasses.replace(REQUEST, weight=1.0)
    for request in (REQUEST, only_the_buyers):
        assert RatioTrader(seller=PRINTED, reserve=5).ask(request) == 5
        assert RatioTrader(seller=TIGHT, reserve=5).ask(request) == 5
        assert RatioTrader(seller=EXACT, value_is=GAIN, reserve=5).ask(request) == 5


@pytest.mark.parametrize("told", [(2.0, 0.5, 1.1), (0.5, -0.1, 1.1), (0.5, 0.5, math.inf), (0.5, 0.5, -1.0)])
def test_what_a_broker_makes_up_is_no_reason_to_fail(told: tuple[float, float, float]) -> None:
    assert estimate(PRINTED, *told) == estimate(TIGHT, *told) == 0.0
    assert estimate(EXACT, *told) == 1.0


def test_following_looks_at_this_buyer_alone_and_in_order_of_time() -> None:
    seller = Following(reserve=2)
    assert seller.ask(REQUEST) == 2
    others = [sold(900, 950, at, b"c" * 16) for at in range(9)]
    assert seller.informed(knowing(others)).ask(REQUEST) == 2
    own = [sold(0, 500, at) for at in range(12)] + [sold(600, 800, 20)]
    assert seller.informed(knowing([*others, *own])).ask(REQUEST) == 1000
    assert seller.informed(knowing([*others, *reversed(own)])).ask(REQUEST) == 1000
    refused = [*own, sold(1000, None, 30)]
    assert (seller.informed(knowing(refused)).ask(REQUEST) or 0) < 1000
    assert seller.informed(knowing(own, k_ppm=0)).ask(REQUEST) == 2  # a posted price shows no bid
    assert dataclasses.replace(seller, sell=False).ask(REQUEST) is None


@pytest.mark.parametrize("knobs", [{"value_is": "love"}, {"seller": "greedy"}, {"credits_per_ratio": -1}])
def test_wrong_knobs(knobs: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        RatioTrader(**knobs)  # type: ignore[arg-type]


# ---- in a market ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Deal:
    """A bid, with both weights and what became of it."""

    row: TradeRow
    bid: int
    ask: int
    price: int | None


def market(folder: Path, seller: str, value: str) -> list[Deal]:
    document: Document = read_document(FIGURE_5)
    knobs = {"seller": seller, "value_is": value, "credits_per_ratio": 100 * CREDIT}
    changes = {
        "scenario.rounds": 10,
        "regression.dimension": 40,
        "regression.rate": 0.1,
        "agent.A.samples": 20,
        "agent.B.samples": 32,
    }
    for path, one in {**changes, "agent.A.knobs": knobs, "agent.B.knobs": knobs}.items():
        document = with_value(document, path, one)
    (run,) = run_sweep(document, folder, jobs=1, seeds=(0,))
    assert run.facts["ledger"]["verified"] and not run.facts["ledger"]["problems"]
    return [Deal(row, row.bid, row.ask, row.price) for row in run.trades if row.bid is not None and row.ask is not None]


def test_a_market_in_which_sellers_know_the_lower_bound(tmp_path: Path) -> None:
    deals = market(tmp_path, PRINTED, "ratio")
    assert len(deals) >= 10
    for deal in deals:
        assert deal.bid == pytest.approx(100 * CREDIT * deal.row.loss_before / deal.row.loss_after, abs=1)
        assert deal.price == deal.ask + (deal.bid - deal.ask) // 2
    assert any(deal.ask for deal in deals)


def test_the_papers_disclosure_tells_the_value_itself(tmp_path: Path) -> None:
    deals = market(tmp_path, EXACT, GAIN)
    inside = [deal for deal in deals if 0 < (deal.row.own_weight or 0.0) < 1 and 0 < deal.row.weight < 1]
    assert len(inside) > len(deals) / 2
    for deal in inside:
        assert deal.price == pytest.approx(deal.bid, rel=1e-4, abs=1e-5 * 100 * CREDIT)
    assert all(deal.ask == 0 for deal in deals if deal not in inside)


def test_the_learned_ask_hears_of_refusals_by_the_next_round(tmp_path: Path) -> None:
    deals = market(tmp_path, LEARNED, GAIN)
    assert deals[0].ask == 0
    refused = 0
    for seller in "AB":
        own = [deal for deal in deals if deal.row.seller == seller]
        for deal, following in zip(own, own[1:], strict=False):
            if deal.price is None:
                refused += 1
                assert following.ask < deal.ask
    assert refused and any(deal.ask and deal.price for deal in deals)
