"""What a demonstration leaves behind, from events that a test makes up."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys

import pytest
from rich.console import Console

from p2pmarket.cli import demo
from p2pmarket.cli.demo_report import AgentCurve, Outcome, results_table, write_report
from p2pmarket.errors import DiskFull, MachineFault
from p2pmarket.units import CREDIT

TRADE = {"trade": "ab", "buyer": "a-id", "seller": "b-id", "price": 2_500_000, "fee": 20_000, "state": "delivered"}
DECLINED = {**TRADE, "trade": "cd", "price": None, "fee": None, "state": "declined"}


def curve_of(name: str, *events: dict) -> AgentCurve:
    curve = AgentCurve(name, f"{name.lower()}-id")
    for epoch, event in enumerate(events, 1):
        curve.add({"epoch": epoch, "score": 50.0 + epoch, "alone": 40.0 + epoch, **event})
    return curve


@pytest.fixture
def outcome() -> Outcome:
    buyer = curve_of("A", {}, {"bought": [{"price": 2_500_000}], "sold": []})
    seller = curve_of("B", {}, {"bought": [], "sold": [{"price": 2_500_000, "fee": 20_000}]})
    return Outcome(
        about="made up",
        curves=(buyer, seller),
        trades=(TRADE, DECLINED),
        balances={"a-id": 97_500_000, "b-id": 102_480_000, "broker-id": 20_000},
        broker="broker-id",
        ledger_verified=True,
        problems=(),
        seconds=12.34,
    )


def test_a_curve_adds_up_what_an_agent_tells(outcome):
    buyer, seller = outcome.curves
    assert (buyer.paid, buyer.earned, buyer.purchases) == (2_500_000, 0, [2])
    assert (seller.paid, seller.earned, seller.purchases) == (0, 2_480_000, [])


def test_the_summary_is_as_scripts_expect_it(outcome):
    assert outcome.summary() == {
        "agents": {"A": {"alone": 42.0, "market": 52.0}, "B": {"alone": 42.0, "market": 52.0}},
        "trades": 1,
        "settled": 2_500_000,
        "ledger_verified": True,
        "seconds": 12.3,
    }


def test_the_conclusion_says_what_moved_and_whether_the_ledger_holds(outcome):
    assert outcome.conclusion == "1 trades settled, 2.50 credits moved, 0.02 of them fees; the ledger verifies; 12 s"
    wrong = dataclasses.replace(outcome, ledger_verified=False, problems=("leaf 3 is altered",))
    assert "THE LEDGER DOES NOT VERIFY: leaf 3 is altered" in wrong.conclusion


def test_the_table_has_a_row_an_agent(outcome):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(results_table(outcome))
    text = console.export_text()
    assert "52.00" in text
    assert "+10.00" in text
    assert f"{97_500_000 / CREDIT:.2f}" in text


def test_the_folder_has_a_plot_the_trades_and_the_curves(outcome, tmp_path):
    folder = write_report(tmp_path / "new" / "report", outcome)
    with (folder / "trades.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["delivered", "declined"]
    with (folder / "curves.csv").open() as file:
        assert [row["market"] for row in csv.DictReader(file)] == ["51.0", "52.0", "51.0", "52.0"]
    assert json.loads((folder / "summary.json").read_text())["trades"] == 1
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_plot(outcome, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    folder = write_report(tmp_path, outcome)
    assert {path.name for path in folder.iterdir()} == {"curves.csv", "summary.json", "trades.csv"}


def test_without_matplotlib_there_is_no_page_and_no_old_one(tmp_path, monkeypatch):
    told = Console(width=200, record=True, file=io.StringIO())
    (tmp_path / "report.html").write_text("of an earlier demonstration")

    def fail(*_):
        raise MachineFault("charts need matplotlib: pip install 'p2pmarket[demo]'")

    monkeypatch.setattr(demo, "write_report_page", fail)
    assert demo._page(tmp_path, tmp_path, told) is None
    assert told.export_text() == "no page: charts need matplotlib: pip install 'p2pmarket[demo]'\n"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_missing_page(tmp_path, monkeypatch):
    def fail(*_):
        raise DiskFull("no space for the report")

    monkeypatch.setattr(demo, "write_report_page", fail)
    with pytest.raises(DiskFull, match="no space"):
        demo._page(tmp_path, tmp_path, Console(file=io.StringIO()))


def test_a_place_that_cannot_be_written_is_said(outcome, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineFault, match="cannot write the report"):
        write_report(tmp_path / "file", outcome)
