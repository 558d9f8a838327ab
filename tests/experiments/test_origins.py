"""What a run is made with beside its scenario: code and data that changed are told of, and nothing is made anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small import alone

from p2pmarket.errors import DataError
from p2pmarket.experiments import results
from p2pmarket.experiments.document import Document, with_value
from p2pmarket.experiments.origins import Origins, origins_of
from p2pmarket.experiments.plan import plans_of
from p2pmarket.experiments.resuming import tell_origins
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.experiments.sweep import run_sweep
from p2pmarket.experiments.worlds.contract import Place

MINE = "from p2pmarket import Strategy\nclass Careful(Strategy):\n    pass\n"
PLACE = Place()


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module with a strategy of one's own."""
    path = tmp_path / "mine_for_origins.py"
    path.write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop(path.stem, None)


def of_ones_own(**scenario: object) -> Document:
    return with_value(alone(**scenario), "agent.A.strategy", "mine_for_origins:Careful")


def images(**values: object) -> Document:
    return {
        "scenario": {"name": "images", "rounds": 1, "method": "alone"},
        "images": {"data": "cifar10", "model": "mlp", **values},
        "agent": [{"name": "A"}, {"name": "B"}],
    }


def test_runs_of_a_strategy_that_changed_are_told_of(
    mine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    (before,) = run_sweep(of_ones_own(), out, jobs=1)
    assert list(before.facts["code"]) == ["mine_for_origins"] and len(before.facts["code"]["mine_for_origins"]) == 64
    assert before.facts["data"] == ""
    run_sweep(of_ones_own(), out, jobs=1)
    assert caplog.records == [], "nothing changed"
    mine.write_text(MINE + "# more careful\n")
    first, second = run_sweep(of_ones_own(seeds=2), out, jobs=1)
    assert first.facts == before.facts and second.facts["code"] != before.facts["code"]
    (told,) = caplog.messages
    assert told == (
        f"in {out} 1 of the runs, such as 000-alone-seed0, were made with other code or data than are here now "
        "(mine_for_origins changed since); they are kept as they are, and another --out computes them anew"
    )


def test_runs_that_do_not_say_are_not_told_of(mine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    (run,) = run_sweep(of_ones_own(), out, jobs=1)
    file = results.folder_of(out, run.facts["run"]) / results.RUN_FILE
    older = {key: value for key, value in json.loads(file.read_text()).items() if key not in ("code", "data")}
    file.write_text(json.dumps(older))
    mine.write_text(MINE + "# more careful\n")
    run_sweep(of_ones_own(), out, jobs=1)
    assert caplog.records == []
    file.write_text(json.dumps({**older, "code": {"mine_for_origins": 3}}))
    with pytest.raises(DataError, match="code.mine_for_origins is int, no str"):
        run_sweep(of_ones_own(), out, jobs=1)


def test_this_packages_own_code_has_a_version_instead(tmp_path: Path) -> None:
    document = with_value(alone(), "agent.A.strategy", "p2pmarket.experiments.strategies:RatioTrader")
    assert origins_of(parse_scenario(document), PLACE) == Origins({}, "")


def test_a_models_module_is_not_imported_for_it(mine: Path) -> None:
    found = origins_of(parse_scenario(images(model="mine_for_origins:network")), PLACE)
    assert found.code.keys() == {"mine_for_origins"} and found.code["mine_for_origins"]
    assert mine.stem not in sys.modules
    mine.unlink()
    assert origins_of(parse_scenario(images(model="mine_for_origins:network")), PLACE).code == {mine.stem: ""}


def test_data_are_known_by_their_sizes_and_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (plan,) = plans_of(images())
    data = tmp_path / "cifar-10-python.tar.gz"
    assert origins_of(plan.scenario, Place(tmp_path)).data == "", "the data are not there"
    data.write_bytes(bytes(300_000))
    found = origins_of(plan.scenario, Place(tmp_path)).data
    assert found.startswith("1 files, 300000 bytes, ") and found == origins_of(plan.scenario, Place(data)).data
    facts = {"run": plan.name, "code": {}, "data": found}
    tell_origins([(plan, facts)], Place(tmp_path), tmp_path)
    assert caplog.records == []
    data.write_bytes(bytes(299_999) + b"1")
    tell_origins([(plan, facts)], Place(tmp_path), tmp_path)
    assert "than are here now (the data changed since)" in caplog.text
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in (("data_batch_1", b"one"), ("data_batch_2", b"two")):
        (folder / name).write_bytes(content)
    whole = origins_of(plan.scenario, Place(folder)).data
    assert whole.startswith("2 files, 6 bytes, ")
    (folder / "data_batch_2").write_bytes(b"owt")
    assert origins_of(plan.scenario, Place(folder)).data != whole
    assert origins_of(parse_scenario(images(data="digits")), Place(folder)).data == ""
