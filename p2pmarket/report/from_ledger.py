"""A broker's state folder as a story: its ledger as it stands, also while the broker runs.

Knows: what the ledger's rows mean. Refuses to know: how pages look. Reads alone. A ledger that cannot be read raises
what opening it raises: IdentityError, JournalDamaged, MachineFault.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import type_of, unverified
from p2pmarket.errors import MarketError
from p2pmarket.ledger.balances import AccountRow, HistoryRow
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import Ask, GainReport, Submit
from p2pmarket.report import deal_charts
from p2pmarket.report.deals import Deal, endings_table, largest_table, sums, sums_sentence, who_with_whom
from p2pmarket.report.story import Chart, Line, Section, Story, Table, Tile, Words
from p2pmarket.report.words import MAX_SENTENCE, credits, left_out, many, moment, short_names, shown
from p2pmarket.units import CREDIT

FILE = "ledger.sqlite"
ROLLED_BACK = "rolled-back.json"
"""What a broker leaves that found its ledger older than what it had signed (broker_node/witness.py)."""
MAX_ACCOUNTS = 200
MAX_LINES = 8
MAX_STEPS = 150
"""Points of a line of balances."""


def story_of_ledger(folder: Path) -> Story:
    """The page of a broker's folder.

    :raises IdentityError, JournalDamaged, MachineFault: it cannot be read
    """
    identity = Identity.load(folder / "identity.key")
    with Ledger.open(folder / FILE, identity, None, check=False) as ledger:
        problems = ledger.verify(signatures=False).problems
        rows, accounts, history, market = ledger.trades(), ledger.accounts(), ledger.history(), ledger.market
    broker = identity.peer_id
    peers = [account.peer for account in accounts] + [peer for row in rows for peer in (row.buyer, row.seller)]
    peers += [row.peer for row in history]
    names = short_names(peers, {broker: "the broker"})
    deals = [deal_of_row(row, names) for row in reversed(rows)]
    agents = [names[account.peer] for account in accounts if account.peer != broker]
    found = sums(deals)
    warnings = [f"The ledger does not verify: {shown(one, MAX_SENTENCE)}" for one in problems[:3]]
    if (folder / ROLLED_BACK).exists():
        warnings.append("This ledger is older than what its broker signed before, or a copy: do not count on it.")
    verdict = "the ledger verifies" if not problems else "THE LEDGER DOES NOT VERIFY"
    headline = f"{many(len(agents), 'agent')} with an account: {sums_sentence(found)}; {verdict}."
    good = not problems
    tiles = (
        Tile("accounts", f"{len(agents):,}", "of agents"),
        Tile("trades settled", f"{found.settled:,}", f"of {found.appraised:,} appraised"),
        Tile("credits moved", credits(found.moved), f"{credits(found.fees)} of them fees"),
        Tile("ledger", "verifies" if good else "does not verify", "every leaf refolded", "good" if good else "bad"),
    )
    told = deal_charts.promised_falls(
        deal_charts.next_losses(deals),
        "One dot for each visit with a purchase: the gain that was reported, against how far the buyer's loss had "
        "fallen at its next visit, its own training included.",
    )
    times = {deal.at: moment(deal.at * 1000) for deal in deals}
    balances, table = _balances(history, names, broker), _accounts(accounts, names, deals)
    sections: tuple[Section, ...] = (
        Section("prices", "Prices and balances", (deal_charts.prices(deals, "time"), balances)),
        Section("gains", "Gains: promised and kept", (told, deal_charts.gains(deals, "time"))),
        Section(
            "trades",
            "Trades",
            (deal_charts.endings(deals, "time"), endings_table(deals), largest_table(deals, "time, UTC", times)),
        ),
        Section("agents", "Who traded with whom", (*who_with_whom(deals, agents), table)),
    )
    if not deals:
        nothing = Words(("No pair of agents was appraised yet, so nothing was bought or sold.",))
        sections = (Section("agents", "Agents", (nothing, balances, table)),)
    sections += (Section("problems", "What went wrong", (_problems(warnings, problems),)),)
    return Story(
        "Report of a broker", f"Market {shown(market)}", headline, tiles, sections, tuple(warnings)
    )  # fmt: skip


def deal_of_row(row: TradeRow, names: Mapping[str, str]) -> Deal:
    """A row of the ledger; what its signed parts say only where they can be read."""
    deal = Deal(
        at=row.created_ms / 1000,
        trade=row.trade.hex(),
        buyer=names[row.buyer],
        seller=names[row.seller],
        task=row.task,
        state=row.state,
        reason=row.reason,
        snapshot=row.buyer_snapshot.hex(),
        bid=row.bid_amount if row.bid else None,
        ask=ask_of(row.ask),
        price=row.price if row.receipt else None,
        fee=row.fee if row.receipt else 0,
    )
    return with_report(deal, row.report)


def with_report(deal: Deal, report: bytes | None) -> Deal:
    """A trade with what the broker reported of it; its signature was looked at when it was kept."""
    try:
        told = unverified(report, GainReport) if report else None
    except MarketError:
        return deal
    if told is None:
        return deal
    return dataclasses.replace(
        deal,
        task=told.task,
        weight=told.weight,
        gain=told.gain,
        gain_low=told.gain_low,
        gain_high=told.gain_high,
        loss_before=told.loss_before,
        snapshot=told.buyer_snapshot.hex(),
    )


def ask_of(word: bytes | None) -> int | None:
    """The amount in a seller's signed word: its Ask, or its Submit with a standing one."""
    if not word:
        return None
    try:
        return unverified(word, Submit).ask if type_of(word) == Submit.TYPE else unverified(word, Ask).amount
    except MarketError:
        return None


def _balances(history: Sequence[HistoryRow], names: Mapping[str, str], broker: str) -> Chart:
    """What each account had after each movement; of many accounts those that moved most."""
    moved: dict[str, int] = defaultdict(int)
    steps: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in history:
        moved[row.peer] += abs(row.change) if row.kind in ("settled", "refunded") else 0
        steps[row.peer].append((row.at_ms / 1000, row.balance / CREDIT))
    chosen = sorted(steps, key=lambda peer: (peer == broker, -moved[peer]))[:MAX_LINES]
    last = max((row.at_ms / 1000 for row in history), default=0.0)
    lines = []
    for place, peer in enumerate(chosen):
        points = [*deal_charts.every(steps[peer], MAX_STEPS), (last, steps[peer][-1][1])]
        x, y = tuple(at for at, _ in points), tuple(balance for _, balance in points)
        lines.append(Line(names[peer], x, y, place))
    caption = "After each movement of money."
    caption += f" The {len(chosen)} accounts that traded most, of {len(steps)}." if len(steps) > len(chosen) else ""
    return Chart("Balances over time", caption, "time, UTC", "credits", tuple(lines), x_axis="time")


def _accounts(accounts: Sequence[AccountRow], names: Mapping[str, str], deals: Sequence[Deal]) -> Table:
    paid: dict[str, int] = defaultdict(int)
    earned: dict[str, int] = defaultdict(int)
    for deal in deals:
        if deal.paid:
            paid[deal.buyer] += deal.price or 0
            earned[deal.seller] += (deal.price or 0) - deal.fee
    rows = tuple(
        (
            names[account.peer], credits(account.balance), credits(account.held) if account.held else "",
            credits(paid[names[account.peer]]), credits(earned[names[account.peer]]),
        )
        for account in accounts[:MAX_ACCOUNTS]
    )  # fmt: skip
    columns = ("account", "balance", "held", "paid", "earned")
    note = left_out(len(accounts), len(rows), "accounts", "the richest")
    return Table("Accounts", columns, rows, frozenset(columns[1:]), note, "No agent has an account yet.")


def _problems(warnings: Sequence[str], problems: Sequence[str]) -> Words:
    if not warnings:
        return Words(("Nothing: every balance follows from the log, leaf by leaf.",), "good")
    more = [f"And {many(len(problems) - 3, 'problem')} more; `p2pmarket ledger audit` tells all."]
    return Words((*warnings, *(more if len(problems) > 3 else [])), "bad")
