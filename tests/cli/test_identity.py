"""`identity`: made once, copied anywhere, never overwritten."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from p2pmarket.cli import main

Capture = pytest.CaptureFixture[str]


def shown(capsys: Capture, *arguments: str) -> dict[str, str]:
    """What `identity ... --json` prints."""
    assert main(["identity", *arguments, "--json"]) == 0
    told: dict[str, str] = json.loads(capsys.readouterr().out)
    return told


def test_backup_and_restore_keep_the_account(tmp_path: Path, capsys: Capture) -> None:
    first, second, backup = str(tmp_path / "first"), str(tmp_path / "second"), tmp_path / "backup.key"
    created = shown(capsys, "create", "--state", first)
    assert created["peer_id"].startswith("12D3Koo")
    assert created["path"] == f"{first}/identity.key"
    assert shown(capsys, "show", "--state", first) == created
    shown(capsys, "backup", str(backup), "--state", first)
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert shown(capsys, "restore", str(backup), "--state", second)["peer_id"] == created["peer_id"]
    assert shown(capsys, "show", "--state", second)["peer_id"] == created["peer_id"]


def test_nothing_is_ever_overwritten(tmp_path: Path, capsys: Capture) -> None:
    state, other, backup = str(tmp_path / "state"), str(tmp_path / "other"), tmp_path / "backup.key"
    shown(capsys, "create", "--state", state)
    shown(capsys, "create", "--state", other)
    shown(capsys, "backup", str(backup), "--state", other)
    files = {path: path.read_bytes() for path in (tmp_path / "state" / "identity.key", backup)}
    for arguments in (["create"], ["backup", str(backup)], ["restore", str(backup)]):
        assert main(["identity", *arguments, "--state", state]) == 2
        assert "not overwritten" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files} == files


def test_people_are_told_what_it_is_worth(tmp_path: Path, capsys: Capture) -> None:
    assert main(["identity", "create", "--state", str(tmp_path)]) == 0
    assert "Keep a backup" in capsys.readouterr().out


def test_an_identity_elsewhere_is_named_as_for_the_other_commands(tmp_path: Path, capsys: Capture) -> None:
    path = str(tmp_path / "elsewhere.key")
    created = shown(capsys, "create", "--identity_path", path)
    assert created["path"] == path
    assert shown(capsys, "show", "--identity_path", path, "--state", str(tmp_path / "other")) == created
