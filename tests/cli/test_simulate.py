"""`p2pmarket simulate`: what it shows and writes, its exit codes, and what it says to mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from p2pmarket.cli import main
from p2pmarket.cli import simulate as cli_simulate
from p2pmarket.cli.simulate_show import Display, _show_agent_problems, show_summary, terminal
from p2pmarket.experiments import plan, sweep
from p2pmarket.experiments.document import as_value, read_document
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.run import RunPlan, run_once

SMALL = """
[scenario]
name = "small"
rounds = 2
[regression]
dimension = 8
rate = 0.1
broker_samples = 64
[[agent]]
name = "A"
samples = 6
[[agent]]
name = "B"
samples = 12
noise = 0.5
[sweep]
scenario.method = ["market", "alone"]
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    return "small.toml"


def test_results_a_table_and_where_they_are(small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    assert main(["simulate", small, "--jobs", "1"]) == 0
    out, err = capsys.readouterr()
    assert not err or re.fullmatch(r"(\d of 2 runs.*, \d+ s\n)+", err), "no bar where there is no terminal"
    assert re.search(r"market +1 +\d[\d.]+ +-?\d+\.\d % +\d+ +\d+ +\d+\.\d\d +verified", out)
    assert "results: runs/small (summary.json, runs.csv, rounds.csv, trades.csv, " in out
    assert "look at them: p2pmarket report runs/small" in out
    assert (tmp_path / "runs" / "small" / "plots" / "loss.png").exists()
    assert main(["simulate", small, "--jobs", "1", "--json", "--no-plots"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["verified"] and summary["out"] == "runs/small" and summary["plots"] == []
    assert summary["points"] == json.loads((tmp_path / "runs" / "small" / "summary.json").read_text())["points"]
    assert "verified" in err


def test_the_command_that_looks_at_results_can_be_pasted(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", small, "--jobs", "1", "--no_plots", "--out", "sk 2"]) == 0
    assert "look at them: p2pmarket report 'sk 2'\n" in capsys.readouterr().out


def test_plans_are_made_once(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    original = plan.plans_of

    def count(*given: Any) -> Any:
        made.append(given)
        return original(*given)

    monkeypatch.setattr(sweep, "plans_of", count)
    monkeypatch.setattr(cli_simulate, "plans_of", count)
    assert main(["simulate", small, "--jobs", "1", "--no_plots", "--set", 'sweep.scenario.method=["alone"]']) == 0
    assert len(made) == 1


def test_set_and_seeds(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--set", 'sweep.scenario.method=["alone"]', "--set", "scenario.name=other", "--set", "agent.A.samples = 9"]
    assert main(["simulate", small, *given, "--seeds", "3", "--jobs", "1", "--json", "--no_plots"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["scenario"], summary["runs"], summary["out"]) == ("other", 3, "runs/other")
    written = Path("runs/other/scenario.toml").read_text()
    assert "seeds = [0, 1, 2]" in written and "samples = 9" in written


def test_check_shows_all_and_runs_nothing(small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", small, "--check", "--seeds", "4"]) == 0
    out = capsys.readouterr().out
    for line in ("scenario.round_seconds = 10.0", "terms.limits.max_sellers = 8", "terms.pricing.fee_percent = \"0\"",
                 "terms.limits.bid_seconds = 120", "regression.rate = 0.1", "agent.B.samples = 12",
                 "agent B: 12 samples, noise 0.5; strategy default", "point 001: scenario.method = \"alone\"",
                 "8 runs of 2 points, 16 rounds in all"):  # fmt: skip
        assert line in out
    assert main(["simulate", small, "--check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["terms"]["market"]["round_agents"]) == (2, 2)
    assert not (tmp_path / "runs").exists()


def test_check_tells_how_many_runs_are_finished(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["simulate", small, "--check"]
    assert main(["simulate", small, "--jobs", "1", "--no_plots", "--set", 'sweep.scenario.method=["alone"]']) == 0
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*given, "--seeds", "2"]) == 0
    assert "results would go to runs/small, where 1 of the 4 runs are finished\n" in capsys.readouterr().out
    assert main([*given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] == 1
    assert main([*given, "--out", "new"]) == 0
    assert capsys.readouterr().out.endswith("; results would go to new\n") and not Path("new").exists()
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before


def test_check_refuses_what_a_run_would_and_names_what_changed(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", small, "--jobs", "1", "--no_plots", "--set", 'sweep.scenario.method=["alone"]']) == 0
    capsys.readouterr()
    given = ["simulate", small, "--set", "scenario.rounds=9"]
    refusal = "before it was changed (scenario.rounds was 2, is 9), such as 000-alone-seed0; name another folder"
    for check in ([], ["--check"], ["--check", "--json"]):
        assert main([*given, *check]) == 2
        out, err = capsys.readouterr()
        assert refusal in err and err.count("\n") == 1 and "results would go" not in out
        assert ("2 runs of 2 points, 18 rounds in all\n" in out) is (check == ["--check"])
        if "--json" in check:
            assert refusal in json.loads(out)["sentence"]
    assert main(["simulate", small, "--check", "--out", "."]) == 2
    assert "holds other things than results" in capsys.readouterr().err


def test_terms_that_check_tells_as_json_are_written_as_in_the_file(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["simulate", small, "--check", "--json"]
    assert main([*given, "--set", "terms.limits.bid_seconds=90", "--set", "terms.pricing.fee_percent='2.5'"]) == 0
    terms = json.loads(capsys.readouterr().out)["terms"]
    assert set(terms) == {"market", "trade", "appraisal", "pricing", "limits"}
    assert (terms["limits"]["bid_seconds"], terms["pricing"]["fee_percent"]) == (90, "2.5")
    assert terms["limits"]["delivery_hours"] == 168 and not any("bid_ms" in keys for keys in terms.values())
    again = [
        f"terms.{section}.{key}={as_value(value)}" for section, keys in terms.items() for key, value in keys.items()
    ]
    assert main([*given, *(part for one in again for part in ("--set", one))]) == 0
    assert json.loads(capsys.readouterr().out)["terms"] == terms


def test_every_path_that_check_shows_can_be_set(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--set", "scenario.seeds=2", "--set", "agent.A.knobs.reserve=1"]
    assert main(["simulate", small, "--check", *given]) == 0
    before = capsys.readouterr().out
    shown = [line.replace(" = ", "=", 1) for line in before.splitlines() if re.match(r"[\w.-]+ = ", line)]
    assert len(shown) > 50 and before.startswith("small\n")
    shown = [line for line in shown if "scenario.method=" not in line]  # it gives names
    again = [part for line in shown for part in ("--set", line)]
    assert main(["simulate", small, "--check", *again]) == 0
    assert capsys.readouterr().out == before


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (["fedavg"], "of the method fedavg, which"),
        (["alone"], "of the method alone, which"),
        (["alone", "fedavg"], "of the methods alone and fedavg, which"),
        (["market", "fedavg", "alone"], "of the method fedavg, which"),
        (["market", "alone"], ""),
    ],
)
def test_faults_that_would_change_nothing_are_told(
    methods: list[str], words: str, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["simulate", small, "--set", f"sweep.scenario.method={methods}", "--jobs", "1", "--no_plots"]
    faults = ["--set", "faults.lost=0.01"]
    for arguments in ([*given, *faults, "--check"], *([[*given, *faults]] if "market" not in methods else [])):
        assert main(arguments) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
        assert len(lines) == bool(words)
        assert all(words in line and line.startswith("p2pmarket: warning: [faults] changes nothing") for line in lines)
    assert main([*given, "--check", "--out", "other"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_lines_where_there_is_no_terminal_come_seldom(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    plans = plan.plans_of(read_document(Path(small)))
    now = 100.0
    with Display(plans, Console(stderr=True), lambda: now) as display:
        for name, done, seconds, line in [
            ("a", 1, 4.9, ""),
            ("a", 2, 5.1, "1 of 2 runs (2 of 4 rounds), 5 s\n"),
            ("b", 0, 10.0, ""),
            ("b", 1, 3000.0, "1 of 2 runs (3 of 4 rounds), 50 min 00 s\n"),
            ("b", 1, 3149.0, ""),
            ("b", 2, 3151.0, "2 of 2 runs, 52 min 31 s\n"),
        ]:
            now = 100.0 + seconds
            display.progress(name, done, 2)
            assert capsys.readouterr().err == line
    assert display.finished == 2
    with Display(plans, Console(stderr=True), lambda: now) as display:
        for name in ("a", "b"):
            display.progress(name, 2, 2)
    assert capsys.readouterr().err == "", "none of what takes a few seconds"
    with Display(plans, Console(stderr=True), lambda: now) as display:
        now += 7325
        display.progress("a", 1, 2)
    assert capsys.readouterr().err == "0 of 2 runs (1 of 4 rounds), 2 h 02 min\n"


def test_check_tells_how_many_images_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="the digits come with it")
    text = """[scenario]\nname = "x"\nrounds = 1\n[images]\ndata = "digits"\nmodel = "mlp"\narguments = { hidden = [4] }
train_images = 200
test_images = 50\nbroker_images = 40\nlearning_rate = 0.25\n[[agent]]\nname = "A"\n[[agent]]\nname = "B"\n"""
    (tmp_path / "images.toml").write_text(text)
    assert main(["simulate", str(tmp_path / "images.toml"), "--check"]) == 0
    out = capsys.readouterr().out
    for words in ("200 and 50 of them used", "the broker has 40 images of its own", "images.learning_rate = 0.25",
                  "agent A: 160 images; strategy default"):  # fmt: skip
        assert words in out
    assert "Training(" not in out and "groups" not in out.replace("terms.trade.groups", "")


def test_a_new_scenario_is_never_written_over_a_file(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--new", "deep/my first.toml"]) == 0
    told = capsys.readouterr().out
    assert told == "wrote deep/my first.toml; see what it runs: p2pmarket simulate 'deep/my first.toml' --check\n"
    assert main(["simulate", "deep/my first.toml", "--check"]) == 0
    assert capsys.readouterr().out.startswith("my-first: ")
    assert main(["simulate", "--new", small]) == 2
    assert "small.toml is there already; name a new file" in capsys.readouterr().err
    assert Path(small).read_text() == SMALL
    assert main(["simulate", small, "--new", "other.toml"]) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "name a scenario, such as"),
        (["gone.toml"], "cannot read the scenario gone.toml: No such file"),
        (["small.toml", "--set", "scenario.rounds"], "has no value; write it as --set path=value"),
        (["small.toml", "--set", "scenario.rounds=[1"], "is no TOML value"),
        (["small.toml", "--set", "agent.C.samples=1"], "there is no 'C' in that list; it has A, B"),
        (["small.toml", "--set", "scenario.rounds=none"], "must be a whole number, not 'none'"),
        (["small.toml", "--set", "scenario.name=../up"], "a name is 1 to 48 letters"),
        (["small.toml", "--set", "sweep.agent.A.nowhere=[1]"], "unknown key 'nowhere'"),
        (["small.toml", "--set", "scenario.method=alone"], "write --set sweep.scenario.method='[...]'"),
        (["small.toml", "--set", "rounds=5"], "did you mean scenario.rounds?"),
        (["small.toml", "--set", "rate=5"], "did you mean regression.rate?"),
        (["small.toml", "--set", "fee_percent=5"], "did you mean terms.pricing.fee_percent?"),
        (["small.toml", "--set", "scenario.length=5"], "round_seconds, seed, seeds"),
        (["small.toml", "--seeds", "0"], "seeds in [scenario] is 0"),
        (["small.toml", "--jobs", "-1"], "--jobs -1 is below 0"),
        (["small.toml", "--out", "small.toml"], "small.toml is a file; name a folder"),
        (["small.toml", "--out", "."], "holds other things than results"),
    ],
)
def test_mistakes_are_one_sentence(
    given: list[str], words: str, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *given]) == 2
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1 and out == ""


@pytest.mark.parametrize(
    ("given", "blamed"),
    [
        ("agent.A.nowhere=1", False),
        ("sweep.agent.A.samples=[4, -1]", True),
        ("sweep.scenario.method=['market', 'fedavg', 'paper']", True),
    ],
)
def test_the_sweep_is_blamed_for_its_own_mistakes_alone(
    given: str, blamed: bool, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", small, "--set", given]) == 2
    assert ("(the sweep's" in capsys.readouterr().err) is blamed


def altered(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    def run(plan: RunPlan, *given: Any) -> RunResult:
        return change(plan, run_once(plan, *given))  # type: ignore[no-any-return]

    monkeypatch.setattr(sweep, "run_once", run)


def test_a_ledger_that_does_not_verify_is_exit_code_1(
    small: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(plan: RunPlan, result: RunResult) -> RunResult:
        wrong = {"verified": False, "problems": ["a balance is off\x1b[31m"]}
        return RunResult({**result.facts, "ledger": {**result.facts["ledger"], **wrong}}, result.rounds, result.trades)

    altered(monkeypatch, broken)
    assert main(["simulate", small, "--jobs", "1", "--no_plots"]) == 1
    out = capsys.readouterr().out
    assert "DOES NOT VERIFY" in out and r"000-market-seed0: a balance is off\x1b[31m" in out


FAILING = """
import dataclasses

from p2pmarket import Strategy


@dataclasses.dataclass(frozen=True)
class Greedy(Strategy):
    part: float = 0.5

    def bid(self, *given):
        raise ValueError("oops")

    standing_ask = ask = bid
"""


@pytest.fixture
def failing(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A strategy of one's own that fails whenever it is asked, by the name that scenarios have."""
    (tmp_path / "simulate_failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "simulate_failing:Greedy"


def test_a_strategy_that_fails_at_every_visit_is_told(
    small: str, failing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["simulate", small, "--jobs", "1", "--no_plots", "--set", f"agent.A.strategy={failing}"]
    assert main([*given, "--out", "failing"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("A: ")]
    assert line.startswith("A: 2 of 2 visits failed: your strategy simulate_failing:Greedy failed")
    assert "ValueError: oops" in line
    summary = json.loads(Path("failing/summary.json").read_text())
    assert summary["failed_visits"] == 2 and list(summary["agent_problems"]) == ["A"]
    assert main(["simulate", small, "--jobs", "1", "--no_plots"]) == 0
    assert "visits failed" not in capsys.readouterr().out


def point(**more: Any) -> dict[str, Any]:
    """One of a summary's, as large numbers make it."""
    spread = {"mean": 12345.678, "half_width": 1234.5}
    return {
        "settings": {"scenario.method": "market", "agent.A.knobs.share": 0.5, "terms.pricing.fee_percent": "5"},
        "method": "market", "seeds": 10, "loss": spread, "metric": {"mean": 0.987, "half_width": 0.011},
        "metric_name": "accuracy", "less_loss_than_alone": {"mean": 0.123, "half_width": 0.1}, "trades": 12345.0,
        "settled": 1234.0, "moved": 12345.67e6, "fees": 617.28e6, "verified": True,
        "agents": {f"agent-{number}": {"loss": spread, "metric": {"mean": 0.5, "half_width": 0.25}}
                   for number in range(9)},
        **more,
    }  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 240])
def test_no_number_is_cut_on_a_narrow_terminal(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"scenario": "x", "points": [point()], "agent_problems": {}, "problems": []}
    show_summary(Console(width=width), summary)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width and "…" not in out
    for cell in ("1.235e+04 ± 1.2e+03", "98.7 ± 1.1", "12.3 ± 10.0 %", "12345", "12345.67", "617.28", "verified"):
        assert re.search(rf"(^| ){re.escape(cell)}( |$)", out, re.MULTILINE), cell
    assert out.count("1.235e+04 ± 1.2e+03") == 10, "and of each agent"
    assert out.count("50.0 ± 25.0") == 9 and "accuracy %" in out and "fees" in out
    if width == 240:
        assert "market, share 0.5, fee_percent 5 " in out


def test_columns_of_a_sweep_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"agent.few.count": 2, "agent.many.count": 9, "regression.rate": 0.5}
    show_summary(Console(width=240), {"scenario": "x", "points": [point(settings=settings)], "agent_problems": {},
                                      "problems": []})  # fmt: skip
    assert re.search(r"^ few\.count +many\.count +rate +method ", capsys.readouterr().out, re.MULTILINE)


def test_a_metric_that_is_no_accuracy_is_called_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    one = point(metric_name="gradient", fees=0.0, metric={"mean": 3.5, "half_width": None})
    summary = {"scenario": "x", "points": [one], "agent_problems": {}, "problems": []}
    show_summary(Console(width=240), summary)
    out = capsys.readouterr().out
    assert "gradient" in out and " 3.5 " in out and "accuracy" not in out and "fees" not in out


def test_an_unknown_knob_is_told_those_that_there_are(
    small: str, failing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--set", f"agent.A.strategy={failing}", "--set", "agent.A.knobs.parts=0.5"]
    assert main(["simulate", small, "--check", *given]) == 2
    err = capsys.readouterr().err
    assert "[[agent]] 'A': the strategy simulate_failing:Greedy has no knob 'parts'; it has " in err
    assert re.search(r"\bpart\b", err) and "__init__" not in err and "(the sweep's" not in err


def test_few_of_many_agents_with_problems_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"visits": 9, "failed": 3, "reason": "no\x1b[31m answer", "reasons": 3}
    console = terminal(stderr=False)
    _show_agent_problems(console, {f"a{number}": one for number in range(1000)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == r"a0: 3 of 9 visits failed: no\x1b[31m answer (and 2 other reasons)"
    assert len(lines) == 9 and lines[-1] == "and 992 more agents with problems, in summary.json"


def test_an_interrupt_tells_how_much_is_kept(
    small: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(plan: RunPlan, result: RunResult) -> RunResult:
        if plan.scenario.method == "alone":
            raise KeyboardInterrupt
        return result

    altered(monkeypatch, interrupted)
    assert main(["simulate", small, "--jobs", "1"]) == 130
    assert "1 of 2 runs are finished and kept in runs/small, and the same command goes on" in capsys.readouterr().err
