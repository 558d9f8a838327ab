"""The one place where an agent asks a strategy: whatever a caller's own code does here, training goes on.

Knows: what a strategy may answer. Refuses to know: what is done with the answer. Code that raises, and an answer that
is no amount, are a `StrategyFault`: one sentence that names the class and the method; the traceback goes to the debug
log.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from p2pmarket.errors import StrategyFault
from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.node.strategy import Knowledge, Strategy

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

WORDS = {
    "bid": "a bid",
    "raise_bid": "a raised bid",
    "standing_ask": "a standing ask",
    "ask": "an ask",
    "lower_ask": "a lowered ask",
}
"""What each method of a strategy names, in words."""


def amount_of(method: Callable[P, int | None], *arguments: P.args, **named: P.kwargs) -> int | None:
    """The micro-credits that one of a strategy's methods names, or None.

    :param method: of a Strategy, bound to it; one of WORDS
    :raises StrategyFault: it raises, or names something else
    """
    answer = _ask(method, *arguments, **named)
    if answer is None:
        return None
    amount = _whole(answer)
    if amount is None or not 0 <= amount <= MAX_AMOUNT:
        raise StrategyFault(
            f"your strategy {_name(method)} returned {_shown(answer)} as {WORDS[_method(method)]}; "
            f"amounts are whole micro-credits, 0 ... {MAX_AMOUNT}"
        )
    return amount


def informed(strategy: Strategy, knowledge: Knowledge) -> Strategy:
    """The strategy that knows that.

    :raises StrategyFault: it raises, or what it returns is no strategy
    """
    answer = _ask(strategy.informed, knowledge)
    if not isinstance(answer, Strategy):
        raise StrategyFault(
            f"your strategy {_name(strategy.informed)} returned {_shown(answer)} from informed; it returns a Strategy"
        )
    return answer


def _ask(method: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    try:
        return method(*arguments, **named)
    except Exception as error:  # a caller's own code may fail in any way
        log.debug("the strategy failed", exc_info=True)
        raise StrategyFault(
            f"your strategy {_name(method)} failed in {_method(method)}: {type(error).__name__}: {_one_line(error)}"
        ) from error


def _whole(answer: object) -> int | None:
    """The integer that it is, of numpy's and torch's too."""
    if isinstance(answer, bool):
        return None
    try:
        return operator.index(answer)  # type: ignore[arg-type]
    except TypeError:
        return None


def _name(method: Callable[..., Any]) -> str:
    """As in the settings, module:Class."""
    kind = type(getattr(method, "__self__", method))
    return f"{kind.__module__}:{kind.__qualname__}"


def _method(method: Callable[..., Any]) -> str:
    return str(getattr(method, "__name__", method))


def _shown(answer: object) -> str:
    return _one_line(repr(answer))


def _one_line(words: object) -> str:
    return " ".join(str(words).split())[:200]
