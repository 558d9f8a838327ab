"""docs/pricing.md says what the code computes: every number of its tables and examples is computed here again."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from p2pmarket import pricing
from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.market import DISCLOSURES, PRICING
from p2pmarket.messages import AskRequest
from p2pmarket.pricing import priors
from p2pmarket.pricing.bargaining import Exchange, Price, Values, bargain, nash_product, net_payment, strike
from p2pmarket.pricing.priors import Pareto, Prior, to_ask
from p2pmarket.pricing.theorem import bounds, printed_bounds, printed_upper, ratio_at_optimal_weights
from p2pmarket.pricing.valuation import seller_cost, value_of_gain

PAGE = (Path(__file__).parents[2] / "docs" / "pricing.md").read_text()
LINES = " ".join(PAGE.split())


def rows(header: str) -> list[list[str]]:
    """The cells of the one table whose head begins with `header`."""
    (table,) = re.findall(r"^\| " + re.escape(header) + r".*\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def prior_of(text: str) -> Prior:
    """A prior as the page writes it: names of priors.py and numbers, in calls and tuples."""
    tokens = re.findall(r"[A-Za-z_]+|[\d.]+|[(),]", text.strip("`"))

    def read() -> object:
        word = tokens.pop(0)
        if word == "(" or word.isidentifier():
            if word != "(":
                assert tokens.pop(0) == "("
            parts = []
            while tokens[0] != ")":
                parts.append(read())
                if tokens[0] == ",":
                    tokens.pop(0)
            tokens.pop(0)
            return tuple(parts) if word == "(" else getattr(priors, word)(*parts)
        return float(word)

    prior: Prior = read()  # type: ignore[assignment]
    assert not tokens
    return prior


def signature_of(name: str) -> str:
    """How a public name is called, without types; a protocol is not called."""
    named = getattr(pricing, name)
    if getattr(named, "_is_protocol", False):
        return "protocol"
    signature = inspect.signature(named)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return f"`{signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)}`"


def test_the_table_of_names_is_what_can_be_imported() -> None:
    told = rows("name | signature | module")
    assert [cells[0].strip("`") for cells in told] == pricing.__all__
    for name, signature, module, answers in told:
        assert signature == signature_of(name.strip("`")), name
        home = sys.modules[f"p2pmarket.pricing.{module}"]
        assert getattr(home, name.strip("`")) is getattr(pricing, name.strip("`")) and answers
    assert signature_of("strike") == "`(bid, ask, fee_ppm, k_ppm=500000)`" and signature_of("Prior") == "protocol"
    assert set(pricing.__all__) <= set(dir(pricing))
    with pytest.raises(AttributeError, match="no attribute 'strikes'"):
        _ = pricing.strikes  # type: ignore[attr-defined,unused-ignore]


def test_every_record_and_belief_of_the_modules_is_in_the_table() -> None:
    for module in {cells[2] for cells in rows("name | signature | module")}:
        home = sys.modules[f"p2pmarket.pricing.{module}"]
        records = {
            name
            for name, thing in vars(home).items()
            if inspect.isclass(thing) and thing.__module__ == home.__name__ and not name.startswith("_")
        }
        assert records <= set(pricing.__all__), module


def test_importing_the_room_is_light_and_a_name_brings_its_module() -> None:
    script = (
        "import sys; import p2pmarket.pricing as room; print({'numpy', 'scipy'} & set(sys.modules) or 'light');"
        "from p2pmarket.pricing import strike; print({'numpy', 'scipy'} & set(sys.modules) or 'light');"
        "room.Uniform; print('scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["light", "light", "True"]


def test_what_an_ask_request_tells_is_what_bounds_takes() -> None:
    told = {"own_weight": "weight_a", "weight": "weight_b", "own_ratio": "ratio_a"}
    assert list(inspect.signature(bounds).parameters) == list(told.values())
    assert told.keys() <= {field.name for field in dataclasses.fields(AskRequest)}
    pairs = re.findall(r"`(\w+)` \(\w+, `(\w+)`(?: of `bounds`)?\)", LINES)
    assert dict(pairs) == told


def test_every_reserve_of_the_table() -> None:
    told = rows("prior | cost | reserve")
    assert len(told) == 19
    for text, cost, reserve in told:
        assert f"{prior_of(text).reserve(float(cost)):.5f}" == reserve, text


def test_every_family_is_in_the_table_of_formulas() -> None:
    named = {cells[0].strip("`").split("(")[0] for cells in rows("prior | reserve | how")}
    assert named == set(priors.__all__) - {"Prior", "to_ask"}


def test_two_peaks() -> None:
    crowd = prior_of("Mixture((9, 1), (Uniform(0, 1), Uniform(60, 80)))")
    root = 5 / 9
    assert root == pytest.approx(crowd.survival(root) / crowd.density(root))
    assert f"has the root {root:.3f}, which earns {root * crowd.survival(root):.3f} a buyer" in LINES
    assert f"Asking 60 earns {60 * crowd.survival(60):.0f}." in LINES


def test_the_examples_of_worth_and_cost() -> None:
    credit = 1_000_000
    ratio = 0.70 / 0.90
    assert f"Delta = {ratio:.2f}" in LINES and f"paid 1.00 credits and the second {ratio:.2f};" in LINES
    for gain in (0.0, 0.70 - 0.90):
        assert value_of_gain(gain, gain, per_unit=credit, budget=credit) == 0
    assert f"costs {seller_cost(0.25, overlap=0.5, per_unit=credit):,} micro-credits" in LINES
    earned = [price * (1 / price) ** 0.5 for price in (1, 100)]
    assert "at shape 1/2, a price of 100 earns ten times" in LINES and earned == pytest.approx([1, 10])
    with pytest.raises(ValueError):
        Pareto(1, 0.5)


def test_the_table_of_bounds() -> None:
    models = {"1/5": ((1.0, 0.0), (0.0, 2.0)), "64/257": ((1.0, 0.0), (-3.0, 0.25))}
    told = rows("a | b | Delta_a")
    assert [cells[0] for cells in told] == list(models)
    for cells in told:
        a, b = float(Fraction(cells[0])), float(Fraction(cells[1]))
        e_a, e_b = map(np.array, models[cells[0]])
        ratio_a = float(np.sum(e_a**2) / np.sum(((1 - a) * e_a + a * e_b) ** 2))
        ratio_b = float(np.sum(e_b**2) / np.sum(((1 - b) * e_b + b * e_a) ** 2))
        printed, tight = printed_bounds(a, b, ratio_a), bounds(a, b, ratio_a)
        formula = f"{printed_upper(a, b, ratio_a):.3f} (not valid)"
        assert cells[2:] == [
            f"{ratio_a:.2f}", f"{ratio_b:.2f}", f"{printed.lower:.3f}", formula, f"{tight.lower:.3f}",
            f"{tight.upper:.3f}",
        ]  # fmt: skip
        assert printed.upper == np.inf and tight.lower <= ratio_b <= tight.upper
        assert ratio_at_optimal_weights(a, ratio_a) == pytest.approx(ratio_b)
    assert "Delta_a = 257 and Delta_b = 2329.06. The printed upper bound is 5.15." in LINES
    assert "2329 against 5.15" in LINES and "(DISCLOSURE" not in PAGE
    assert all(f"`{name}`" in LINES for name in DISCLOSURES)


def share_of_possible_gains(k: float) -> float:
    """Values and costs on a grid of 0 ... 1, each side playing its best answer to the other's under this k.

    The linear equilibrium of Chatterjee and Samuelson: bid = v / (1 + k) + k (1 - k) / (2 (1 + k)) and
    ask = c / (2 - k) + (1 - k) / 2, where they trade; beyond that they do not, whatever they say.
    """
    middles = (np.arange(2000) + 0.5) / 2000
    value, cost = middles[:, None], middles[None, :]
    bid = value / (1 + k) + k * (1 - k) / (2 * (1 + k))
    ask = cost / (2 - k) + (1 - k) / 2
    gains = value - cost
    return float(gains[bid >= ask].sum() / gains[gains > 0].sum())


def test_who_gives_up_what() -> None:
    told = {Fraction(cells[1]): cells for cells in rows("rule | k | truthful is")}
    assert list(told) == [0, Fraction(1, 2), 1]
    assert {cells[0].strip("`"): int(k * 1_000_000) for k, cells in told.items() if k < 1} == PRICING
    for k, cells in told.items():
        assert cells[4] == f"{100 * share_of_possible_gains(float(k)):.1f} %"


def test_the_table_of_exchanges() -> None:
    told = rows("v_a(a) | v_a(b)")
    assert len(told) == 5
    for cells in told:
        own_a, other_a, own_b, other_b = map(int, cells[:4])
        a, b = Values(own_a, other_a), Values(own_b, other_b)
        exchange = bargain(a, b)
        prices = ["-" if price is None else str(price.price) for price in (exchange.price_a, exchange.price_b)]
        assert cells[4:8] == [*prices, str(exchange.net), str(nash_product(a, b, exchange))]
    dropped = Exchange(Price(5, 0), Price(4, 0))
    assert "have a surplus of 6 to share, A's direction alone has 10" in LINES
    assert nash_product(Values(0, 2), Values(6, 10), dropped) == 3 * 3
    assert net_payment(Values(9, 5), Values(5, 9)) == 9 - 5


def test_the_table_of_roundings() -> None:
    price, fee = strike(8, 5, 0), strike(99, 99, 20_000)
    assert price and fee
    told = {cells[0]: cells[2] for cells in rows("what | rounded")}
    assert re.findall(r"gives? (\d+)", " ".join(told.values())) == [
        str(value_of_gain(0.3, 0.3, per_unit=10, budget=MAX_AMOUNT)),
        str(seller_cost(1e-9, overlap=1.0, per_unit=1)),
        str(to_ask(0.1)),
        str(price.price),
        str(fee.fee),
    ]
    assert f"Amounts are 0 ... {MAX_AMOUNT} micro-credits." in LINES


def test_links_and_contents() -> None:
    headings = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in re.findall(r"^\d+\. \[(.*)\]\((.*)\)$", PAGE, flags=re.MULTILINE)] == headings
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
    assert f"in {['six', 'seven', 'eight'][len(rows('where | as printed')) - 6]} places" in LINES
