"""The catalogue: every name leads to its experiment, and every scenario file of the paper can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pmarket.errors import SettingsError
from p2pmarket.experiments.document import points_of, read_document
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.paper import catalogue
from p2pmarket.paper.catalogue import EXPERIMENTS, experiment, scenario_folder


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_name_is_an_experiment_that_calls_itself_so(name: str) -> None:
    found = experiment(name)
    assert found.NAME == name
    assert found.TITLE
    assert callable(found.run)


def test_a_name_that_is_none_is_told_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match=r"no experiment 'figure-33'.*figure-3.*all"):
        experiment("figure-33")


@pytest.mark.parametrize("path", sorted(scenario_folder().glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_file_is_one(path: Path) -> None:
    for point in points_of(read_document(path)):
        assert parse_scenario(point.document).rounds > 0


def test_scenario_files_can_be_ones_own(tmp_path: Path) -> None:
    assert scenario_folder(tmp_path) == tmp_path
    with pytest.raises(SettingsError, match="is no folder"):
        scenario_folder(tmp_path / "none")


def test_a_wheel_has_them_below_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "site-packages" / "p2pmarket" / "paper" / "catalogue.py"))
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    with pytest.raises(SettingsError, match="nowhere here; name their folder with --scenarios"):
        scenario_folder()
    installed = tmp_path / "share" / "p2pmarket" / "paper"
    installed.mkdir(parents=True)
    (installed / "figure-3.toml").touch()
    assert scenario_folder() == installed


def test_a_wheel_takes_them_along() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"{catalogue.INSTALLED.as_posix()}" = ["examples/paper/*.toml"]' in project
