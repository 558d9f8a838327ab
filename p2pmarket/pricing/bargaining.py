"""Where between a bid and an ask the price falls. Integers in, integers out, nothing else.

Knows: amounts in micro-credits and the market's fee. Refuses to know: who bids, what is sold, how money moves.
Fails with ValueError when an argument is not an amount; "no deal" is an answer (None), not a failure.

The midpoint is the Nash bargaining solution of the paper's section 3.4 for one direction of trade: it maximises
(bid - price)(price - ask), and equation 1 is the difference of two such midpoints. As a mechanism it is the
k = 1/2 double auction (Chatterjee and Samuelson 1983): both sides gain by shading, and by Myerson and Satterthwaite
(1983) no rule is efficient, truthful, individually rational and balanced at once. This one gives up truthfulness.
"""

from __future__ import annotations

import dataclasses

from p2pmarket.limits import MAX_AMOUNT

MILLION = 1_000_000


@dataclasses.dataclass(frozen=True)
class Price:
    """What a trade costs: the buyer pays `price`, the broker keeps `fee` of it, the seller gets the rest."""

    price: int
    fee: int

    @property
    def proceeds(self) -> int:
        """What the seller gets."""
        return self.price - self.fee


def strike(bid: int, ask: int, fee_ppm: int) -> Price | None:
    """The price of a trade, or None when the bid is below the ask.

    The midpoint, its half micro-credit rounded towards the ask. The fee, `fee_ppm` millionths rounded down, comes out
    of the price: a seller that must net `x` asks for more than `x`, knowing the fee from the market's terms.

    :raises ValueError: an amount outside 0 ... MAX_AMOUNT, or a fee outside 0 ... 1,000,000 millionths
    """
    for name, amount in (("bid", bid), ("ask", ask)):
        if not 0 <= amount <= MAX_AMOUNT:
            raise ValueError(f"{name} of {amount} micro-credits is outside 0 ... {MAX_AMOUNT}")
    if not 0 <= fee_ppm <= MILLION:
        raise ValueError(f"fee of {fee_ppm} millionths is outside 0 ... {MILLION}")
    if bid < ask:
        return None
    price = ask + (bid - ask) // 2
    return Price(price, price * fee_ppm // MILLION)
