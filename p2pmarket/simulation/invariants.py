"""What must hold once a market is at rest, whatever went wrong before: money, trades, books and mail agree.

Knows: the broker's ledger file, the agents' journals, what an honest market owes them. Refuses to know: what happened.
Nothing raises for a market that is wrong: what is wrong is a list of sentences, empty when all is well. The balances
are added up here from the trades alone, apart from the ledger's own fold and audit, which are asked too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import verify
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.agent_schema import AgentTrade
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.leaves import Ended, Refunded, Settled, unpack
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.ledger.trade import DELIVERED, ENDS, LAPSED, PAID, REFUNDED
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import GainReport
from p2pmarket.wire import Kind


class MailOrder:
    """Notes mail that reaches the network out of turn; give `hear` to a Trace."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._last: defaultdict[tuple[str, str], int] = defaultdict(int)

    def hear(self, sender: str, receiver: str, kind: Kind, number: int, of: str) -> None:
        """One frame."""
        if kind is not Kind.MAIL:
            return
        last = self._last[sender, receiver]
        if number > last + 1:
            self.problems.append(f"mail {number} to {receiver} was sent before mail {last + 1}")
        self._last[sender, receiver] = max(last, number)


def problems_at_rest(folder: Path, agents: Iterable[str], opening: int) -> list[str]:
    """What is wrong with a market that has stopped.

    :param folder: of the market: one folder for each party by its name
    :param opening: micro-credits that every account was opened with
    """
    return [*_problems(folder, tuple(agents), opening)]


def _problems(folder: Path, agents: tuple[str, ...], opening: int) -> Iterator[str]:
    broker = Identity.load(folder / "broker" / "identity.key")
    with Ledger.open(folder / "broker" / "ledger.sqlite", broker, None, check=False) as ledger:
        yield from ledger.verify().problems
        rows = {row.trade: row for row in ledger.trades()}
        balances = Counter({account.peer: account.balance for account in ledger.accounts()})
        held = {account.peer: account.held for account in ledger.accounts() if account.held}
        with ledger.transaction() as connection:
            leaves = [unpack(data) for (data,) in connection.execute("SELECT data FROM leaves ORDER BY number")]
            mailboxes = dict(connection.execute("SELECT peer, last FROM mailboxes"))
            waiting = dict(connection.execute("SELECT peer, count(*) FROM mail GROUP BY peer"))
    peers = {Identity.load(folder / name / "identity.key").peer_id: name for name in agents}
    yield from _money(rows.values(), balances, held, broker.peer_id, {peer: opening for peer in peers})
    yield from _ends(rows, leaves)
    for peer, name in peers.items():
        with AgentJournal.open(folder / name / "journal.sqlite", peer) as journal:
            for sentence in _journal(journal, peer, broker.peer_id, rows):
                yield f"{name}: {sentence}"
            if journal.last_mail(broker.peer_id) != mailboxes.get(peer, 0) or waiting.get(peer, 0):
                yield f"{name}: its mail did not arrive or is not known to have arrived"


def _money(
    rows: Iterable[TradeRow],
    balances: Counter[str],
    held: Mapping[str, int],
    broker: str,
    opening: Mapping[str, int],
) -> Iterator[str]:
    """Every balance is what was opened and paid; nothing is held for what has ended."""
    expected = Counter(opening)
    for row in rows:
        if row.state in PAID:
            expected[row.buyer] -= row.price
            expected[row.seller] += row.price - row.fee
            expected[broker] += row.fee
    if +expected != +balances:
        yield f"the balances are {dict(balances)} and the trades make them {dict(expected)}"
    if sum(balances.values()) != sum(opening.values()):
        yield f"{sum(opening.values())} micro-credits were issued and {sum(balances.values())} are there"
    if held:
        yield f"every trade has ended and {dict(held)} is still held"


def _ends(rows: Mapping[bytes, TradeRow], leaves: Iterable[object]) -> Iterator[str]:
    """Every trade has ended, once; it was paid exactly where it says so."""
    settled = Counter(leaf.trade for leaf in leaves if isinstance(leaf, Settled))
    ended = Counter(leaf.trade for leaf in leaves if isinstance(leaf, (Ended, Refunded)))
    for trade, row in rows.items():
        name = f"trade {trade.hex()[:8]} ({row.state})"
        if row.state not in ENDS:
            yield f"{name} has not ended"
        if ended[trade] != 1:
            yield f"{name} has {ended[trade]} terminal events"
        if settled[trade] != (row.state in PAID or row.state == REFUNDED):
            yield f"{name} was paid {settled[trade]} times"
        if (row.receipt is not None) != bool(settled[trade]):
            yield f"{name} and its receipt disagree"
    for trade in (settled.keys() | ended.keys()) - rows.keys():
        yield f"trade {trade.hex()[:8]} is in the log alone"


def _journal(journal: AgentJournal, peer: str, broker: str, rows: Mapping[bytes, TradeRow]) -> Iterator[str]:
    """An agent's own book against the broker's."""
    if journal.distrusted():
        yield f"it distrusts an honest broker: {journal.distrusted()[broker]}"
    if journal.is_lost(broker):
        yield "it believes that the broker lost data"
    if journal.unanswered(broker):
        yield f"{len(journal.unanswered(broker))} messages have no answer"
    known = {row.trade: row for row in journal.trades()}
    for trade, row in rows.items():
        if peer not in (row.buyer, row.seller):
            continue
        name = f"trade {trade.hex()[:8]} ({row.state})"
        mine = known.get(trade)
        if row.receipt is not None and (mine is None or mine.receipt != row.receipt):
            yield f"{name} was paid and its receipt is not here"
        elif mine is not None:
            yield from (f"{name}: {sentence}" for sentence in own_trade_problems(mine, row, broker))
    for trade in known.keys() - rows.keys():
        yield f"trade {trade.hex()[:8]} is in the journal alone"


def own_trade_problems(mine: AgentTrade, row: TradeRow, broker: str) -> Iterator[str]:
    """One trade as an agent has it, against the ledger."""
    if mine.receipt is None:
        if row.receipt is not None:
            yield "it was paid, and not here"
        if mine.stage == "bid":
            yield "a bid has no end here"
        return
    receipt = verify_receipt(mine.receipt, broker)
    if (receipt.price, receipt.fee) != (row.price, row.fee):
        yield "the receipt names another price"
    if mine.refunded_ms and row.state != REFUNDED:
        yield "it counts as refunded here"
    if row.state == REFUNDED and not mine.refunded_ms:
        yield "its refund is not known here"
    if mine.role != "buyer":
        return
    if mine.reason == "lost-delivery" and row.state != REFUNDED:
        yield "the broker lost its delivery and kept the price"
    if mine.report is None or verify(mine.report, GainReport, signer=broker).delivery != receipt.delivery:
        yield "what was bought is not what was reported"
    if mine.stage == "bought":
        yield "it was paid and never fetched, and is still waited for"
    if row.state == DELIVERED and mine.fetched_ms is None:
        yield "the ledger calls it delivered and it is not here"
    if mine.fetched_ms is not None and row.state not in (DELIVERED, LAPSED):
        yield "it is here and was not paid for"
