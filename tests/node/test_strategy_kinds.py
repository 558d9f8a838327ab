"""What each of the ready strategies bids and asks, and how one is chosen."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from typing import Any

import pytest
from test_strategy import report

from p2pmarket.errors import SettingsError
from p2pmarket.messages import AskRequest, Unmatched
from p2pmarket.node.strategies.budgeted import Budgeted
from p2pmarket.node.strategies.choosing import STRATEGIES, UNUSED, strategy_of
from p2pmarket.node.strategies.collaborative import Collaborative
from p2pmarket.node.strategies.competitive import Competitive, before_fee, observed
from p2pmarket.node.strategies.paper import PaperSeller
from p2pmarket.node.strategy import Knowledge, PastAsk, Strategy, Wallet
from p2pmarket.options import resolve
from p2pmarket.pricing.history import LEVELS_PPM, PriceStatistics
from p2pmarket.settings import NodeSettings
from p2pmarket.units import CREDIT

REQUEST = AskRequest("m", b"t" * 16, b"b" * 16, b"s" * 32, 1)
WALLET = Wallet(balance=10 * CREDIT, spent=0)


def unmatched(left: int, revision: int = 0) -> Unmatched:
    return Unmatched(b"t" * 16, revision, left, 1)


def asks(*prices: tuple[int, int | None]) -> tuple[PastAsk, ...]:
    """Asks at these prices with what was paid, of a different buyer each."""
    return tuple(PastAsk(ask, price, f"buyer {number}", 0) for number, (ask, price) in enumerate(prices))


# ---- the default ----------------------------------------------------------------------------------------------------


def test_the_default_names_one_price_and_stays_with_it() -> None:
    strategy = Strategy(reserve=CREDIT)
    assert strategy.raise_bid(report(0.5, 0.25), unmatched(3), CREDIT, WALLET) is None
    assert strategy.lower_ask(REQUEST, 2 * CREDIT) is None
    assert strategy.informed(Knowledge(0, 0, 0)) is strategy


# ---- collaborative --------------------------------------------------------------------------------------------------


def test_collaborators_ask_nothing_and_buy_every_sure_gain() -> None:
    strategy = Collaborative(reserve=5 * CREDIT)
    assert (strategy.standing_ask(), strategy.ask(REQUEST), strategy.lower_ask(REQUEST, CREDIT)) == (0, 0, 0)
    assert strategy.bid(report(0.5, 0.1), WALLET) == 5 * CREDIT, "for the whole gain"
    assert Strategy().bid(report(0.5, 0.1), WALLET) == CREDIT, "where the default pays for merit"
    assert strategy.bid(report(0.5, 0.1), Wallet(balance=0, spent=0)) == 0, "also with an empty account"
    assert strategy.bid(report(-0.5), WALLET) is None
    assert Collaborative(sell=False).ask(REQUEST) is None


# ---- budgeted -------------------------------------------------------------------------------------------------------


def test_a_budget_lasts_for_its_visits_and_is_never_exceeded() -> None:
    """A walk of purchases at every allowed price: each visit has its share, what one saves is for the later ones."""
    strategy = Budgeted(budget=12 * CREDIT, visits=4, credits_per_gain=1000 * CREDIT)
    spent, bids = 0, []
    for visit, pays in ((1, True), (2, False), (3, True), (4, True), (5, True)):
        bid = strategy.bid(report(0.5, 0.5), Wallet(balance=100 * CREDIT, spent=spent, visit=visit))
        assert bid is not None
        bids.append(bid / CREDIT)
        spent += bid if pays else 0
    assert bids == [3.0, 3.0, 4.5, 4.5, 0.0] and spent == 12 * CREDIT


def test_a_visit_with_two_purchases_has_one_share() -> None:
    strategy = Budgeted(budget=12 * CREDIT, visits=4, credits_per_gain=1000 * CREDIT)
    wallet = Wallet(balance=100 * CREDIT, spent=2 * CREDIT, spent_this_visit=2 * CREDIT)
    assert strategy.bid(report(0.5, 0.5), wallet) == CREDIT


def test_a_day_has_its_limit_and_the_account_its_balance() -> None:
    strategy = Budgeted(visits=1, budget_per_day=3 * CREDIT, credits_per_gain=1000 * CREDIT)
    assert (
        strategy.bid(report(0.5, 0.5), Wallet(balance=10 * CREDIT, spent=9 * CREDIT, spent_today=CREDIT)) == 2 * CREDIT
    )
    assert strategy.bid(report(0.5, 0.5), Wallet(balance=10 * CREDIT, spent=9 * CREDIT, spent_today=4 * CREDIT)) == 0
    assert strategy.bid(report(0.5, 0.5), Wallet(balance=CREDIT, spent=0)) == CREDIT
    unlimited = dataclasses.replace(strategy, budget_per_day=None)
    assert unlimited.bid(report(0.5, 0.5), Wallet(balance=10 * CREDIT, spent=0, spent_today=9 * CREDIT)) == 10 * CREDIT


# ---- competitive ----------------------------------------------------------------------------------------------------


def test_a_competitor_begins_half_way_between_its_harm_and_the_highest_value() -> None:
    strategy = Competitive(harm=2 * CREDIT, highest_value=10 * CREDIT)
    assert strategy.standing_ask() is None
    assert strategy.ask(REQUEST) == 6 * CREDIT
    assert dataclasses.replace(strategy, sell=False).ask(REQUEST) is None
    knows_nothing = strategy.informed(Knowledge(0, 500_000, 0))
    assert knows_nothing.ask(REQUEST) == 6 * CREDIT
    assert strategy.informed(Knowledge(0, 500_000, 500_000)).ask(REQUEST) == 7 * CREDIT, (
        "the fee doubles what harm costs"
    )
    assert Competitive(harm=20 * CREDIT).ask(REQUEST) == 20 * CREDIT, "never below the harm"
    assert Competitive(reserve=9 * CREDIT).ask(REQUEST) == 9 * CREDIT


def test_a_competitor_learns_from_its_own_asks() -> None:
    strategy = Competitive(highest_value=100 * CREDIT)
    midpoint = [(CREDIT, (CREDIT + value) // 2) for value in [8 * CREDIT] * 20]  # paid half way to a value of 8
    dear = strategy.informed(Knowledge(0, 500_000, 0, asks(*midpoint)))
    assert dear.ask(REQUEST) == pytest.approx(8 * CREDIT, rel=0.01)
    refused = strategy.informed(Knowledge(0, 500_000, 0, asks(*[(5 * CREDIT, None)] * 30)))
    assert refused.ask(REQUEST) < 5 * CREDIT, "nobody paid 5, so it goes down"  # type: ignore[operator]
    assert strategy.informed(Knowledge(0, 500_000, 0, asks(*midpoint[:9]))).ask(REQUEST) == 50 * CREDIT, "too few"


def test_a_competitor_with_little_of_its_own_takes_the_markets_statistics() -> None:
    told = PriceStatistics(100, 20, (4 * CREDIT,) * len(LEVELS_PPM), ())
    few = asks(*[(50 * CREDIT, None)] * 9)
    strategy = Competitive(highest_value=100 * CREDIT)
    assert strategy.informed(Knowledge(0, 0, 0, few, told)).ask(REQUEST) == 4 * CREDIT
    many = asks(*[(CREDIT, 8 * CREDIT)] * 10)
    assert strategy.informed(Knowledge(0, 1_000_000, 0, many, told)).ask(REQUEST) == 8 * CREDIT, "its own come first"


def test_a_buyers_own_bids_do_not_move_what_it_is_asked() -> None:
    strategy = Competitive(highest_value=100 * CREDIT)
    others = asks(*[(8 * CREDIT, 9 * CREDIT)] * 30)
    own = tuple(PastAsk(8 * CREDIT, None, REQUEST.buyer.hex(), 0) for _ in range(300))
    alike = asks(*[(8 * CREDIT, None)] * 300)
    told = PriceStatistics(100, 20, (4 * CREDIT,) * len(LEVELS_PPM), ())

    def asked(*past: PastAsk, buyer: bytes = REQUEST.buyer, statistics: PriceStatistics | None = None) -> int | None:
        informed = strategy.informed(Knowledge(0, 500_000, 0, past, statistics))
        return informed.ask(dataclasses.replace(REQUEST, buyer=buyer))

    assert asked(*others) == asked(*others, *own) == 10 * CREDIT
    assert asked(*own) == asked() == 50 * CREDIT, "nothing else was seen"
    assert asked(*own, statistics=told) == asked(statistics=told) == 4 * CREDIT, "nor do they count as enough"
    # To others they count as two buyers that bid as often as the mean; as many buyers they would be the market.
    three = tuple(PastAsk(8 * CREDIT, None, f"low {number}", 0) for number in range(3))
    assert asked(*others, *own, buyer=b"o" * 16) == asked(*others, *three, buyer=b"o" * 16)
    assert (asked(*others, *alike) or 0) < 6 * CREDIT


def test_what_a_past_ask_says() -> None:
    assert observed(PastAsk(0, None, "b", 0), 0) is None, "nobody refuses a price of 0"
    unknown = observed(PastAsk(None, 5, "b", 0), 500_000)
    assert unknown is not None and unknown.value == 5 and not unknown.is_exact, "at least what was paid"
    other_terms = observed(PastAsk(3, 5, "b", 0), 0)
    assert other_terms is not None and other_terms.value == 5, "a price that no bid makes under today's rule"


def test_a_competitor_shades_only_where_it_is_told_to_haggle() -> None:
    value = Competitive().bid(report(0.5, 0.5), WALLET)
    assert value == 5 * CREDIT
    haggler = Competitive(haggle=0.4, highest_value=10 * CREDIT)
    bids = [haggler.bid(report(0.5, 0.5), WALLET)]
    for left in (3, 2, 1):
        bids.append(haggler.raise_bid(report(0.5, 0.5), unmatched(left), bids[-1], WALLET))  # type: ignore[arg-type]
    assert bids == [3_000_000, 3_666_667, 4_333_334, 5_000_000], "equal steps that end at the value"
    assert haggler.raise_bid(report(0.5, 0.5), unmatched(5), 5 * CREDIT, WALLET) is None
    ask = haggler.ask(REQUEST)
    assert ask == 7 * CREDIT and haggler.lower_ask(REQUEST, ask) == 6 * CREDIT
    assert haggler.lower_ask(REQUEST, 5 * CREDIT) is None, "never below its reserve"


@pytest.mark.parametrize("left", [1, 2, 7, 64])
def test_a_raised_bid_is_above_the_last_and_never_above_the_value(left: int) -> None:
    haggler = Competitive(haggle=0.9)
    last = 4_999_998
    raised = haggler.raise_bid(report(0.5, 0.5), unmatched(left), last, WALLET)
    assert raised is not None and last < raised <= 5 * CREDIT


@pytest.mark.parametrize(("amount", "fee_ppm"), [(0, 1_000_000), (1, 0), (1, 20_000), (CREDIT, 333_333), (7, 999_999)])
def test_what_is_left_after_the_fee(amount: int, fee_ppm: int) -> None:
    price = before_fee(amount, fee_ppm)
    assert price - price * fee_ppm // 1_000_000 >= amount
    assert price == 0 or (price - 1) - (price - 1) * fee_ppm / 1_000_000 < amount


# ---- the paper's seller ---------------------------------------------------------------------------------------------


def test_the_papers_seller_asks_by_what_it_is_told() -> None:
    strategy = PaperSeller(reserve=CREDIT, credits_per_loss=10 * CREDIT)
    assert strategy.ask(REQUEST) == CREDIT, "nothing is disclosed"
    assert strategy.ask(dataclasses.replace(REQUEST, weight=0.8)) == CREDIT, "its own purchase was not appraised"
    # The worked example of docs/pricing.md: the buyer's ratio is 5 and the interval 0.279 ... 89.721, of which
    # all below 1 is no gain: a value of 0 ... 10 (1 - 1 / 89.721), and the reserve is the middle.
    told = dataclasses.replace(REQUEST, weight=0.8, own_weight=0.2, own_ratio=1.25)
    assert strategy.ask(told) == pytest.approx(5 * (1 - 1 / 89.721) * CREDIT, rel=1e-4)
    harmed = PaperSeller(harm=3 * CREDIT, credits_per_loss=10 * CREDIT)
    assert harmed.ask(told) == pytest.approx((5 * (1 - 1 / 89.721) + 1.5) * CREDIT, rel=1e-4)
    # The second: 1965.018 ... 2741.546, where nearly all of the loss goes whatever it is.
    sure = dataclasses.replace(REQUEST, weight=193 / 257, own_weight=64 / 257, own_ratio=257.0)
    assert strategy.ask(sure) == pytest.approx(10 * (1 - 1 / 1965.018) * CREDIT, rel=1e-4)


@pytest.mark.parametrize("wrong", [{"weight": 0.0}, {"own_weight": 5.0}, {"own_ratio": -1.0}])
def test_what_a_broker_cannot_mean_is_as_if_nothing_were_told(wrong: dict[str, float]) -> None:
    told = dataclasses.replace(REQUEST, weight=0.8, own_weight=0.2, own_ratio=1.25)
    assert PaperSeller(reserve=7).ask(dataclasses.replace(told, **wrong)) == 7


# ---- choosing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_name_is_its_strategy_with_its_knobs(name: str) -> None:
    settings = NodeSettings(
        strategy=name, sell=False, minimum_gain=0.5, credits_per_gain=3, budget=7, reserve=2, visits=3,
        budget_per_day=4, harm=5, highest_value=6, buy_groups=("a",),
    )  # fmt: skip
    strategy = strategy_of(settings)
    assert type(strategy) is STRATEGIES[name]
    knobs = {field.name for field in dataclasses.fields(strategy)} & {f.name for f in dataclasses.fields(settings)}
    assert {knob: getattr(strategy, knob) for knob in knobs} == {knob: getattr(settings, knob) for knob in knobs}
    assert "minimum_gain" in knobs


def test_every_knob_of_the_strategies_that_is_a_setting_has_the_same_default() -> None:
    settings = NodeSettings()
    for kind in STRATEGIES.values():
        for field in dataclasses.fields(kind):
            if hasattr(settings, field.name):
                assert getattr(settings, field.name) == field.default, field.name


@dataclasses.dataclass(frozen=True)
class Needy(Strategy):
    another: int = dataclasses.field(kw_only=True)


class Own(Strategy):
    """An operator's own."""


class Bare(Strategy):
    """An __init__ of its own, without arguments."""

    def __init__(self) -> None:
        super().__init__(reserve=7)


class Picky(Strategy):
    """Takes one knob."""

    def __init__(self, reserve: int = 0) -> None:
        super().__init__(reserve=2 * reserve)


class Open(Strategy):
    """Passes on what it is given."""

    def __init__(self, **knobs: Any) -> None:
        super().__init__(**{**knobs, "minimum_gain": 1.0})


class Broken(Strategy):
    """Cannot be made."""

    def __init__(self) -> None:
        raise ZeroDivisionError("a bug")


@pytest.fixture
def own_module(monkeypatch: pytest.MonkeyPatch) -> str:
    module = types.ModuleType("own_strategies")
    vars(module).update(
        Own=Own,
        Needy=Needy,
        Bare=Bare,
        Picky=Picky,
        Open=Open,
        Broken=Broken,
        made=Own(reserve=9),
        number=3,
        Other=dict,
        function=lambda: Own(),
    )
    monkeypatch.setitem(sys.modules, "own_strategies", module)
    return module.__name__


def test_an_operators_own_class_or_object(own_module: str) -> None:
    made = strategy_of(NodeSettings(strategy=f"{own_module}:Own", reserve=4))
    assert type(made) is Own and made.reserve == 4
    assert strategy_of(NodeSettings(strategy=f"{own_module}:made", reserve=4)).reserve == 9, "as it was made"


def test_a_class_is_given_the_knobs_that_its_init_takes(own_module: str) -> None:
    settings = NodeSettings(reserve=4, budget=3)
    bare, picky, passes = (
        strategy_of(dataclasses.replace(settings, strategy=f"{own_module}:{name}"))
        for name in ("Bare", "Picky", "Open")
    )
    assert (bare.reserve, bare.budget) == (7, None)
    assert (picky.reserve, picky.budget) == (8, None)
    assert (passes.reserve, passes.budget, passes.minimum_gain) == (4, 3, 1.0)


@pytest.mark.parametrize(
    ("strategy", "knob", "value", "sentence"),
    [
        ("default", "visits", "20", "the flag --visits: the strategy default makes nothing of it, it is for budgeted"),
        ("default", "budget_per_day", "1", "the strategy default makes nothing of it, it is for budgeted"),
        ("collaborative", "harm", "1", "the strategy collaborative makes nothing of it, it is for competitive"),
        ("budgeted", "highest_value", "10", "the strategy budgeted makes nothing of it, it is for competitive"),
        ("collaborative", "reserve", "1", "--reserve: the strategy collaborative makes nothing of it"),
        ("own_strategies:Own", "visits", "3", "the strategy own_strategies:Own makes nothing of it"),
        ("own_strategies:Bare", "reserve", "3", "the strategy own_strategies:Bare makes nothing of it"),
        ("own_strategies:made", "reserve", "3", "the strategy own_strategies:made makes nothing of it"),
    ],
)
def test_a_knob_given_by_hand_that_the_strategy_does_not_have_is_refused(
    own_module: str, strategy: str, knob: str, value: str, sentence: str
) -> None:
    """Also where it is given the value that it has by default; and what nobody gave is not spoken of."""
    settings, origins = resolve(NodeSettings, {"strategy": strategy, knob: value}, {})
    with pytest.raises(SettingsError, match=sentence):
        strategy_of(settings, origins)
    strategy_of(*resolve(NodeSettings, {"strategy": strategy, "market": "m"}, {}))


def test_a_variable_that_is_of_no_use_is_named() -> None:
    with pytest.raises(SettingsError, match="the variable P2PMARKET_HARM: the strategy default"):
        strategy_of(*resolve(NodeSettings, {}, {"P2PMARKET_HARM": "1"}))


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_knob_that_a_strategy_has_may_be_given(name: str) -> None:
    knobs = {field.name for field in dataclasses.fields(STRATEGIES[name])}
    given: dict[str, Any] = {"budget": "5", "reserve": "1", "visits": "3", "budget_per_day": "2", "harm": "1"}
    given = {knob: value for knob, value in given.items() if knob in knobs - UNUSED.get(name, frozenset())}
    made = strategy_of(*resolve(NodeSettings, {"strategy": name, **given}, {}))
    assert made.budget == 5 * CREDIT


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("greedy", "it is default, collaborative, competitive, budgeted, or your own"),
        ("own_strategies:number", "is no strategy but int"),
        ("own_strategies:Other", "is no strategy but type"),
        ("own_strategies:function", "is no strategy but function"),
        ("own_strategies:Needy", "cannot be made from the settings"),
        ("own_strategies:Broken", "cannot be made from the settings: ZeroDivisionError: a bug"),
        ("own_strategies:Missing", "has no 'Missing'"),
        (":Mine", "strategy is ':Mine'; name your own as package.module:Class"),
        ("mine:", "strategy is 'mine:'; name your own as package.module:Class"),
        ("no_such_module_at_all:X", "there is no module 'no_such_module_at_all'"),
    ],
)
def test_what_is_no_strategy_is_said_in_a_sentence(own_module: str, name: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        strategy_of(NodeSettings(strategy=name))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Budgeted(visits=0),
        lambda: Budgeted(budget_per_day=-1),
        lambda: Competitive(harm=-1),
        lambda: Competitive(haggle=1.0),
        lambda: Competitive(haggle=-0.1),
        lambda: PaperSeller(credits_per_loss=-1),
        lambda: Strategy(reserve=-1),
        lambda: Strategy(reserve=True),
        lambda: Strategy(credits_per_gain=math.nan),  # type: ignore[arg-type]
        lambda: Strategy(credits_per_gain=0.5 * CREDIT),  # type: ignore[arg-type]
        lambda: Strategy(minimum_gain=math.nan),
        lambda: Strategy(budget=1.5),  # type: ignore[arg-type]
        lambda: Strategy(budget=math.nan),  # type: ignore[arg-type]
    ],
)
def test_knobs_out_of_their_bounds(wrong: object) -> None:
    with pytest.raises(SettingsError):
        wrong()  # type: ignore[operator]
