"""Plots as files: whole, and for whoever the umask lets read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from p2pmarket import charts
from p2pmarket.errors import MachineFault


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_plot_has_the_permissions_of_any_new_file(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with charts.figure() as (made, _):
            charts.save_png(made, tmp_path / "plots" / "one.png")
    finally:
        os.umask(before)
    (path,) = (tmp_path / "plots").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(b"old")
    with charts.figure() as (made, _):

        def fail(*_: object, **__: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(made, "savefig", fail)
        with pytest.raises(MachineFault, match="cannot write the plot"):
            charts.save_png(made, path)
    assert path.read_bytes() == b"old" and [one.name for one in tmp_path.iterdir()] == ["one.png"]
