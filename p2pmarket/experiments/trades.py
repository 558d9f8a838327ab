"""A ledger's trades as rows that researchers read: who, when, what was measured, what was named, what was paid.

Knows: the ledger's rows and the signed messages in them. Refuses to know: where rows go. The ledger is the run's own:
its signatures are not checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from p2pmarket.crypto.signing import type_of, unverified
from p2pmarket.experiments.recording import TradeRow
from p2pmarket.ledger import trades as ledger_trades
from p2pmarket.ledger.trade import PAID
from p2pmarket.messages import Ask, Bid, GainReport, Submit


def trade_rows(
    found: Iterable[ledger_trades.TradeRow],
    *,
    run: str,
    method: str,
    seed: int,
    names: Mapping[str, str],
    round_at: Callable[[int], int],
    began_ms: int,
) -> list[TradeRow]:
    """Every appraised pair, the oldest first.

    :param names: of agents, by peer id
    :param round_at: a time of the ledger, in UTC milliseconds -> the round that it is in
    :param began_ms: when the run began, by the ledger's clock
    """
    appraised = [
        (row, unverified(row.report, GainReport))
        for row in sorted(found, key=lambda row: (row.created_ms, row.trade))
        if row.report is not None
    ]
    weights = {(row.buyer_snapshot, row.seller_snapshot): report.weight for row, report in appraised}
    rows = []
    for row, report in appraised:
        paid = row.state in PAID
        rows.append(
            TradeRow(
                run=run,
                method=method,
                seed=seed,
                round=round_at(row.created_ms),
                time_s=(row.created_ms - began_ms) / 1000,
                trade=row.trade.hex(),
                buyer=names[row.buyer],
                seller=names[row.seller],
                task=row.task,
                after=report.after.hex() if report.after else "",
                state=row.state,
                reason=row.reason,
                weight=report.weight,
                own_weight=weights.get((row.seller_snapshot, row.buyer_snapshot)),
                loss_before=report.loss_before,
                loss_after=report.loss_after,
                gain=report.gain,
                gain_low=report.gain_low,
                gain_high=report.gain_high,
                merit=report.merit,
                bid=unverified(row.bid, Bid).amount if row.bid else None,
                ask=_ask(row.ask),
                price=row.price if paid else None,
                fee=row.fee if paid else None,
            )
        )
    return rows


def _ask(signed: bytes | None) -> int | None:
    """Of an Ask, or the standing one of a Submit."""
    if signed is None:
        return None
    if type_of(signed) == Submit.TYPE:
        return unverified(signed, Submit).ask
    return unverified(signed, Ask).amount
