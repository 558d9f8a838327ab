"""From an operator's settings to a strategy: one of those here by its name, or a class of the operator's own.

Knows: which knob belongs to which strategy. Refuses to know: what they do with them. A name that is none, and code that
is no strategy, raise `SettingsError`; nothing that a peer says comes here.
"""

from __future__ import annotations

import dataclasses

from p2pmarket.errors import SettingsError
from p2pmarket.node.strategies.budgeted import Budgeted
from p2pmarket.node.strategies.collaborative import Collaborative
from p2pmarket.node.strategies.competitive import Competitive
from p2pmarket.node.strategy import Strategy
from p2pmarket.plugins import load_plugin
from p2pmarket.settings import NodeSettings

STRATEGIES: dict[str, type[Strategy]] = {
    "default": Strategy,
    "collaborative": Collaborative,
    "competitive": Competitive,
    "budgeted": Budgeted,
}


def strategy_of(settings: NodeSettings) -> Strategy:
    """The strategy that the settings name, with those of their knobs that it has.

    :raises SettingsError: no such strategy, or a knob out of its bounds
    """
    name = settings.strategy
    kind = _custom(name) if ":" in name else STRATEGIES.get(name)
    if kind is None:
        raise SettingsError(f"strategy is {name!r}; it is {', '.join(STRATEGIES)}, or your own as package.module:Class")
    if isinstance(kind, Strategy):
        return kind
    knobs = {field.name for field in dataclasses.fields(kind) if field.init}
    given = {field.name for field in dataclasses.fields(settings)}
    try:
        return kind(**{knob: getattr(settings, knob) for knob in sorted(knobs & given)})
    except TypeError as error:
        raise SettingsError(f"the strategy {name} cannot be made from the settings: {error}") from error


def _custom(reference: str) -> Strategy | type[Strategy]:
    """:raises SettingsError: it cannot be imported, or is neither a Strategy nor a class of them"""
    found = load_plugin(reference, allowed=True, error=SettingsError)
    if isinstance(found, Strategy):
        return found
    if isinstance(found, type) and issubclass(found, Strategy):
        return found
    raise SettingsError(
        f"{reference!r} is no strategy but {type(found).__name__}; name a subclass of p2pmarket.Strategy"
    )
