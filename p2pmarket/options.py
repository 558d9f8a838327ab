"""Settings as data: one dataclass field is one flag, one environment variable and one configuration key.

Knows: how a value is found (flag, then environment, then file, then default) and where it came from. Refuses to know:
any particular program's settings (settings.py). A wrong value raises `SettingsError`, which names its origin.

`--initial_peers` and `--initial-peers` are the same flag, its variable is `P2PMARKET_INITIAL_PEERS`, its key
`initial_peers`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from p2pmarket.errors import SettingsError
from p2pmarket.units import parse_credits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

S = TypeVar("S")
PREFIX = "P2PMARKET_"


def option(
    default: Any,
    help: str,
    *,
    parse: Callable[[str], Any] = str,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    aliases: Sequence[str] = (),
    many: bool = False,
) -> Any:
    """A dataclass field that is also a flag; `parse` turns text into the value, `many` takes several values."""
    metadata = {
        "help": help, "parse": parse, "metavar": metavar, "choices": choices, "aliases": aliases, "many": many,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def flag(default: bool, help: str) -> Any:
    """A dataclass field that is switched on by `--name` and off by `--no_name`."""
    return dataclasses.field(default=default, metadata={"help": help, "parse": parse_bool, "flag": True})


def parse_bool(text: str) -> bool:
    """yes/no as people and TOML write it.

    :raises ValueError: anything else
    """
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if str(text).lower() not in words:
        raise ValueError(f"{text!r} is neither yes nor no")
    return words[str(text).lower()]


def parse_positive(text: str) -> int:
    """A whole number above zero.

    :raises ValueError: anything else
    """
    value = int(text)
    if value <= 0:
        raise ValueError(f"{text} is not above 0")
    return value


def credits_option(default: int | None, help: str) -> Any:
    """A field in micro-credits that people write in credits."""
    return option(default, help, parse=parse_credits, metavar="CREDITS")


def add_flags(parser: argparse.ArgumentParser, kind: type) -> None:
    """Adds one flag a field; what is not given stays out of the namespace."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with any of these settings")
    for field in dataclasses.fields(kind):
        about = field.metadata
        names = [name for word in (field.name, *about.get("aliases", ())) for name in _spellings(word)]
        common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        help_text = about["help"].replace("%", "%%")
        if about.get("flag"):
            parser.add_argument(*names, action="store_const", const="yes", help=help_text, **common)
            off = _spellings("no_" + field.name)
            parser.add_argument(*off, action="store_const", const="no", help=argparse.SUPPRESS, **common)
            continue
        shown = _shown(field)
        parser.add_argument(
            *names,
            nargs="+" if about["many"] else None,
            metavar=about["metavar"] or ("{" + ",".join(about["choices"]) + "}" if about["choices"] else None),
            help=f"{help_text} (default: {shown})" if shown else help_text,
            **common,
        )


def resolve(
    kind: type[S], given: Mapping[str, Any], environment: Mapping[str, str], config: Path | None = None
) -> tuple[S, dict[str, str]]:
    """The settings, and where each value came from: "flag", a variable's name, a file's path, or "default".

    :raises SettingsError: an unknown key, or a value that does not parse
    """
    table = _read_config(config) if config else {}
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(fields))
    if unknown:
        raise SettingsError(f"{config}: unknown key {unknown[0]!r}; known are {', '.join(sorted(fields))}")
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, field in fields.items():
        variable = PREFIX + name.upper()
        if name in given:
            raw, origin = given[name], f"the flag --{name}"
        elif variable in environment:
            raw, origin = environment[variable], f"the variable {variable}"
        elif name in table:
            raw, origin = table[name], f"{name} in {config}"
        else:
            origins[name] = "default"
            continue
        values[name] = _parse(field, raw, origin)
        origins[name] = origin
    return kind(**values), origins


def _spellings(word: str) -> list[str]:
    return list(dict.fromkeys(("--" + word, "--" + word.replace("_", "-"))))


def _shown(field: dataclasses.Field[Any]) -> str:
    default: Any = field.default
    if default is None or default == () or default == "":
        return ""
    if field.metadata["parse"] is parse_credits:
        return f"{default / 1_000_000:g}"
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _parse(field: dataclasses.Field[Any], raw: Any, origin: str) -> Any:
    about = field.metadata
    try:
        if about.get("many"):
            parts = raw if isinstance(raw, list) else str(raw).split()
            return tuple(about["parse"](str(part)) for part in parts)
        value = about["parse"](str(raw))
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{origin}: {error}") from None
    if about.get("choices") and value not in about["choices"]:
        raise SettingsError(f"{origin}: {value!r} is none of {', '.join(about['choices'])}")
    return value


def _read_config(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return table
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the configuration {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the configuration {path} is not valid TOML: {error}") from None
