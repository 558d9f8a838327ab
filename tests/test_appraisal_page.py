"""docs/appraisal.md says what the code does: knobs, defaults, constants, links, the program; so do its neighbours."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from p2pmarket import alignment, appraisal
from p2pmarket.alignment.verification import SAME_FUNCTION, SAME_FUNCTION_LOW
from p2pmarket.appraisal import bench, evaluator, learned, plan, precision, ranking
from p2pmarket.appraisal.ladder import Rule
from p2pmarket.market import _SECTIONS, COEFFICIENTS
from p2pmarket.settings import BrokerSettings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "appraisal.md").read_text()
LINES = " ".join(PAGE.split())
PAGES = ["README.md", "CHANGELOG.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")))]
NUMBERS = {"model": "0 ... 1", "tensor": f"{plan.LOW:g} ... {plan.HIGH:g}", "row": f"{plan.LOW:g} ... {plan.HIGH:g}"}


def rows(header: str) -> list[list[str]]:
    """The cells of the table whose first column is called `header`."""
    (table,) = re.findall(r"^\| " + header + r" \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def test_every_knob_is_there_with_its_default() -> None:
    told = {
        tuple(re.sub(r"[`\[\]]", "", key).split()): json.loads(default.strip("`")) for key, default, _ in rows("key")
    }
    for section in ("appraisal", "trade"):
        assert {key[1]: value for key, value in told.items() if key[0] == section} == _SECTIONS[section]
    for section, key in told:
        assert told[section, key] == _SECTIONS[section][key]


def test_granularities_and_their_bounds() -> None:
    told = {cells[0].strip("`"): cells[2] for cells in rows("granularity")}
    assert told == {**NUMBERS, "none": ""}
    assert told.keys() == set(plan.GRANULARITIES)
    assert set(COEFFICIENTS) == {"auto", *plan.GRANULARITIES} - {"none"}


@pytest.mark.parametrize(
    ("sentence", "holds"),
    [
        (f"at most {learned.STEPS} steps of Adam", True),
        ("a quarter of SELECT, **HELD**, is seen by no gradient", bench.HELD_FRACTION == 0.25),
        ("more coefficients than SELECT has samples is not tried", plan.SAMPLES_PER_COEFFICIENT == 1),
        (f"to a relative {SAME_FUNCTION:.0e} ({SAME_FUNCTION_LOW:.0e} for".replace("e-04", "e-4"), True),
        (f"held below {evaluator.MEMORY_MIB} MiB", True),
        (f"at least {precision._WORTH} times as fast", True),
        (f"at most {precision.TOLERANCE * 100:g} % apart on average", True),
        (f"set it to {Rule().steps} and", True),
        ("on 64 samples; the best 2 again on 256", [stage.samples for stage in ranking.STAGES] == [64, 256]),
        ("The best 4 pairs for each", [stage.pairs for stage in ranking.STAGES] == [4.0, 2.0]),
        ("merged at 1/4, 1/2 and 3/4", {stage.alphas for stage in ranking.STAGES} == {(0.25, 0.5, 0.75)}),
    ],
)
def test_constants(sentence: str, holds: bool) -> None:
    assert holds
    assert sentence in LINES


def test_the_operators_own_settings() -> None:
    names = re.findall(r"`--(\w+)`", LINES[LINES.index("The operator's own:") : LINES.index("## As a library")])
    assert names == ["device", "seed", "select_fraction"]
    assert BrokerSettings().select_fraction == 0.5
    assert "`--select_fraction` (0.5)" in LINES


def test_the_program_is_the_example() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    example = (ROOT / "examples" / "appraise_a_pair.py").read_text()  # run by tests/test_examples.py
    assert program.strip() in example


def test_what_it_names_exists() -> None:
    known = set(alignment.__all__) | set(appraisal.__all__)
    assert {"find_symmetry", "match", "match_activations", "align_pair", "appraise", "plan_merge", "reverse"} <= known
    for path in re.findall(r"`(\w+/[\w/]+\.\w+)`", PAGE):
        assert (ROOT / path).exists(), path
    for dotted in re.findall(r"`(p2pmarket(?:\.\w+)+)`", PAGE):
        module, _, name = dotted.rpartition(".")
        whole = ROOT.joinpath(*dotted.split("."))
        if whole.is_dir() or whole.with_suffix(".py").exists():
            continue
        tree = ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}, dotted


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                target
            )


def test_the_picture_is_small_and_has_its_script() -> None:
    picture = ROOT / "docs" / "pictures" / "loss_along_the_merge.png"
    assert picture.stat().st_size < 150_000
    assert picture.with_suffix(".py").exists()


def test_every_benchmark_has_its_section_and_command() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "argparse.ArgumentParser(" in path.read_text()}
    assert set(re.findall(r"^## (\w+)$", text, flags=re.MULTILINE)) == names
    assert set(re.findall(r"^python -m benchmarks\.(\w+) --json", text, flags=re.MULTILINE)) == names
