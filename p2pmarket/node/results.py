"""What `trade` returns: frozen records that say in numbers and words what happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from p2pmarket.messages import GainReport, Receipt
from p2pmarket.units import format_credits


@dataclasses.dataclass(frozen=True)
class Purchase:
    """Parameters that were bought, verified and (for a model) loaded in place."""

    trade: bytes
    seller: str
    price: int
    """Micro-credits paid."""
    report: GainReport | None
    """The report it was bought on; None for a delivery that was still owed from before a restart."""
    receipt: Receipt
    parameters: Mapping[str, Tensor]
    """The merged tensors that were loaded, by name."""

    def __str__(self) -> str:
        text = f"bought from {self.seller[-6:]} for {format_credits(self.price)}"
        if self.report is None:
            return text
        gain, merit = self.report.gain, self.report.merit
        return f"{text}: gain {gain:.3g} ({self.report.relative_gain:.0%} of the loss), {merit:.3g} of it the seller's"


@dataclasses.dataclass(frozen=True)
class Sale:
    """Parameters of this agent that were bought by another."""

    trade: bytes
    price: int
    """Micro-credits the buyer paid."""
    fee: int
    """The broker's part of them."""


@dataclasses.dataclass(frozen=True)
class Repaid:
    """A trade of this agent that could not be delivered: the buyer has the price back."""

    trade: bytes
    bought: bool
    """Whether this agent was the buyer; else it was the seller."""
    amount: int
    """Micro-credits that came back to the buyer, or went back from the seller."""
    reason: str
    """Code: lost-delivery, not-fetched."""

    def __str__(self) -> str:
        whose = "got back" if self.bought else "gave back"
        return f"{whose} {format_credits(self.amount)} ({self.reason})"


@dataclasses.dataclass(frozen=True)
class TradeResult:
    """One visit to the market."""

    bought: tuple[Purchase, ...] = ()
    sold: tuple[Sale, ...] = ()
    """Sales that became known since the last visit."""
    repaid: tuple[Repaid, ...] = ()
    """Refunds that became known since the last visit."""
    reports: tuple[GainReport, ...] = ()
    """What the broker offered, best gain first, those upon another purchase last."""
    balance: int = 0
    """Micro-credits after this visit."""
    round: int = 0
    note: str = ""
    """Why nothing was bought, in words."""
    problem: str = ""
    """Empty, or what kept this visit from being completed; training goes on, the next visit takes up what is open."""

    def __str__(self) -> str:
        parts = [str(purchase) for purchase in self.bought]
        parts += [f"sold for {format_credits(sale.price)}" for sale in self.sold]
        parts += [str(refund) for refund in self.repaid]
        if self.problem:
            parts.append(self.problem)
        elif not self.bought:
            parts.append(self.note or "bought nothing")
        return f"{'; '.join(parts)}; balance {format_credits(self.balance)}"
