"""What a purchase is worth, what to ask, and what is paid: docs/pricing.md has a table of all names, in its order.

Importing this package imports neither NumPy nor SciPy; a name brings its module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pmarket.pricing.bargaining import (
        Exchange,
        Price,
        Values,
        bargain,
        first_overlap,
        nash_product,
        net_payment,
        strike,
    )
    from p2pmarket.pricing.empirical import Empirical
    from p2pmarket.pricing.history import (
        Observation,
        PastBid,
        PriceStatistics,
        implied_bid,
        likely_values,
        reserve_from,
        reserve_from_statistics,
        statistics_from,
    )
    from p2pmarket.pricing.priors import Beta, Exponential, Lognormal, Mixture, Pareto, TruncatedNormal, Uniform
    from p2pmarket.pricing.reserve import Belief, Prior, to_ask
    from p2pmarket.pricing.sharing import (
        Basket,
        Shapley,
        clone_groups,
        greedy_basket,
        posted_price_per_class,
        random_sampling_prices,
        shapley,
        shapley_of_groups,
        shares,
        similarity_discount,
    )
    from p2pmarket.pricing.theorem import (
        Bounds,
        bounds,
        printed_bounds,
        printed_upper,
        ratio_at_optimal_weights,
        reserve_between,
    )
    from p2pmarket.pricing.tracking import tracking_ask
    from p2pmarket.pricing.valuation import seller_cost, value_of_gain

__all__ = [
    "value_of_gain",
    "seller_cost",
    "Belief",
    "Prior",
    "Uniform",
    "Exponential",
    "TruncatedNormal",
    "Lognormal",
    "Beta",
    "Pareto",
    "Mixture",
    "to_ask",
    "Bounds",
    "bounds",
    "printed_bounds",
    "printed_upper",
    "ratio_at_optimal_weights",
    "reserve_between",
    "Price",
    "strike",
    "Values",
    "Exchange",
    "bargain",
    "nash_product",
    "net_payment",
    "first_overlap",
    "Observation",
    "implied_bid",
    "reserve_from",
    "likely_values",
    "Empirical",
    "PastBid",
    "PriceStatistics",
    "statistics_from",
    "reserve_from_statistics",
    "tracking_ask",
    "Basket",
    "greedy_basket",
    "Shapley",
    "shapley",
    "shares",
    "clone_groups",
    "shapley_of_groups",
    "similarity_discount",
    "posted_price_per_class",
    "random_sampling_prices",
]

_HOMES = {
    "value_of_gain": "valuation",
    "seller_cost": "valuation",
    "Belief": "reserve",
    "Prior": "reserve",
    "Uniform": "priors",
    "Exponential": "priors",
    "TruncatedNormal": "priors",
    "Lognormal": "priors",
    "Beta": "priors",
    "Pareto": "priors",
    "Mixture": "priors",
    "to_ask": "reserve",
    "Bounds": "theorem",
    "bounds": "theorem",
    "printed_bounds": "theorem",
    "printed_upper": "theorem",
    "ratio_at_optimal_weights": "theorem",
    "reserve_between": "theorem",
    "Price": "bargaining",
    "strike": "bargaining",
    "Values": "bargaining",
    "Exchange": "bargaining",
    "bargain": "bargaining",
    "nash_product": "bargaining",
    "net_payment": "bargaining",
    "first_overlap": "bargaining",
    "Observation": "history",
    "implied_bid": "history",
    "reserve_from": "history",
    "likely_values": "history",
    "Empirical": "empirical",
    "PastBid": "history",
    "PriceStatistics": "history",
    "statistics_from": "history",
    "reserve_from_statistics": "history",
    "tracking_ask": "tracking",
    "Basket": "sharing",
    "greedy_basket": "sharing",
    "Shapley": "sharing",
    "shapley": "sharing",
    "shares": "sharing",
    "clone_groups": "sharing",
    "shapley_of_groups": "sharing",
    "similarity_discount": "sharing",
    "posted_price_per_class": "sharing",
    "random_sampling_prices": "sharing",
}


def __getattr__(name: str) -> Any:
    """Public names, imported when first used: some bring SciPy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'p2pmarket.pricing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"p2pmarket.pricing.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
