"""From a belief about buyers to a price: what to ask, what is paid, and what past bids teach a seller.

Run it:  python examples/price_a_sale.py

Everything here is `p2pmarket.pricing`: plain functions, no market needed. docs/pricing.md has the formulas.
"""

from __future__ import annotations

import random

from p2pmarket.pricing.bargaining import strike
from p2pmarket.pricing.history import Observation, reserve_from
from p2pmarket.pricing.priors import Lognormal, to_ask
from p2pmarket.units import CREDIT, format_credits


def main() -> None:
    truth = Lognormal(mu=0.0, sigma=1.0)  # what buyers are ready to pay, in credits
    harm = 0.25  # what a copy in another's hands costs this seller, in credits

    ask = to_ask(truth.reserve(harm))
    print(f"knowing the buyers, ask {format_credits(ask)}")
    for bid in (CREDIT, 3 * CREDIT):
        price = strike(bid, ask, fee_ppm=20_000)
        said = (
            "no deal" if price is None else f"pay {format_credits(price.price)}, of which {format_credits(price.fee)}"
        )
        print(f"a bid of {format_credits(bid)}: {said}" + (" is the broker's" if price else ""))

    draw = random.Random(0)
    seen: list[Observation] = []
    for past in (0, 10, 100, 1000):
        while len(seen) < past:
            value = round(truth.quantile(draw.random()) * CREDIT)
            seen.append(Observation(value, buyer=f"buyer {len(seen)}", at_ms=len(seen)))
        learned = reserve_from(seen, past, low=0, high=10 * CREDIT, cost=round(harm * CREDIT))
        income, best = ((price / CREDIT - harm) * truth.survival(price / CREDIT) for price in (learned, ask))
        print(f"after {past:4} bids, ask {format_credits(learned)}: {income / best:.0%} of the best income")


if __name__ == "__main__":
    main()
