"""From an operator's settings to a strategy: one of those here by its name, or a class of the operator's own.

Knows: which knob belongs to which strategy. Refuses to know: what they do with them. A name that is none, and code that
is no strategy, raise `SettingsError`; nothing that a peer says comes here.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping

from p2pmarket.errors import SettingsError
from p2pmarket.node.strategies.budgeted import Budgeted
from p2pmarket.node.strategies.collaborative import Collaborative
from p2pmarket.node.strategies.competitive import Competitive
from p2pmarket.node.strategy import Strategy
from p2pmarket.options import DEFAULT
from p2pmarket.plugins import load_plugin
from p2pmarket.settings import STRATEGY, NodeSettings

STRATEGIES: dict[str, type[Strategy]] = {
    "default": Strategy,
    "collaborative": Collaborative,
    "competitive": Competitive,
    "budgeted": Budgeted,
}


UNUSED: dict[str, frozenset[str]] = {"collaborative": frozenset({"reserve"})}
"""Knobs that a strategy inherits and makes nothing of."""


def strategy_of(settings: NodeSettings, origins: Mapping[str, str] | None = None) -> Strategy:
    """The strategy that the settings name, with those of their knobs that it has.

    :param origins: where each setting came from (options.resolve); None: nothing but the name was given by hand
    :raises SettingsError: no such strategy, a knob out of its bounds, or one given by hand that it does not have
    """
    name = settings.strategy
    kind = _custom(name) if ":" in name else STRATEGIES.get(name)
    if kind is None:
        raise SettingsError(f"strategy is {name!r}; it is {', '.join(STRATEGIES)}, or your own as package.module:Class")
    taken = frozenset() if isinstance(kind, Strategy) else _knobs(kind)
    used = {"strategy"} | taken - UNUSED.get(name, frozenset())
    for field in dataclasses.fields(settings):
        origin = (origins or {}).get(field.name, DEFAULT)
        if field.metadata["group"] == STRATEGY and field.name not in used and origin != DEFAULT:
            raise SettingsError(f"{origin}: the strategy {name} makes nothing of it{_whose(field.name)}; leave it out")
    if isinstance(kind, Strategy):
        return kind
    given = {field.name for field in dataclasses.fields(settings)}
    try:
        return kind(**{knob: getattr(settings, knob) for knob in sorted(taken & given)})
    except SettingsError:
        raise
    except Exception as error:  # an operator's own class may fail in any way
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError(f"the strategy {name} cannot be made from the settings: {reason}") from error


def _knobs(kind: type[Strategy]) -> frozenset[str]:
    """What can be set of a strategy when it is made: what its __init__ takes by name, of a dataclass its fields."""
    parameters = inspect.signature(kind).parameters.values()
    if any(one.kind == one.VAR_KEYWORD for one in parameters):
        return frozenset(field.name for field in dataclasses.fields(kind) if field.init)
    return frozenset(one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY))


def _whose(knob: str) -> str:
    """Which of the strategies here have a knob, where only some do."""
    names = [name for name, kind in STRATEGIES.items() if knob in _knobs(kind) - UNUSED.get(name, frozenset())]
    return f", it is for {', '.join(names)}" if names else ""


def _custom(reference: str) -> Strategy | type[Strategy]:
    """:raises SettingsError: it cannot be imported, or is neither a Strategy nor a class of them"""
    if not all(reference.split(":", 1)):
        raise SettingsError(f"strategy is {reference!r}; name your own as package.module:Class, such as mine:Careful")
    found = load_plugin(reference, allowed=True, error=SettingsError)
    if isinstance(found, Strategy):
        return found
    if isinstance(found, type) and issubclass(found, Strategy):
        return found
    raise SettingsError(
        f"{reference!r} is no strategy but {type(found).__name__}; name a subclass of p2pmarket.Strategy"
    )
