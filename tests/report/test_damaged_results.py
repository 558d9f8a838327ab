"""Folders that are damaged, or made to harm: one sentence says so, and nothing waits, grows or is believed."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from results_examples import made_up_run, write_runs

from p2pmarket.errors import DataError
from p2pmarket.experiments import reading
from p2pmarket.experiments.results import RunResult, read_all, read_facts
from p2pmarket.report.deals import Deal, who_with_whom
from p2pmarket.report.find import story_of
from p2pmarket.report.page import write_page
from p2pmarket.report.pictures import MAX_PICTURE_BYTES, pictures_in
from p2pmarket.report.story import Heat

PNG = b"\x89PNG\r\n\x1a\nrest"
RUN = made_up_run(rounds=2)
SENTENCE = r"^the results in .*000-market-seed1 cannot be read \(.{1,320}\); remove that folder and run again$"


def written(folder: Path, run: RunResult = RUN) -> Path:
    """The run's own folder in a new folder of results."""
    return write_runs(folder, [run]) / "runs" / str(run.facts["run"])


def changed(**facts: Any) -> str:
    return json.dumps({**RUN.facts, **facts})


def without(*path: str) -> str:
    facts = json.loads(json.dumps(RUN.facts))
    inside = facts
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    return json.dumps(facts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '"x"',
        "3",
        "null",
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 10_000,
        changed(traffic_bytes=10**400),
        changed(ledger={**RUN.facts["ledger"], "moved": 2**63}),
        changed(ledger=None),
        changed(ledger={"verified": "yes"}),
        changed(ledger={"problems": "none"}),
        changed(agents=["A", "B"]),
        changed(agents={"A": 3}),
        changed(final={"A": {"loss": "low", "metric": 1.0, "balance": 0}}),
        changed(final={"A": {"loss": 1.0, "metric": 1.0}}),
        changed(seed=True),
        changed(method=["market"]),
        changed(settings=3),
        changed(scenario={"name": 1}),
        without("agents"),
        without("ledger"),
        without("final"),
        without("digest"),
        without("traffic_bytes"),
        "\udcff" * 3,
    ],
)
def test_facts_that_cannot_be_counted_on(text: str, tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "run.json").write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=SENTENCE):
        story_of(tmp_path)
    with pytest.raises(DataError, match=r"^.*run\.json cannot be read \(.{1,320}\); remove its folder and run again$"):
        read_facts(tmp_path)


def test_facts_that_may_be_otherwise(tmp_path: Path) -> None:
    """The control: without a broker, without traffic, diverged, and told by a newer program."""
    final = {"A": {"loss": float("nan"), "metric": float("inf"), "balance": 0}}
    facts = {**RUN.facts, "ledger": {}, "traffic_bytes": None, "messages": None, "broker": "", "final": final, "new": 1}
    written(tmp_path, dataclasses.replace(RUN, facts=facts))
    (run,) = read_all(tmp_path)
    assert run.facts["new"] == 1 and run.rounds == RUN.rounds and run.trades == RUN.trades
    assert len(read_facts(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "column", "cell"),
    [
        ("rounds.csv", "agent", "x" * 131_073),
        ("rounds.csv", "balance", str(10**400)),
        ("rounds.csv", "round", str(-(10**30))),
        ("rounds.csv", "round", "1.5"),
        ("rounds.csv", "loss", "low"),
        ("trades.csv", "price", str(10**400)),
        ("trades.csv", "fee", str(2**63)),
        ("trades.csv", "weight", "1" * 5000 + "x"),
    ],
)
def test_rows_that_cannot_be_counted_on(file: str, column: str, cell: str, tmp_path: Path) -> None:
    path = written(tmp_path) / file
    with path.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    rows[-1][column] = cell
    with path.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError, match=SENTENCE):
        story_of(tmp_path)


@pytest.mark.parametrize("tail", [b"000-market-seed1,market,1\n", b"\x00\n", b"\xff\n", b'"open'])
def test_rows_that_break_off(tail: bytes, tmp_path: Path) -> None:
    path = written(tmp_path) / "rounds.csv"
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(DataError, match=SENTENCE):
        story_of(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "rounds.csv", "trades.csv"])
def test_files_are_bounded_and_never_waited_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path)
    size = (folder / name).stat().st_size
    bound = "MAX_DOCUMENT_BYTES" if name == "run.json" else "MAX_ROWS_BYTES"
    for most, fits in ((size, True), (size - 1, False)):
        with monkeypatch.context() as patched:
            patched.setattr(reading, bound, most)
            for other in {"MAX_DOCUMENT_BYTES", "MAX_ROWS_BYTES"} - {bound}:
                patched.setattr(reading, other, 10**9)
            if fits and name == "run.json":
                assert len(read_facts(tmp_path)) == 1
            if not fits:
                with pytest.raises(DataError, match=f"{name} is no regular file of at most"):
                    read_all(tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match=f"{name} is no regular file"):
        story_of(tmp_path)


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"rows": 3}', '{"rows": [{"measured": 1' + "0" * 400 + "}]}"])
def test_a_papers_rows_that_cannot_be_read_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(DataError, match=r"rows\.json cannot be read .*; run `p2pmarket paper` again"):
        story_of(tmp_path)


def test_plots_are_regular_files_of_a_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(PNG + bytes(MAX_PICTURE_BYTES))
    (tmp_path / "good.png").write_bytes(PNG)
    (tmp_path / "link.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    kept, hidden = pictures_in(tmp_path)
    assert (list(kept), hidden) == (["good"], 2)


def test_thousands_of_agents_are_a_picture_of_the_largest() -> None:
    """25 million cells would take gigabytes."""
    names = [f"a{place:04d}" for place in range(5000)]
    deals = [
        Deal(1.0, f"{place}", name, names[place - 1], "t", "delivered", price=1_000_000 * (place + 1))
        for place, name in enumerate(names)
    ]
    heat, pairs = who_with_whom(deals, names)
    assert isinstance(heat, Heat) and (len(heat.cells), {len(row) for row in heat.cells}) == (201, {201})
    assert heat.caption.endswith("The last row and column are the 4,800 smallest traders together.")
    assert "5,000 pairs traded" in heat.caption and "5,000 agents" in heat.caption
    assert heat.cells[-1][-1] == 1.0 and sum(cell > 0 for cell in heat.cells[-1]) == 2, "with themselves, and one more"
    assert len(pairs.rows) == 15  # type: ignore[union-attr]


def test_numbers_beyond_any_axis_are_drawn_around(tmp_path: Path) -> None:
    rows = tuple(
        dataclasses.replace(row, loss=[1.0, 1e308, -1e308][row.round], metric=[1.0, 1e308, -1e308][row.round])
        for row in RUN.rounds
    )
    trades = tuple(dataclasses.replace(row, gain=1e308, loss_before=1e308) for row in RUN.trades)
    run = dataclasses.replace(RUN, rounds=rows, trades=trades, facts=_settings(RUN.facts))
    written(tmp_path, run)
    story = story_of(tmp_path)
    assert "mean loss unknown, as all DIVERGED" in story.headline
    assert "2 of 2 agents diverged" in story.warnings[0]
    assert write_page(story, "")


def _settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {**facts, "settings": {"a.b": 1e308, "a.c": float("nan")}, "wall_seconds": 1e300}
