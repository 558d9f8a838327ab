"""Settings as data: where a value comes from, and what is said about a wrong one."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from p2pmarket.errors import SettingsError
from p2pmarket.options import (
    add_flags,
    credits_option,
    flag,
    option,
    parse_count,
    parse_fraction,
    parse_number,
    parse_positive,
    parse_whole,
    resolve,
    written,
)


@dataclasses.dataclass(frozen=True)
class Sample:
    place: Path = option(Path("here"), "where", parse=Path, metavar="FOLDER")
    far_away: tuple[str, ...] = option((), "addresses", many=True, aliases=("far",), group="network")
    steps: int = option(3, "how many, 100 % sure", parse=parse_count, metavar="N")
    colour: str = option("red", "which", choices=("red", "blue"))
    is_quiet: bool = flag(False, "say nothing")
    is_kind: bool = flag(True, "be kind")
    price: int = credits_option(10_000_000, "how much")


def parser() -> argparse.ArgumentParser:
    """One with the flags of Sample."""
    made = argparse.ArgumentParser(prog="sample", allow_abbrev=False)
    add_flags(made, Sample)
    return made


def resolved(
    *arguments: str, environment: dict[str, str] | None = None, config: Path | None = None
) -> tuple[Sample, dict[str, str]]:
    """Settings from flags, variables and a file."""
    given = vars(parser().parse_args(arguments))
    return resolve(Sample, given, environment or {}, config)


def test_defaults() -> None:
    settings, origins = resolved()
    assert settings == Sample()
    assert set(origins.values()) == {"default"}


def test_flag_before_variable_before_file_before_default(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('steps = 4\ncolour = "blue"\nis_quiet = true\nfar_away = ["a", "b"]\nprice = "1.5"\n')
    settings, origins = resolved(
        "--steps", "6", environment={"P2PMARKET_STEPS": "5", "P2PMARKET_IS_KIND": "no"}, config=config
    )
    assert settings == Sample(
        steps=6, colour="blue", is_quiet=True, is_kind=False, far_away=("a", "b"), price=1_500_000
    )
    assert origins["steps"] == "the flag --steps"
    assert origins["is_kind"] == "the variable P2PMARKET_IS_KIND"
    assert origins["colour"] == f"colour in {config}"
    assert origins["place"] == "default"


@pytest.mark.parametrize("spelling", ["--far_away", "--far-away", "--far"])
def test_every_spelling_of_a_flag(spelling: str) -> None:
    assert resolved(spelling, "a", "b")[0].far_away == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "quiet", "kind"),
    [
        (("--is_quiet", "--no_is_kind"), True, False),
        (("--is-quiet", "--no-is-kind"), True, False),
        (("--no_is_quiet", "--is_kind"), False, True),
    ],
)
def test_switches_go_on_and_off(arguments: tuple[str, ...], quiet: bool, kind: bool) -> None:
    settings, _ = resolved(*arguments)
    assert (settings.is_quiet, settings.is_kind) == (quiet, kind)


def test_a_switch_on_the_command_line_overrules_a_variable() -> None:
    assert not resolved("--no_is_quiet", environment={"P2PMARKET_IS_QUIET": "yes"})[0].is_quiet


def test_several_values_in_a_variable_are_separated_by_spaces() -> None:
    assert resolved(environment={"P2PMARKET_FAR_AWAY": "a  b"})[0].far_away == ("a", "b")


def test_the_help_shows_each_flag_once() -> None:
    text = parser().format_help()
    options = text[text.index("options:") :]
    for shown in ("--place", "--far_away", "--far ", "--steps", "--is_quiet", "--no_is_kind", "--price"):
        assert options.count(f" {shown}") == 1, shown
    for hidden in ("--far-away", "--is-quiet", "--no_is_quiet", "--no-is-kind", " --is_kind"):
        assert hidden not in text, hidden
    assert "\nnetwork:\n" in text
    assert "100 % sure (default: 3)" in text
    assert "do not be kind" in text


def test_no_abbreviations() -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--step", "4"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps = 0", "steps .* is not above 0"),
        ("steps = 'many'", "'many' is not a whole number"),
        ("steps = [1]", "takes one value"),
        ("colour = 'green'", "'green' is none of red, blue"),
        ("is_quiet = 'maybe'", "neither yes nor no"),
        ("price = 'much'", "'much' is not an amount"),
        ("price = -1", "not an amount"),
        ("step = 4", "unknown key 'step'; known are"),
        ("[steps]\nx = 1", "takes one value"),
        ("steps =", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(text)
    with pytest.raises(SettingsError, match=words) as refused:
        resolved(config=config)
    assert str(config) in str(refused.value)


def test_a_wrong_flag_or_variable_is_named() -> None:
    with pytest.raises(SettingsError, match="the flag --steps: 'x'"):
        resolved("--steps", "x")
    with pytest.raises(SettingsError, match="the variable P2PMARKET_STEPS: 'x'"):
        resolved(environment={"P2PMARKET_STEPS": "x"})


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the configuration .*: No such file"):
        resolved(config=tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot read"):
        resolved(config=tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_whole, "-3", -3), (parse_count, "1", 1), (parse_number, "-1e-3", -0.001), (parse_positive, "0.5", 0.5),
        (parse_fraction, "0.25", 0.25),
    ],
)  # fmt: skip
def test_numbers(parse: Any, text: str, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_whole, "1.5"), (parse_whole, ""), (parse_count, "0"), (parse_count, "-1"), (parse_number, "nan"),
        (parse_number, "inf"), (parse_number, "x"), (parse_positive, "0"), (parse_positive, "-1"),
        (parse_fraction, "1"), (parse_fraction, "0"),
    ],
)  # fmt: skip
def test_what_is_no_such_number(parse: Any, text: str) -> None:
    with pytest.raises(ValueError, match="not"):
        parse(text)


def test_values_are_shown_as_a_person_writes_them() -> None:
    shown = {field.name: written(field, getattr(Sample(), field.name)) for field in dataclasses.fields(Sample)}
    assert shown == {
        "place": "here",
        "far_away": "",
        "steps": "3",
        "colour": "red",
        "is_quiet": "no",
        "is_kind": "yes",
        "price": "10.00",
    }
