"""`p2pmarket report`: where the page goes, and what is said where there is nothing to tell of."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from results_examples import made_up_run, write_runs

from p2pmarket.cli import main


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with one short run."""
    return write_runs(tmp_path / "results", [made_up_run(rounds=3)])


def test_the_page_is_written_and_its_headline_said(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(results)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("2 agents, 3 rounds, 1 seed: mean accuracy ")
    assert said[-1].startswith("wrote report.html (")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_page_is_replaced_whole(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "page.html"
    out.parent.mkdir()
    out.write_text("old")
    assert main(["report", str(results), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (
        told["path"] == str(out) and told["bytes"] == out.stat().st_size and told["kind"] == "Report of an experiment"
    )
    assert told["headline"] in out.read_text(encoding="utf-8") and told["warnings"] == []
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_page_has_the_permissions_of_any_new_file(mask: int, mode: int, results: Path, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        assert main(["report", str(results), "--out", str(tmp_path / "page.html")]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == mode


def test_a_full_disk_leaves_the_old_page(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page.html"
    out.write_text("old")

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["report", str(results), "--out", str(out)]) == 3
    assert "the disk is full" in capsys.readouterr().err
    assert out.read_text() == "old" and [path.name for path in tmp_path.glob(".page*")] == []


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ((), "is nothing that a report can tell of: looked for results"),
        (("journal.sqlite",), "holds journal.sqlite without the identity.key it belongs to"),
        (("runs/one/run.json",), "the results in "),
    ],
)
def test_a_folder_that_tells_nothing_is_one_sentence(
    files: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("")
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_no_folder_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_file_is_told_from_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("read me")
    assert main(["report", str(tmp_path / "README.md")]) == 2
    said = capsys.readouterr().err
    assert "README.md is a file; name the folder" in said and "there is no folder" not in said


def test_the_root_of_a_testnet_names_what_can_be_reported_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, file in (("broker", "ledger"), ("agent-0", "journal"), ("agent-1", "journal"), ("bootstrap", "")):
        folder = tmp_path / "peers" / name
        folder.mkdir(parents=True)
        (folder / "identity.key").touch()
        if file:
            (folder / f"{file}.sqlite").touch()
    assert main(["report", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "beneath it are peers/agent-0, peers/agent-1, peers/broker: name one of them" in said


def test_folders_are_searched_two_deep_and_no_further(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path / "a" / "b" / "c", [made_up_run(rounds=1)])
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 2
    assert "is nothing that a report can tell of" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "a"), "--out", str(tmp_path / "page.html")]) == 0


def test_a_folder_that_was_only_found_is_left_out_where_it_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_runs(tmp_path / "mine", [made_up_run(rounds=1)])
    theirs = write_runs(tmp_path / "theirs", [made_up_run(rounds=1)])
    (theirs / "runs" / "000-market-seed1" / "run.json").write_text("{")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.html"), "--json"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    page = (tmp_path / "page.html").read_text()
    assert warning.startswith("theirs cannot be read and is left out: JSONDecodeError(")
    assert "remove" not in warning and "Results: mine" in page and "image/png" not in page


def test_without_matplotlib_it_says_what_to_install(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; from p2pmarket.cli import main; "
        f"sys.exit(main(['report', {str(results)!r}, '--out', {str(tmp_path / 'page.html')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3 and "plots need matplotlib" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_report_needs_no_torch(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from p2pmarket.cli import main; "
        f"code = main(['report', {str(results)!r}, '--out', {str(tmp_path / 'page.html')!r}]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
