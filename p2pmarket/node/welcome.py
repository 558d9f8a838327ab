"""What a broker's Welcome said of its market, verified.

Knows: terms, models, validation data, keys, the balance last heard. Refuses to know: sessions (link), and whether the
broker's log is what it was (witness). A part that is not the broker's raises the PeerFault that says so.
"""

from __future__ import annotations

from p2pmarket.crypto.keyring import verify_statement
from p2pmarket.crypto.signing import verify
from p2pmarket.errors import MalformedMessage, ModelError
from p2pmarket.market import MarketTerms
from p2pmarket.messages import KeyStatement, Welcome
from p2pmarket.parcel import Schema


class Joined:
    """What a broker's Welcome said, verified."""

    def __init__(self, welcome: Welcome, broker: str, now_ms: int) -> None:
        """:raises PeerFault: a part that is not the broker's, or keys that ran out"""
        self.broker = broker
        self.terms: MarketTerms = verify(welcome.terms, MarketTerms, signer=broker)
        self._schemas = self._schemas_of_tasks(welcome)
        self.data: dict[str, bytes] = dict(zip(self._schemas, welcome.data_of_task, strict=False))
        """Task -> digest of the broker's validation data: what its reports must name."""
        self.keys: KeyStatement = verify_statement(welcome.keys, peer=broker, now_ms=now_ms)
        self.balance = welcome.balance
        """Micro-credits on the agent's account, as last heard."""
        self._balance_ms = welcome.broker_ms
        self.ahead_ms = welcome.broker_ms - now_ms
        """How far the broker's clock is ahead of ours, travel time included."""

    def schema(self, task: str) -> Schema:
        """Names, shapes and types of a snapshot's tensors.

        :raises ModelError: the market has no such task
        """
        if task not in self._schemas:
            raise ModelError(f"this market has no task {task!r}; it has {', '.join(self._schemas)}")
        return self._schemas[task]

    def _schemas_of_tasks(self, welcome: Welcome) -> dict[str, Schema]:
        schemas = [verify(data, Schema, signer=self.broker) for data in welcome.schemas]
        names = [task.name for task in self.terms.tasks]
        indices = welcome.schema_of_task
        if not len(names) == len(indices) == len(welcome.data_of_task) or max(indices) >= len(schemas):
            raise MalformedMessage("the broker's welcome does not say which model each of its tasks has")
        return {name: schemas[index] for name, index in zip(names, indices, strict=True)}

    def note_balance(self, balance: int, settled_ms: int) -> None:
        """Takes the balance that a settlement left, by the broker's clock; one that is told late is passed over."""
        if settled_ms >= self._balance_ms:
            self.balance, self._balance_ms = balance, settled_ms
