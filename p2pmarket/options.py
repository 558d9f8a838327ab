"""Settings as data: one dataclass field is one flag, one environment variable and one configuration key.

Knows: how a value is found (flag, then environment, then file, then default) and where it came from. Refuses to know:
any particular program's settings (settings.py). A wrong value raises `SettingsError`, which names its origin.

`--initial_peers` and `--initial-peers` are the same flag (the help shows the first), its variable is
`P2PMARKET_INITIAL_PEERS`, its key `initial_peers`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from p2pmarket.errors import SettingsError
from p2pmarket.units import format_credits, parse_credits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    Group = argparse.ArgumentParser | argparse._ArgumentGroup

S = TypeVar("S")
PREFIX = "P2PMARKET_"
DEFAULT = "default"
"""Origin of a setting that nobody gave."""


def option(
    default: Any,
    help: str,
    *,
    parse: Callable[[str], Any] = str,
    metavar: str = "TEXT",
    choices: Sequence[str] | None = None,
    aliases: Sequence[str] = (),
    many: bool = False,
    group: str = "",
) -> Any:
    """A dataclass field that is also a flag; `parse` turns text into the value, `many` takes several values."""
    metadata = {
        "help": help, "parse": parse, "metavar": metavar, "choices": choices, "aliases": aliases, "many": many,
        "group": group,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def flag(default: bool, help: str, *, group: str = "") -> Any:
    """A dataclass field that is switched on by `--name` and off by `--no_name`; `help` begins with what it does."""
    return dataclasses.field(
        default=default, metadata={"help": help, "parse": parse_bool, "flag": True, "group": group}
    )


def parse_bool(text: str) -> bool:
    """yes/no as people and TOML write it.

    :raises ValueError: anything else
    """
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if str(text).lower() not in words:
        raise ValueError(f"{text!r} is neither yes nor no")
    return words[str(text).lower()]


def parse_whole(text: str) -> int:
    """A whole number.

    :raises ValueError: anything else
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def parse_count(text: str) -> int:
    """A whole number above 0.

    :raises ValueError: anything else
    """
    value = parse_whole(text)
    if value <= 0:
        raise ValueError(f"{text} is not above 0")
    return value


def parse_number(text: str) -> float:
    """A finite number.

    :raises ValueError: anything else
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def parse_positive(text: str) -> float:
    """A finite number above 0.

    :raises ValueError: anything else
    """
    value = parse_number(text)
    if value <= 0:
        raise ValueError(f"{text} is not above 0")
    return value


def parse_fraction(text: str) -> float:
    """A number above 0 and below 1.

    :raises ValueError: anything else
    """
    value = parse_positive(text)
    if value >= 1:
        raise ValueError(f"{text} is not below 1")
    return value


def credits_option(default: int | None, help: str, *, group: str = "") -> Any:
    """A field in micro-credits that people write in credits."""
    return option(default, help, parse=parse_credits, metavar="CREDITS", group=group)


def add_flags(parser: argparse.ArgumentParser, kind: type) -> None:
    """Adds one flag a field, in its group; what is not given stays out of the namespace."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with any of these settings")
    groups: dict[str, Group] = {"": parser}
    for field in dataclasses.fields(kind):
        title = field.metadata["group"]
        groups[title] = groups.get(title) or parser.add_argument_group(title)
        _add_field(groups[title], field)


def written(field: dataclasses.Field[Any], value: Any) -> str:
    """A setting's value as a person writes it; empty for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field.metadata["parse"] is parse_credits:
        return format_credits(value)
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def add_flag(group: Group, *names: str, help: str, **about: Any) -> None:
    """One flag: `names` are shown in the help, their spellings with dashes are taken too."""
    group.add_argument(*names, help=help.replace("%", "%%"), **about)
    for name in names:
        dashed = "--" + name.removeprefix("--").replace("_", "-")
        if dashed != name:
            group.add_argument(dashed, help=argparse.SUPPRESS, **about)


def _add_field(group: Group, field: dataclasses.Field[Any]) -> None:
    about = field.metadata
    common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    if about.get("flag"):
        for name, const in (("--" + field.name, "yes"), ("--no_" + field.name, "no")):
            words = about["help"] if const == "yes" else f"do not {about['help']}"
            changes = (const == "no") == field.default  # the other one is for overruling a file
            add_flag(
                group, name, help=words if changes else argparse.SUPPRESS, action="store_const", const=const, **common
            )
        return
    default = written(field, field.default)
    add_flag(
        group,
        *("--" + word for word in (field.name, *about["aliases"])),
        help=f"{about['help']} (default: {default})" if default else about["help"],
        nargs="+" if about["many"] else None,
        metavar="{" + ",".join(about["choices"]) + "}" if about["choices"] else about["metavar"],
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
            origins[name] = DEFAULT
            continue
        values[name] = _parse(field, raw, origin)
        origins[name] = origin
    return kind(**values), origins


def _parse(field: dataclasses.Field[Any], raw: Any, origin: str) -> Any:
    about = field.metadata
    try:
        if about.get("many"):
            parts = raw if isinstance(raw, list) else str(raw).split()
            return tuple(about["parse"](str(part)) for part in parts)
        if isinstance(raw, (list, dict)):
            raise ValueError(f"takes one value, not {raw!r}")
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
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"cannot read the configuration {path}: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the configuration {path} is not valid TOML: {error}") from None
