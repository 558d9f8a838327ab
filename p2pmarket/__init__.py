"""A peer-to-peer market where organisations that train models apart buy and sell trained parameters.

`Agent` is the one line in a training loop; see README.md. Importing this package imports neither torch nor hivemind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from p2pmarket.node.agent import AsyncAgent
    from p2pmarket.node.results import Purchase, Sale, TradeResult
    from p2pmarket.node.strategy import Strategy
    from p2pmarket.node.training_loop import Agent

__all__ = ["Agent", "AsyncAgent", "Purchase", "Sale", "Strategy", "TradeResult", "__version__"]

_HOMES = {
    "Agent": "p2pmarket.node.training_loop",
    "AsyncAgent": "p2pmarket.node.agent",
    "Purchase": "p2pmarket.node.results",
    "Sale": "p2pmarket.node.results",
    "Strategy": "p2pmarket.node.strategy",
    "TradeResult": "p2pmarket.node.results",
}


def __getattr__(name: str) -> Any:
    """Public names, imported when first used: they bring torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'p2pmarket' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
