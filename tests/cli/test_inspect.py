"""`inspect` prints what alignment can move in a model, and says in one sentence what was wrong with the question."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor, nn

from p2pmarket.cli import main
from p2pmarket.permutation import Axis, PermutationClass, PermutationSpec


class Words(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(9, width), nn.Linear(width, 2)

    def forward(self, words: Tensor) -> Tensor:
        answer: Tensor = self.out(self.embed(words).mean(1))
        return answer


def words(width: int = 4) -> nn.Module:
    """A factory."""
    return Words(width)


def right_spec(model: nn.Module) -> PermutationSpec:
    return PermutationSpec((PermutationClass("width", 4, (Axis("embed.weight", 1), Axis("out.weight", 1))),))


def wrong_spec(model: nn.Module) -> PermutationSpec:
    return PermutationSpec((PermutationClass("width", 4, (Axis("embed.weight", 1),)),))


def no_spec(model: nn.Module) -> str:
    return "none"


class Branch(nn.Module):
    """A branch on data, which an exporter cannot follow; its layers it can."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        if hidden.sum() > 0:
            hidden = 2 * hidden
        answer: Tensor = self.out(hidden)
        return answer


HERE = __name__
WORDS = ["inspect", f"{HERE}:words", "--input", "2x3:int64<9"]


def test_a_built_in_model_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "mlp", "--arguments", '{"inputs": 5, "hidden": [7], "outputs": 3}']) == 0
    text = capsys.readouterr().out
    assert "layers.0" in text and "an output's layout is given" in text
    assert "alignment can move 95.5% of 66 parameters; method graph; 1 classes" in text


def test_a_factory_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--arguments", '{"width": 6}', "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (one,) = report["classes"]
    assert one["units"] == 6 and ["embed.weight", 1, 0, 1, 1, 0] in one["members"]
    assert {"tensor": "embed.weight", "axis": 0, "size": 9, "op": "embedding"}.items() <= report["pinned"][0].items()
    assert report["method"] == "graph" and report["pinned"][0]["source"].startswith("embed (test_inspect.py:")


def test_a_model_that_cannot_be_exported_is_a_note_with_its_line_and_no_noise(
    capfd: pytest.CaptureFixture[str],
) -> None:
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.fx.experimental.symbolic_shapes")]
    assert main(["inspect", f"{HERE}:Branch", "--input", "4x6"]) == 0
    told = capfd.readouterr()
    assert told.err == ""
    assert not any(logger.disabled for logger in loggers)
    (note,) = [line for line in told.out.splitlines() if line.startswith("note: Branch")]
    assert "Branch cannot be exported (test_inspect.py:" in note and "data-dependent" in note
    line = int(note.partition("test_inspect.py:")[2].partition(":")[0])
    assert "if hidden.sum() > 0" in Path(__file__).read_text().splitlines()[line - 1]
    assert "unhinted" not in note and note.endswith(")") and note.count("(") == note.count(")")


def test_what_the_model_cannot_look_up_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", f"{HERE}:words", "--input", "2x16:int64<500"]) == 2
    told = capsys.readouterr().err
    assert "Words fails on the example inputs 2x16:int64 of " in told and "IndexError" in told
    assert "give it inputs" in told and told.count("\n") == 1


def test_a_factory_in_the_current_folder_is_found_where_pythonpath_says(tmp_path: Path) -> None:
    (tmp_path / "factory_here.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(2, 3)\n")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "p2pmarket-script"  # as installed: its own folder is searched, the current one is not
    script.write_text("import sys\nfrom p2pmarket.cli import main\nsys.exit(main())\n")
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), "inspect", "factory_here:make", "--input", "2x2", "--json"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    refused = run(plain)
    assert refused.returncode == 2 and "no module 'factory_here'" in refused.stderr
    assert "run with PYTHONPATH=. " in refused.stderr and refused.stderr.count("\n") == 1
    found = run({**plain, "PYTHONPATH": "."})
    assert found.returncode == 0, found.stderr


def test_a_spec_by_hand_is_tested(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--spec", f"{HERE}:right_spec"]) == 0
    assert "method given; 1 classes" in capsys.readouterr().out
    assert main([*WORDS, "--spec", f"{HERE}:wrong_spec"]) == 2
    assert "'width' is not a symmetry of the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mlp", "--arguments", "{"], "--arguments is not JSON"),
        (["mlp", "--arguments", "[1]"], "must be a JSON object"),
        (["mlp"], "needs the argument 'inputs'"),
        (["nothing"], "unknown model 'nothing'"),
        ([f"{HERE}:words"], "say what the model takes with --input"),
        ([f"{HERE}:words", "--input", "2xq"], "'2xq' is not a shape"),
        ([f"{HERE}:words", "--input", "2x3:float64"], "is not a shape"),
        ([f"{HERE}:words", "--input", "2x3"], "fails on the example inputs"),
        ([*WORDS[1:], "--spec", f"{HERE}:no_spec"], "returned str, not a PermutationSpec"),
        ([*WORDS[1:], "--spec", f"{HERE}:HERE"], "is not a function"),
    ],
)
def test_a_wrong_question_gets_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1
