"""Where between a bid and an ask the price falls. Integers in, integers out, nothing else.

Knows: amounts in micro-credits and the market's fee. Refuses to know: who bids, what is sold, how money moves.
Fails with ValueError when an argument is not an amount; "no deal" is an answer (None), not a failure.

The price of the k-double auction is ask + k (bid - ask) (Chatterjee and Samuelson 1983). No rule is efficient,
truthful, individually rational and balanced at once (Myerson and Satterthwaite 1983). Each of these is individually
rational and balanced, and gives up truth on at least one side, and with it trades in which the value is above the cost.
k = 0, `posted`: the buyer pays the ask, so bidding its value is its best; the seller gains by asking above its cost.
k = 1/2, `midpoint`: both gain by shading. For one direction it is the Nash bargaining solution of Train 'n Trade,
section 3.4. k = 1: asking what nets its cost is the seller's best; the buyer gains by bidding less than its value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

from p2pmarket.pricing.amounts import check_amount, check_whole

MILLION = 1_000_000
MIDPOINT = MILLION // 2


@dataclasses.dataclass(frozen=True)
class Price:
    """What a trade costs: the buyer pays `price`, the broker keeps `fee` of it, the seller gets the rest."""

    price: int
    fee: int

    @property
    def proceeds(self) -> int:
        """What the seller gets."""
        return self.price - self.fee


def strike(bid: int, ask: int, fee_ppm: int, k_ppm: int = MIDPOINT) -> Price | None:
    """The price of a trade, or None when the bid is below the ask.

    ask + k (bid - ask) with k of `k_ppm` millionths, what is below a micro-credit rounded towards the ask. The fee,
    `fee_ppm` millionths rounded down, comes out of the price: a seller that must net `x` asks for more than `x`,
    knowing the fee from the market's terms.

    :raises ValueError: an amount that is no int in 0 ... MAX_AMOUNT, or a fee or k that is none in 0 ... 1,000,000
    """
    check_amount("bid", bid)
    check_amount("ask", ask)
    check_millionths("fee", fee_ppm)
    check_millionths("k", k_ppm)
    if bid < ask:
        return None
    price = ask + k_ppm * (bid - ask) // MILLION
    return Price(price, price * fee_ppm // MILLION)


def check_millionths(name: str, share: int) -> None:
    """:raises ValueError: not an int, or outside 0 ... 1,000,000 millionths"""
    if type(share) is int and 0 <= share <= MILLION:
        return
    check_whole(name, share, "millionths")
    raise ValueError(f"{name} of {share} millionths is outside 0 ... {MILLION}")


@dataclasses.dataclass(frozen=True)
class Values:
    """What one of two bargaining agents says: micro-credits, each an amount."""

    own: int
    """v_u(u): the least it sells its own parameters for (its ask)."""
    other: int
    """v_u(w): the most it pays for the other's (its bid)."""

    def __post_init__(self) -> None:
        check_amount("value of one's own", self.own)
        check_amount("value of the other's", self.other)


@dataclasses.dataclass(frozen=True)
class Exchange:
    """What two agents agreed on: the price of each one's parameters, None for a direction that is not traded."""

    price_a: Price | None
    """P_a, which B pays for A's parameters."""
    price_b: Price | None
    """P_b, which A pays for B's."""

    @property
    def net(self) -> int:
        """P_a - P_b, equation 1: what B pays A on balance, before the fee; negative when A pays B."""
        return (self.price_a.price if self.price_a else 0) - (self.price_b.price if self.price_b else 0)

    @property
    def changes(self) -> tuple[int, int, int]:
        """What the balances of A, B and the broker change by; their sum is 0."""
        sold_a = self.price_a or Price(0, 0)
        sold_b = self.price_b or Price(0, 0)
        return sold_a.proceeds - sold_b.price, sold_b.proceeds - sold_a.price, sold_a.fee + sold_b.fee


def bargain(a: Values, b: Values, fee_ppm: int = 0) -> Exchange:
    """Both directions of trade between two agents at once: Train 'n Trade, section 3.4.

    The Nash product U_a U_b depends on P_a - P_b alone and is greatest at the difference of the two midpoints, which is
    equation 1; at the midpoints each agent also gains from each direction alone. A direction whose bid is below its ask
    is dropped and the other settled alone: traded together it would cost both a part of the other's surplus.
    Each midpoint is rounded towards its ask, so `net` is within half a micro-credit of equation 1.

    :raises ValueError: a fee outside 0 ... 1,000,000 millionths
    """
    exchange = Exchange(strike(b.other, a.own, fee_ppm), strike(a.other, b.own, fee_ppm))
    nash_product(a, b, exchange)
    return exchange


def nash_product(a: Values, b: Values, exchange: Exchange) -> int:
    """U_a U_b of the directions that are traded, before the fee.

    :raises ValueError: a price that is no amount, or a negative factor: the product of two losses is positive and no
        agreement
    """
    gain_a = gain_b = 0
    if exchange.price_a is not None:
        check_amount("price", exchange.price_a.price)
        gain_a += exchange.price_a.price - a.own
        gain_b += b.other - exchange.price_a.price
    if exchange.price_b is not None:
        check_amount("price", exchange.price_b.price)
        gain_a += a.other - exchange.price_b.price
        gain_b += exchange.price_b.price - b.own
    if gain_a < 0 or gain_b < 0:
        raise ValueError(f"an exchange that changes one agent's utility by {min(gain_a, gain_b)} is no agreement")
    return gain_a * gain_b


def net_payment(a: Values, b: Values) -> Fraction:
    """Equation 1, exactly: P_a - P_b when both directions are traded. Where each seller values its own parameters as
    their buyer does it is Delta_b - Delta_a (the paper's section 4 has the sign the wrong way round)."""
    return Fraction(b.other + a.own - a.other - b.own, 2)


def first_overlap(bids: Sequence[int], asks: Sequence[int]) -> int | None:
    """Index of the first round in which the bid reaches the ask, or None: each round one bid and one ask.

    :raises ValueError: not as many bids as asks, no amount, a bid below or an ask above that of the round before
    """
    if len(bids) != len(asks):
        raise ValueError(f"{len(bids)} bids and {len(asks)} asks: each round needs one of each")
    for amount in bids:
        check_amount("bid", amount)
    for amount in asks:
        check_amount("ask", amount)
    for index in range(1, len(bids)):
        if bids[index] < bids[index - 1]:
            raise ValueError(f"the bid of round {index} is lower than the one before; a bid only rises")
        if asks[index] > asks[index - 1]:
            raise ValueError(f"the ask of round {index} is higher than the one before; an ask only falls")
    return next((index for index, (bid, ask) in enumerate(zip(bids, asks, strict=True)) if bid >= ask), None)
