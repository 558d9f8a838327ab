"""When the broker appraises whom: the rule alone."""

from __future__ import annotations

from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.rounds import next_round
from p2pmarket.market import MarketTerms, parse_terms


def terms(rounds: str, agents: int = 3) -> MarketTerms:
    return parse_terms(
        {
            "market": {"name": "m", "rounds": rounds, "round_agents": agents, "round_timeout_seconds": 10},
            "model": {"name": "mlp"},
            "task": [{"name": "t", "loss": "cross_entropy", "metric": "accuracy"}],
        }
    )


def submission(agent: str, at_ms: int, *, buy: bool = True, sell: bool = True) -> Submission:
    digest = agent.encode().ljust(32, b"\0")
    return Submission(digest[:16], agent, digest, "t", 1, 100, buy, sell, 0, b"", "booked", at_ms, 0)


def test_nobody_waits() -> None:
    assert next_round(terms("continuous"), [], [submission("a", 1)], 1, 5) is None
    assert next_round(terms("barrier"), [], [submission("a", 1)], 1, 5) is None


def test_continuous_takes_the_oldest_against_the_book() -> None:
    waiting = [submission("a", 1), submission("b", 2)]
    book = [*waiting, submission("c", 0)]
    due = next_round(terms("continuous"), waiting, book, 1, 5)
    assert due is not None and due.members == (waiting[0],) and due.sellers == tuple(book)
    assert [each.agent for each in due.sellers_for(waiting[0])] == ["b", "c"]


def test_a_barrier_waits_for_its_agents_or_its_time() -> None:
    waiting = [submission("a", 1000), submission("b", 2000)]
    assert next_round(terms("barrier"), waiting, waiting, 1000, 10_999) is None
    late = next_round(terms("barrier"), waiting, waiting, 1000, 11_000)
    assert late is not None and late.members == tuple(waiting)
    full = next_round(terms("barrier", 2), waiting, waiting, 1000, 2000)
    assert full is not None and full.members == tuple(waiting) and full.sellers == tuple(waiting)


def test_who_submits_again_does_not_renew_the_time() -> None:
    waiting = [submission("a", 10_500)]
    assert next_round(terms("barrier"), waiting, waiting, 1000, 11_000) is not None
    assert next_round(terms("barrier"), waiting, waiting, 10_500, 11_000) is None


def test_who_may_be_bought_from() -> None:
    buyer, book = submission("a", 1), [submission("b", 2), submission("c", 3, sell=False), submission("d", 4)]
    due = next_round(terms("continuous"), [buyer], [buyer, *book], 1, 5)
    assert due is not None
    assert [each.agent for each in due.sellers_for(buyer)] == ["d", "b"], "the latest first, never its own"
