"""What a demonstration leaves behind: a table, one JSON object, a plot and the trades as CSV."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from p2pmarket.events import Event
from p2pmarket.files import disk_errors, write_whole
from p2pmarket.units import CREDIT, format_credits


@dataclasses.dataclass
class AgentCurve:
    """One agent's accuracy after each epoch, in and out of the market."""

    name: str
    peer_id: str
    market: list[float] = dataclasses.field(default_factory=list)
    alone: list[float] = dataclasses.field(default_factory=list)
    purchases: list[int] = dataclasses.field(default_factory=list)
    """Epochs after which something was bought."""
    paid: int = 0
    earned: int = 0

    def add(self, event: Event) -> None:
        """Takes in one `round` event of the agent."""
        self.market.append(event["score"])
        self.alone.append(event["alone"])
        if event.get("bought"):
            self.purchases.append(event["epoch"])
        self.paid += sum(purchase["price"] for purchase in event.get("bought", ()))
        self.earned += sum(sale["price"] - sale["fee"] for sale in event.get("sold", ()))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Everything a demonstration found out."""

    about: str
    curves: tuple[AgentCurve, ...]
    trades: tuple[Mapping[str, Any], ...]
    """Rows of the broker's ledger."""
    balances: Mapping[str, int]
    broker: str
    ledger_verified: bool
    problems: tuple[str, ...]
    seconds: float

    @property
    def settled(self) -> list[Mapping[str, Any]]:
        """Trades in which money moved."""
        return [trade for trade in self.trades if trade["price"] is not None]

    @property
    def conclusion(self) -> str:
        """The outcome in a sentence or two."""
        moved = sum(trade["price"] for trade in self.settled) / CREDIT
        ledger = "the ledger verifies" if self.ledger_verified else f"THE LEDGER DOES NOT VERIFY: {self.problems[0]}"
        return (
            f"{len(self.settled)} trades settled, {moved:.2f} credits moved, "
            f"{self.balances.get(self.broker, 0) / CREDIT:.2f} of them fees; {ledger}; {self.seconds:.0f} s"
        )

    def summary(self) -> dict[str, Any]:
        """The outcome for scripts: accuracies in percent, money in micro-credits."""
        return {
            "agents": {
                curve.name: {"alone": round(curve.alone[-1], 2), "market": round(curve.market[-1], 2)}
                for curve in self.curves
            },
            "trades": len(self.settled),
            "settled": sum(trade["price"] for trade in self.settled),
            "ledger_verified": self.ledger_verified,
            "seconds": round(self.seconds, 1),
        }


def results_table(outcome: Outcome) -> Table:
    """Each agent out of the market and in it."""
    table = Table(title="test accuracy, out of the market and in it", title_justify="left")
    for heading in ("agent", "alone %", "market %", "change", "bought", "paid", "earned", "balance"):
        table.add_column(heading, justify="left" if heading == "agent" else "right")
    for curve in outcome.curves:
        table.add_row(
            curve.name,
            f"{curve.alone[-1]:.2f}",
            f"{curve.market[-1]:.2f}",
            f"{curve.market[-1] - curve.alone[-1]:+.2f}",
            str(len(curve.purchases)),
            f"{curve.paid / CREDIT:.2f}",
            f"{curve.earned / CREDIT:.2f}",
            f"{outcome.balances.get(curve.peer_id, 0) / CREDIT:.2f}",
        )
    return table


def write_report(folder: Path, outcome: Outcome) -> Path:
    """Writes summary.json, trades.csv, curves.csv and (with matplotlib) curves.png.

    :raises DiskFull, MachineFault: the folder cannot be written
    """
    with disk_errors("the report", folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_csv(folder / "trades.csv", [_in_credits(trade) for trade in outcome.trades])
        _write_csv(
            folder / "curves.csv",
            [
                {"agent": curve.name, "epoch": epoch, "market": market, "alone": alone}
                for curve in outcome.curves
                for epoch, (market, alone) in enumerate(zip(curve.market, curve.alone, strict=True), 1)
            ],
        )
    summary = {**outcome.summary(), "about": outcome.about, "conclusion": outcome.conclusion}
    write_whole(folder / "summary.json", json.dumps(summary, indent=2).encode() + b"\n", "the report")
    _plot(folder / "curves.png", outcome)
    return folder


def _in_credits(trade: Mapping[str, Any]) -> dict[str, Any]:
    amounts = {name: trade[name] for name in ("price", "fee") if trade[name] is not None}
    return {**trade, **{name: format_credits(micro) for name, micro in amounts.items()}}


def _write_csv(path: Path, rows: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        if rows:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _plot(path: Path, outcome: Outcome) -> None:
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return
    figure, axes = pyplot.subplots(1, len(outcome.curves), figsize=(11, 4.2), sharey=True, squeeze=False)
    for axis, curve in zip(axes[0], outcome.curves, strict=True):
        epochs = range(1, len(curve.market) + 1)
        axis.plot(epochs, curve.alone, color="#888888", linestyle="--", label="alone")
        axis.plot(epochs, curve.market, color="#1f6fb2", label="in the market")
        bought = [curve.market[epoch - 1] for epoch in curve.purchases]
        axis.scatter(curve.purchases, bought, color="#d1495b", s=18, zorder=3, label="bought parameters")
        axis.set_title(
            f"agent {curve.name}: paid {curve.paid / CREDIT:.2f}, earned {curve.earned / CREDIT:.2f} credits"
        )
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("test accuracy, %")
    axes[0][0].legend(loc="lower right")
    figure.suptitle(outcome.about, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
