"""One member's mail: the order of its reports, and what is left out where it cannot hold them all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from p2pmarket import limits
from p2pmarket.appraisal.appraise import Appraisal as Result
from p2pmarket.broker_node.appraiser import Finding
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.reporting import MOST_REPORTS, in_order, mail_of
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import verify
from p2pmarket.errors import MalformedMessage
from p2pmarket.messages import Appraisal, ClassChange, GainReport, GroupChange, TaskChange

BROKER, AGENT = Identity.generate(), Identity.generate().peer_id
LONG = "n" * limits.MAX_NAME_CHARACTERS


def submission(letter: bytes) -> Submission:
    return Submission(letter * 16, AGENT, letter * 32, "t", 1, 100, True, True, 0, b"", "booked", 1, 0)


def finding(trade: int, gain: float, after: int | None = None, *, names: int = 0, details: int = 0) -> Finding:
    numbers = dict.fromkeys(
        ("loss_before", "loss_after", "low", "high", "merit", "merit_low", "merit_high", "metric_before"), 0.5
    )
    result: Any = SimpleNamespace(
        **numbers, gain=gain, metric_after=0.5, confidence=0.95, samples=9, alpha=0.5, alignment="weights", reason="",
        left_out=("n" * names,) * 16, plan=SimpleNamespace(granularity="model"),
    )  # fmt: skip
    return Finding(
        trade=trade.to_bytes(16, "big"),
        market="m",
        buyer=submission(b"b"),
        seller=submission(b"s"),
        delivery=b"d" * 32,
        data=b"v" * 32,
        after=None if after is None else after.to_bytes(16, "big"),
        result=cast(Result, result),
        classes=(ClassChange(1, 100, 0.1, 0.1, 0.1),) * details,
        groups=(GroupChange(LONG, 0.1),) * (details // 2),
        tasks=(TaskChange(LONG, 0.1, 0.1, 0.1),) * (details // 4),
    )


def told(findings: list[Finding]) -> tuple[list[GainReport], Appraisal, int]:
    mail = mail_of(BROKER, b"i" * 16, 3, findings, 1000, "nothing")
    appraisal = verify(mail.data, Appraisal, signer=BROKER.peer_id)
    assert appraisal.reports == tuple(report for _, report in mail.reports)
    reports = [verify(report, GainReport, signer=BROKER.peer_id) for report in appraisal.reports]
    assert [report.trade for report in reports] == [finding.trade for finding, _ in mail.reports]
    return reports, appraisal, len(mail.data)


def numbers(reports: list[GainReport]) -> list[int]:
    return [int.from_bytes(report.trade, "big") for report in reports]


def test_the_order_is_by_what_is_told_then_by_trade_and_chains_come_last() -> None:
    found = [finding(4, 0.1), finding(3, 0.2), finding(9, 0.5, after=4), finding(2, 0.1), finding(1, 0.9, after=9)]
    assert [int.from_bytes(one.trade, "big") for one in in_order(found)] == [3, 2, 4, 9, 1]


def test_nothing_has_its_reason() -> None:
    reports, appraisal, _ = told([])
    assert reports == [] and appraisal.note == "nothing"


def test_a_mail_holds_so_many_reports_and_drops_the_worst_that_nothing_is_upon() -> None:
    alone = [finding(number, 1.0 / (1 + number)) for number in range(64)]
    chain = [finding(64, 0.1, after=63), finding(65, 0.1, after=64)]
    reports, _, _ = told([*alone, *chain])
    assert numbers(reports) == [*range(61), 63, 64, 65] and len(reports) == MOST_REPORTS


def test_details_go_first_where_the_mail_is_too_long() -> None:
    reports, _, size = told([finding(number, 0.1, details=64) for number in range(64)])
    assert len(reports) == 64 and size <= limits.MAX_RECORD_BYTES
    assert all(report.classes == report.groups == report.tasks == () for report in reports)
    few, _, _ = told([finding(number, 0.1, details=64) for number in range(8)])
    assert all(len(report.classes) == 64 for report in few), "where they fit they stay"


def test_then_the_worst_reports() -> None:
    found = [finding(number, 1.0 / (1 + number), names=256, details=64) for number in range(64)]
    reports, _, size = told([*found, finding(64, 0.1, after=0)])
    assert limits.MAX_RECORD_BYTES * 0.9 < size <= limits.MAX_RECORD_BYTES
    assert numbers(reports) == [*range(len(reports) - 1), 64] and 40 < len(reports) < 64


def test_a_number_that_is_none_is_no_report() -> None:
    with pytest.raises(MalformedMessage):
        told([finding(1, float("inf"))])
