"""An agent's state folder as a story: its own side of its trades, also while the agent runs.

Knows: what the journal's rows mean. Refuses to know: balances (a broker holds them), how pages look. Reads alone.
A journal that cannot be read raises what opening it raises: IdentityError, JournalDamaged, MachineFault.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from p2pmarket.crypto.keys import Identity
from p2pmarket.ledger.agent_book import distrust_sentence
from p2pmarket.ledger.agent_journal import UNMATCHED, AgentJournal, AgentTrade
from p2pmarket.report import deal_charts
from p2pmarket.report.deals import Deal, endings_table, largest_table, who_with_whom
from p2pmarket.report.from_ledger import ask_of, with_report
from p2pmarket.report.story import Chart, Line, Section, Story, Table, Tile, Words
from p2pmarket.report.words import (
    MAX_SENTENCE,
    credits,
    left_out,
    listed,
    many,
    moment,
    number,
    short_name,
    short_names,
    shown,
)
from p2pmarket.units import CREDIT

FILE = "journal.sqlite"
MAX_PARTNERS = 100
MAX_STEPS = 300


def story_of_journal(folder: Path) -> Story:
    """The page of an agent's folder.

    :raises IdentityError, SettingsError, JournalDamaged, MachineFault: it cannot be read
    """
    identity = Identity.load(folder / "identity.key")
    with AgentJournal.open(folder / FILE, identity.peer_id) as journal:
        trades, distrusted = journal.trades(), journal.distrusted()
    trades.reverse()
    me = identity.peer_id
    names = short_names([row.partner for row in trades if row.partner], {me: "this agent", "": "unknown"})
    deals = [_deal(row, names[me], names[row.partner]) for row in trades]
    purchases = [row for row, deal in zip(trades, deals, strict=True) if row.role == "buyer" and deal.paid]
    sales = [row for row, deal in zip(trades, deals, strict=True) if row.role == "seller" and deal.paid]
    spent, earned = sum(row.price for row in purchases), sum(row.price - row.fee for row in sales)
    waiting = [row for row in purchases if row.stage in ("bought", "fetched")]
    warnings = tuple(
        f"{shown(distrust_sentence(broker, reason), MAX_SENTENCE)}." for broker, reason in distrusted.items()
    )
    tiles = (
        Tile("bought", f"{len(purchases):,}", f"{credits(spent)} credits paid"),
        Tile("sold", f"{len(sales):,}", f"{credits(earned)} credits earned, fees paid"),
        Tile("earned less paid", credits(earned - spent), "credits", "good" if earned >= spent else "plain"),
        Tile("offers appraised", f"{sum(row.role == 'buyer' for row in trades):,}", "for this agent"),
    )
    buying = [deal for deal, row in zip(deals, trades, strict=True) if row.role == "buyer"]
    told = deal_charts.promised_falls(
        deal_charts.next_losses(buying),
        "One dot for each visit with a purchase: the gain that was promised, against how far this agent's loss had "
        "fallen at its next visit, its own training included.",
    )
    times = {deal.at: moment(deal.at * 1000) for deal in deals}
    sections = (
        *_if(buying, Section("learning", "Learning", (_losses(buying), told), "As the broker measured it.")),
        *_if(
            deals, Section("prices", "Prices", (deal_charts.prices(deals, "time"), deal_charts.gains(buying, "time")))
        ),
        *_if(deals, Section("money", "Money", (_money(trades), deal_charts.endings(deals, "time")))),
        *_if(deals, Section("partners", "Partners", (*who_with_whom(deals), _partners(trades, deals)))),
        Section(
            "trades",
            "Trades",
            (endings_table(deals), largest_table(deals, "time, UTC", times))
            if deals
            else (Words(("This agent has not bought or sold anything yet, nor was it told of anything to buy.",)),),
        ),
        Section("problems", "What went wrong", (_problems(warnings, waiting),)),
    )
    about = f"{many(len(purchases), 'purchase')} for {credits(spent)} credits, {many(len(sales), 'sale')} for "
    about += f"{credits(earned)}; {many(len(trades), 'trade')} in the journal"
    begun = f", the first on {moment(trades[0].noted_ms)[:10]}" if trades else ""
    headline = f"{about}{begun}." if trades else "No trades yet: the journal is empty."
    return Story(
        "Report of an agent",
        f"{shown(folder.resolve().name)} (agent {short_name(me)})",
        headline,
        tiles,
        sections,
        warnings,
    )


def _if(deals: Sequence[Deal], section: Section) -> tuple[Section, ...]:
    """A section where there is something for it to tell of."""
    return (section,) if deals else ()


def _deal(row: AgentTrade, me: str, partner: str) -> Deal:
    """A row of the journal, in the words of the ledger."""
    buys = row.role == "buyer"
    deal = Deal(
        at=row.noted_ms / 1000,
        trade=row.trade.hex(),
        buyer=me if buys else partner,
        seller=partner if buys else me,
        task="",
        state=_state(row),
        reason=row.reason,
        gain=row.gain,
        bid=row.bid_amount if row.bid else None,
        ask=ask_of(row.ask),
        price=row.price if row.receipt else None,
        fee=row.fee if row.receipt else 0,
    )
    return with_report(deal, row.report)


def _state(row: AgentTrade) -> str:
    if row.receipt is not None:
        return "refunded" if row.refunded_ms is not None else "settled"
    if not row.reason:
        return "appraised"
    return row.reason if row.reason in (UNMATCHED, "declined", "expired") else "no-deal"


def _losses(deals: Sequence[Deal]) -> Chart:
    """The buyer's own loss at each visit, a line for each task."""
    lines: dict[str, dict[float, float]] = defaultdict(dict)
    for deal in deals:
        if deal.loss_before is not None:
            lines[deal.task][deal.at] = deal.loss_before
    marks = []
    for place, (task, found) in enumerate(sorted(lines.items())[:8]):
        points = deal_charts.every(sorted(found.items()), MAX_STEPS)
        marks.append(Line(shown(task) or "loss", tuple(x for x, _ in points), tuple(y for _, y in points), place))
    caption = "Loss of this agent's parameters as it submitted them, on the broker's validation data."
    return Chart("Loss at each visit", caption, "time, UTC", "loss", tuple(marks), x_axis="time")


def _money(trades: Sequence[AgentTrade]) -> Chart:
    """Paid, earned and the difference, summed up over time."""
    moves = sorted(
        [(row.settled_ms or row.noted_ms, row.role, row.price - (row.fee if row.role == "seller" else 0))
         for row in trades if row.receipt is not None and row.refunded_ms is None]
    )  # fmt: skip
    paid = earned = 0
    steps = []
    for at_ms, role, amount in moves:
        paid, earned = paid + (role == "buyer") * amount, earned + (role == "seller") * amount
        steps.append((at_ms / 1000, paid / CREDIT, earned / CREDIT, (earned - paid) / CREDIT))
    kept = steps[:: max(1, -(-len(steps) // MAX_STEPS))]
    kept += steps[-1:] if kept and kept[-1] != steps[-1] else []
    x = tuple(step[0] for step in kept)
    lines = tuple(
        Line(label, x, tuple(step[column] for step in kept), color)
        for label, column, color in (("paid", 1, 1), ("earned, less fees", 2, 2), ("earned less paid", 3, 0))
    )
    caption = "Summed up since the first trade; what was paid back counts on neither side."
    return Chart("Paid and earned", caption, "time, UTC", "credits", lines, x_axis="time")


def _partners(trades: Sequence[AgentTrade], deals: Sequence[Deal]) -> Table:
    names = short_names([row.partner for row in trades if row.partner], {"": "unknown"})
    sides: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0, 0.0])
    for row, deal in zip(trades, deals, strict=True):
        if deal.paid:
            side = sides[row.partner]
            place = 0 if row.role == "buyer" else 2
            side[place] += 1
            side[place + 1] += row.price if row.role == "buyer" else row.price - row.fee
            side[4] += (deal.gain or 0.0) if row.role == "buyer" else 0.0
    order = sorted(sides, key=lambda partner: -(sides[partner][1] + sides[partner][3]))
    rows = tuple(
        (
            names[partner], f"{sides[partner][0]:,.0f}", credits(sides[partner][1]), number(sides[partner][4]),
            f"{sides[partner][2]:,.0f}", credits(sides[partner][3]),
        )
        for partner in order[:MAX_PARTNERS]
    )  # fmt: skip
    columns = ("partner", "bought", "paid", "gain", "sold", "earned")
    note = left_out(len(order), len(rows), "partners", "those with the most credits")
    return Table("Partners", columns, rows, frozenset(columns[1:]), note, "Nothing was bought or sold.")


def _problems(warnings: Sequence[str], waiting: Sequence[AgentTrade]) -> Words:
    sentences = list(warnings)
    if waiting:
        paid = many(len(waiting), "purchase")
        stages = listed(sorted({row.stage for row in waiting}))
        sentences.append(f"{paid} paid for and not in the model yet ({stages}); a running agent fetches what is left.")
    if not warnings:
        sentences.insert(0, "No broker contradicted itself or this agent.")
    return Words(tuple(sentences), "bad" if warnings else "good")
