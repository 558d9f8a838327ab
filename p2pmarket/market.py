"""A market's terms: what is traded, how it is measured, priced and delivered, and the limits on all of it.

Knows: the record that a broker signs and agents fetch, and the TOML file an operator writes it in.
Refuses to know: who joins (network/), what the model computes (models/). A wrong file raises `TermsError`, which
names the key.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar

from p2pmarket import limits
from p2pmarket.errors import MalformedMessage, TermsError
from p2pmarket.parcel import CODECS
from p2pmarket.records import Amount, Bound, Count, Millis, Name, OneOf, Record, Text
from p2pmarket.units import parse_credits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOSSES = ("cross_entropy", "mse")
METRICS = ("accuracy", "loss")
ROUNDS = ("continuous", "barrier")
COEFFICIENTS = ("auto", "model", "tensor", "row")
PRICING = {"posted": 0, "midpoint": 500_000}
"""Rules with a name and their k, in millionths: the price is ask + k (bid - ask)."""
DISCLOSURES = ("none", "paper")

Duration = Annotated[Millis, Bound(100, 366 * 24 * 3600 * 1000)]


@dataclasses.dataclass(frozen=True)
class Task(Record):
    """What models are good for in this market; the broker holds validation data for each task."""

    name: Name
    loss: Annotated[str, OneOf(LOSSES)]
    metric: Annotated[str, OneOf(METRICS)]
    model_arguments: Annotated[str, Bound(2, 4096)] = "{}"
    """JSON object laid over the market's own: a head with other outputs, say. What still fits is traded."""


@dataclasses.dataclass(frozen=True)
class ParameterGroup(Record):
    """A part of the model that can be bought or sold by itself."""

    name: Name
    patterns: Annotated[tuple[Annotated[str, Bound(1, 256)], ...], Bound(1, 64)]
    """Globs on tensor names."""


@dataclasses.dataclass(frozen=True)
class MarketTerms(Record):
    """Everything an agent must know before it trades. Signed by the broker."""

    TYPE: ClassVar[str] = "market-terms"
    name: Name
    description: Text
    model: Annotated[str, Bound(1, 256)]
    """A built-in model, or `package.module:factory`, which every operator must name in their own configuration."""
    model_arguments: Annotated[str, Bound(2, 4096)]
    """JSON object of the built-in model's arguments."""
    tasks: Annotated[tuple[Task, ...], Bound(1, 64)]
    tradable: Annotated[tuple[Annotated[str, Bound(1, 256)], ...], Bound(1, 64)]
    """Glob patterns on tensor names: what a purchase may change."""
    groups: Annotated[tuple[ParameterGroup, ...], Bound(0, limits.MAX_GROUPS)]
    """Parts that agents may restrict their trades to."""
    rounds: Annotated[str, OneOf(ROUNDS)]
    round_agents: Annotated[int, Bound(2, 1024)]
    """Barrier rounds: appraise when this many agents have submitted."""
    round_timeout_ms: Duration
    """Barrier rounds: appraise those who have submitted after this time."""
    offer_codecs: Annotated[tuple[Annotated[str, OneOf(CODECS)], ...], Bound(1, len(CODECS))]
    """Codecs in which snapshots may be submitted."""
    delivery_codec: Annotated[str, OneOf(CODECS)]
    """Codec of what is delivered; the broker measures after decoding it."""
    delivery_zstd: bool
    confidence: Annotated[float, Bound(0.5, 0.9999)]
    """Of the interval around a reported gain."""
    coefficients: Annotated[str, OneOf(COEFFICIENTS)]
    """The finest that a merge may have; auto: as fine as the validation data allows."""
    activations: bool
    """Whether units are also matched by what they answer to SELECT's inputs, and the better alignment wins."""
    repair: bool
    """Whether merges get REPAIR's statistics: for deep models without normalisation."""
    max_chain: Annotated[int, Bound(1, limits.MAX_CHAIN)]
    """Purchases upon one another that are appraised for one submission."""
    report_steps: Annotated[int, Bound(0, 65536)]
    """Reports are told in steps of one `report_steps`-th of the agent's loss, and its own loss only when it is better
    than what it was told before (appraisal/ladder); 0: as measured."""
    tell_classes: bool
    """Whether reports say what changes for each class."""
    tell_tasks: bool
    """Whether reports say what changes on the market's other tasks."""
    pricing: Annotated[str, OneOf((*PRICING, "k"))]
    """Where between ask and bid the price falls (pricing/bargaining)."""
    k_ppm: Annotated[int, Bound(0, 1_000_000)]
    """The rule's k, in millionths: 0 the ask (posted), 500000 the midpoint, 1000000 the bid."""
    max_revisions: Annotated[int, Bound(0, 64)]
    """How often a bid below the ask may be raised, and the ask lowered; the trade closes at the first overlap."""
    disclosure: Annotated[str, OneOf(DISCLOSURES)]
    """What a seller that is asked for a price is told of the gain: nothing, or weight and ratio as in the paper."""
    publish_prices: bool
    """Whether agents may ask for anonymous statistics of bids and prices."""
    spend_per_day: Amount
    """Micro-credits that an account may spend in 24 hours, against stolen keys; 0: no limit."""
    opening_credit: Amount
    """Micro-credits that an account starts with."""
    fee_ppm: Annotated[int, Bound(0, 1_000_000)]
    """The broker's part of a price, in millionths."""
    max_parcel_bytes: Annotated[int, Bound(1024, limits.MAX_PARCEL_BYTES)]
    max_agents: Annotated[int, Bound(2, 1_000_000)]
    """Accounts the broker opens."""
    max_sellers: Annotated[int, Bound(1, 64)]
    """Sellers appraised in full for one submission, the most promising (broker_node/scouting)."""
    submissions_per_hour: Annotated[int, Bound(1, 1_000_000)]
    """Per agent: bounds the broker's work and what repeated reports can leak (docs/assumptions.md)."""
    upload_ms: Duration
    """An accepted submission must have arrived by then."""
    bid_ms: Duration
    """Bids are taken for this long after a gain report."""
    ask_ms: Duration
    """A seller without a standing ask must answer within this time."""
    delivery_ms: Duration
    """A settled delivery is kept for this long."""

    def task(self, name: str) -> Task | None:
        """The task of that name, or None."""
        return next((task for task in self.tasks if task.name == name), None)

    def is_tradable(self, tensor: str, groups: Sequence[str] = ()) -> bool:
        """Whether a purchase may change the tensor of that name; of one restricted to `groups`, where any is named."""
        wanted = [pattern for group in self.groups if group.name in groups for pattern in group.patterns]
        return _matches(tensor, self.tradable) and (not groups or _matches(tensor, wanted))

    def arguments(self, task: str) -> dict[str, Any]:
        """The model's arguments for one of the tasks.

        :raises MalformedMessage: not a JSON object
        """
        own = self.task(task)
        return {**_object(self.model_arguments), **(_object(own.model_arguments) if own else {})}


def _matches(tensor: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(tensor, pattern) for pattern in patterns)


def _object(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise MalformedMessage("the terms' model_arguments are not a JSON object")
    return arguments


_SECTIONS: dict[str, dict[str, object]] = {
    # section -> key -> default; ... marks a key that must be given
    "market": {
        "name": ...,
        "description": "",
        "rounds": "continuous",
        "round_agents": 2,
        "round_timeout_seconds": 300,
    },
    "model": {"name": ..., "arguments": {}},
    "trade": {
        "tradable": ["*"],
        "groups": {},
        "offer_codecs": list(CODECS),
        "delivery_codec": "none",
        "delivery_zstd": False,
        "confidence": 0.95,
    },
    "appraisal": {
        "coefficients": "auto",
        "activations": False,
        "repair": False,
        "max_chain": 3,
        "report_steps": 0,
        "tell_classes": False,
        "tell_tasks": False,
    },
    "pricing": {
        "rule": "midpoint",
        "k_percent": "50",
        "max_revisions": 0,
        "disclosure": "none",
        "publish_prices": False,
        "opening_credit": "0",
        "fee_percent": "0",
        "spend_per_day": "0",
    },
    "limits": {
        "max_parcel_mib": 4096,
        "max_agents": 1000,
        "max_sellers": 8,
        "submissions_per_hour": 1000,
        "upload_seconds": 3600,
        "bid_seconds": 120,
        "ask_seconds": 30,
        "delivery_hours": 168,
    },
}
_TASK_KEYS = {"name", "loss", "metric"}
_KEY_OF_FIELD = {
    "model": "name",
    "model_arguments": "arguments",
    "round_timeout_ms": "round_timeout_seconds",
    "pricing": "rule",
    "k_ppm": "k_percent",
    "fee_ppm": "fee_percent",
    "max_parcel_bytes": "max_parcel_mib",
    "upload_ms": "upload_seconds",
    "bid_ms": "bid_seconds",
    "ask_ms": "ask_seconds",
    "delivery_ms": "delivery_hours",
}
"""Fields that the file writes under another name, mostly in another unit."""


def terms_defaults() -> dict[str, dict[str, Any]]:
    """The sections of a terms file but [[task]], each with its keys and their defaults; of a key that must be given,
    None."""
    return {
        section: {key: None if value is ... else copy.deepcopy(value) for key, value in keys.items()}
        for section, keys in _SECTIONS.items()
    }


def load_terms(path: Path) -> MarketTerms:
    """Reads a market's terms from a TOML file (broker_node/market.example.toml explains every key).

    :raises TermsError: no such file, not TOML, an unknown key, or a value out of its bounds; names the key
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TermsError(f"cannot read the market terms {path}: {reason}") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TermsError(f"the market terms {path} are not valid TOML: {error}") from None
    try:
        return parse_terms(document)
    except TermsError as error:
        raise TermsError(f"{path}: {error}") from None


def parse_terms(document: dict[str, Any]) -> MarketTerms:
    """Terms from a parsed TOML document.

    :raises TermsError: names the first wrong key
    """
    unknown = sorted(set(document) - set(_SECTIONS) - {"task"})
    if unknown:
        raise TermsError(f"unknown section [{unknown[0]}]; known are [[task]] and {', '.join(_SECTIONS)}")
    values = {section: _section(document, section) for section in _SECTIONS}
    market, model, trade, appraisal, pricing, bounds = (values[section] for section in _SECTIONS)
    try:
        return MarketTerms(
            name=market["name"],
            description=market["description"],
            model=model["name"],
            model_arguments=_json(model, "arguments"),
            tasks=_tasks(document),
            tradable=_texts(trade, "tradable"),
            groups=_groups(trade["groups"]),
            rounds=market["rounds"],
            round_agents=market["round_agents"],
            round_timeout_ms=_milliseconds(market, "round_timeout_seconds", 1000),
            offer_codecs=_texts(trade, "offer_codecs"),
            delivery_codec=trade["delivery_codec"],
            delivery_zstd=trade["delivery_zstd"],
            confidence=trade["confidence"],
            coefficients=appraisal["coefficients"],
            activations=appraisal["activations"],
            repair=appraisal["repair"],
            max_chain=appraisal["max_chain"],
            report_steps=appraisal["report_steps"],
            tell_classes=appraisal["tell_classes"],
            tell_tasks=appraisal["tell_tasks"],
            pricing=pricing["rule"],
            k_ppm=_k(pricing, document.get("pricing", {})),
            max_revisions=pricing["max_revisions"],
            disclosure=pricing["disclosure"],
            publish_prices=pricing["publish_prices"],
            spend_per_day=_credits(pricing, "spend_per_day"),
            opening_credit=_credits(pricing, "opening_credit"),
            fee_ppm=_parts_per_million(pricing, "fee_percent"),
            max_parcel_bytes=_number(bounds, "max_parcel_mib") * 1024 * 1024,
            max_agents=bounds["max_agents"],
            max_sellers=bounds["max_sellers"],
            submissions_per_hour=bounds["submissions_per_hour"],
            upload_ms=_milliseconds(bounds, "upload_seconds", 1000),
            bid_ms=_milliseconds(bounds, "bid_seconds", 1000),
            ask_ms=_milliseconds(bounds, "ask_seconds", 1000),
            delivery_ms=_milliseconds(bounds, "delivery_hours", 3_600_000),
        )
    except MalformedMessage as error:
        raise TermsError(_in_words_of_the_file(str(error))) from None


_KINDS = {
    "int": "a whole number",
    "float": "a number with a point, such as 0.95",
    "bool": "true or false",
    "str": "a text",
}


def _in_words_of_the_file(problem: str) -> str:
    """ "MarketTerms.bid_ms is ..." -> "bid_seconds in [limits] is ..."."""
    field, _, rest = problem.partition(" ")
    record, _, name = field.partition(".")
    if kinds := re.fullmatch(r"is \w+, not (\w+)", rest):
        rest = f"must be {_KINDS[kinds[1]]}"
    elif choice := re.fullmatch(r"is out of bounds \((.*), must be one of (.*)\)", rest):
        *words, last = choice[2].split(", ")
        rest = f"is {choice[1]}; it is {', '.join(words)} or {last}"
    if record == Task.__name__:
        return f"{name} in [[task]] {rest}"
    if record == ParameterGroup.__name__:
        return f"groups in [trade]: a group's {name} {rest}"
    if name == "tasks":
        return f"the list of [[task]] tables {rest}"
    key = _KEY_OF_FIELD.get(name, name)
    section = "model" if name == "model" else next(section for section, keys in _SECTIONS.items() if key in keys)
    return f"{key} in [{section}] {rest}"


def _section(document: dict[str, Any], section: str) -> dict[str, Any]:
    given = document.get(section, {})
    keys = _SECTIONS[section]
    if not isinstance(given, dict):
        raise TermsError(f"[{section}] must be a table")
    unknown = sorted(set(given) - set(keys))
    if unknown:
        raise TermsError(f"unknown key {unknown[0]!r} in [{section}]; known are {', '.join(keys)}")
    missing = [key for key, default in keys.items() if default is ... and key not in given]
    if missing:
        raise TermsError(f"[{section}] needs a {missing[0]!r}")
    return {**keys, **given}


def _tasks(document: dict[str, Any]) -> tuple[Task, ...]:
    tables = document.get("task", [])
    if not isinstance(tables, list) or not tables:
        raise TermsError("at least one [[task]] with a name, a loss and a metric is needed")
    for table in tables:
        if not isinstance(table, dict):
            raise TermsError("write each task as a table of its own, under [[task]]")
        wrong = sorted(set(table) - {"arguments"} ^ _TASK_KEYS)
        if wrong:
            raise TermsError(
                f"[[task]] has the keys name, loss and metric, and arguments where its model differs; see {wrong[0]!r}"
            )
    tasks = tuple(
        Task(table["name"], table["loss"], table["metric"], _json({"arguments": {}, **table}, "arguments"))
        for table in tables
    )
    if len({task.name for task in tasks}) < len(tasks):
        raise TermsError("two [[task]] tables have the same name")
    return tasks


def _groups(given: object) -> tuple[ParameterGroup, ...]:
    if not isinstance(given, dict) or not all(isinstance(patterns, list) for patterns in given.values()):
        raise TermsError('groups must be a table such as { trunk = ["layers.*"], head = ["head.*"] }')
    return tuple(ParameterGroup(name, tuple(patterns)) for name, patterns in given.items())


def _json(table: dict[str, Any], key: str) -> str:
    if not isinstance(table[key], dict):
        raise TermsError(f"{key} must be a table, such as {{ width = 32 }}, not {table[key]!r}")
    try:
        return json.dumps(table[key], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        raise TermsError(f"{key} may hold finite numbers, texts, booleans, lists and tables only") from None


def _texts(table: dict[str, Any], key: str) -> tuple[Any, ...]:
    if not isinstance(table[key], list):
        raise TermsError(f"{key} must be a list of texts")
    return tuple(table[key])


def _number(table: dict[str, Any], key: str) -> Count:
    if type(table[key]) is not int or table[key] <= 0:
        raise TermsError(f"{key} must be a whole number above 0, not {table[key]!r}")
    return int(table[key])


def _milliseconds(table: dict[str, Any], key: str, unit: int) -> int:
    if type(table[key]) not in (int, float) or not 0 < table[key] < math.inf:
        raise TermsError(f"{key} must be a number above 0, not {table[key]!r}")
    return int(table[key] * unit)


def _credits(table: dict[str, Any], key: str) -> int:
    value = table[key]
    try:
        # Python writes a small float of TOML with an exponent, which nobody types.
        return parse_credits(format(Decimal(str(value)), "f") if type(value) is float else str(value))
    except ValueError as error:
        raise TermsError(f"{key}: {error}") from None


def _k(pricing: dict[str, Any], given: dict[str, Any]) -> int:
    """The k of a rule: of the rule `k` as given, of the others their own.

    :raises TermsError: the file gives another rule another k than its own
    """
    parts, rule = _parts_per_million(pricing, "k_percent"), pricing["rule"]
    own = PRICING.get(rule, parts) if isinstance(rule, str) else parts
    if "k_percent" in given and parts != own:
        raise TermsError(
            f"k_percent in [pricing] is {given['k_percent']}, and the rule {rule!r} has its own, {own / 10_000:g}; "
            "leave k_percent out, or make the rule 'k'"
        )
    return own


def _parts_per_million(table: dict[str, Any], key: str) -> int:
    try:
        parts = Decimal(str(table[key])) * 10_000
    except InvalidOperation:
        parts = Decimal("nan")
    if not (parts.is_finite() and 0 <= parts <= 1_000_000):
        raise TermsError(f"{key} must be a percentage between 0 and 100, not {table[key]!r}")
    if parts != parts.to_integral_value():
        raise TermsError(f"{key} is {table[key]!r}; a percentage has at most four decimals, such as 33.3333")
    return int(parts)
