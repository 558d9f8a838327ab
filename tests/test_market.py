"""A market's terms: every key of the file, and what is said about a wrong one."""

from __future__ import annotations

import copy
import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from p2pmarket.errors import MalformedMessage, TermsError
from p2pmarket.market import MarketTerms, ParameterGroup, Task, load_terms, parse_terms
from p2pmarket.parcel import CODECS
from p2pmarket.records import decode, encode

SMALLEST: dict[str, Any] = {
    "market": {"name": "digits"},
    "model": {"name": "mlp"},
    "task": [{"name": "all", "loss": "cross_entropy", "metric": "accuracy"}],
}


def changed(section: str, key: str, value: Any) -> dict[str, Any]:
    """The smallest document with one value changed."""
    document = copy.deepcopy(SMALLEST)
    if section == "task":
        document["task"][0][key] = value
    else:
        document.setdefault(section, {})[key] = value
    return document


def test_the_smallest_file_has_documented_defaults() -> None:
    terms = parse_terms(SMALLEST)
    assert terms == MarketTerms(
        name="digits",
        description="",
        model="mlp",
        model_arguments="{}",
        tasks=(Task("all", "cross_entropy", "accuracy"),),
        tradable=("*",),
        groups=(),
        rounds="continuous",
        round_agents=2,
        round_timeout_ms=300_000,
        offer_codecs=CODECS,
        delivery_codec="none",
        delivery_zstd=False,
        confidence=0.95,
        coefficients="auto",
        activations=False,
        repair=False,
        max_chain=3,
        report_steps=0,
        tell_classes=False,
        tell_tasks=False,
        pricing="midpoint",
        opening_credit=0,
        k_ppm=500_000,
        max_revisions=0,
        disclosure="none",
        publish_prices=False,
        spend_per_day=0,
        fee_ppm=0,
        max_parcel_bytes=4096 * 1024**2,
        max_agents=1000,
        max_sellers=8,
        submissions_per_hour=1000,
        upload_ms=3_600_000,
        bid_ms=120_000,
        ask_ms=30_000,
        delivery_ms=168 * 3_600_000,
    )
    assert decode(MarketTerms, encode(terms)) == terms


@pytest.mark.parametrize(
    ("section", "key", "value", "field", "expected"),
    [
        ("market", "name", "x", "name", "x"),
        ("market", "description", "words", "description", "words"),
        ("market", "rounds", "barrier", "rounds", "barrier"),
        ("market", "round_agents", 5, "round_agents", 5),
        ("market", "round_timeout_seconds", 0.5, "round_timeout_ms", 500),
        ("appraisal", "coefficients", "row", "coefficients", "row"),
        ("trade", "groups", {"head": ["h.*"]}, "groups", (ParameterGroup("head", ("h.*",)),)),
        ("appraisal", "activations", True, "activations", True),
        ("appraisal", "repair", True, "repair", True),
        ("appraisal", "max_chain", 1, "max_chain", 1),
        ("appraisal", "report_steps", 16, "report_steps", 16),
        ("appraisal", "tell_classes", True, "tell_classes", True),
        ("appraisal", "tell_tasks", True, "tell_tasks", True),
        ("model", "name", "package.module:factory", "model", "package.module:factory"),
        ("model", "arguments", {"b": 1, "a": [2]}, "model_arguments", '{"a": [2], "b": 1}'),
        ("trade", "tradable", ["body.*"], "tradable", ("body.*",)),
        ("trade", "offer_codecs", ["int8"], "offer_codecs", ("int8",)),
        ("trade", "delivery_codec", "float16", "delivery_codec", "float16"),
        ("trade", "delivery_zstd", True, "delivery_zstd", True),
        ("trade", "confidence", 0.9, "confidence", 0.9),
        ("pricing", "rule", "midpoint", "pricing", "midpoint"),
        ("pricing", "opening_credit", "4.20", "opening_credit", 4_200_000),
        ("pricing", "opening_credit", 4.2, "opening_credit", 4_200_000),
        ("pricing", "opening_credit", 0.000001, "opening_credit", 1),
        ("pricing", "fee_percent", "2.5", "fee_ppm", 25_000),
        ("limits", "max_parcel_mib", 1, "max_parcel_bytes", 1024**2),
        ("limits", "max_agents", 2, "max_agents", 2),
        ("limits", "max_sellers", 1, "max_sellers", 1),
        ("limits", "submissions_per_hour", 1, "submissions_per_hour", 1),
        ("limits", "upload_seconds", 1, "upload_ms", 1000),
        ("limits", "bid_seconds", 1, "bid_ms", 1000),
        ("limits", "ask_seconds", 1, "ask_ms", 1000),
        ("limits", "delivery_hours", 1, "delivery_ms", 3_600_000),
    ],
)
def test_every_key_reaches_its_field(section: str, key: str, value: Any, field: str, expected: Any) -> None:
    assert getattr(parse_terms(changed(section, key, value)), field) == expected


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("market", "name", ""),
        ("market", "name", 5),
        ("market", "name", "x" * 65),
        ("market", "description", "x" * 1025),
        ("market", "rounds", "whenever"),
        ("market", "round_agents", 1),
        ("market", "round_agents", "2"),
        ("market", "round_timeout_seconds", 0),
        ("market", "round_timeout_seconds", float("inf")),
        ("market", "round_timeout_seconds", float("nan")),
        ("market", "round_timeout_seconds", True),
        ("market", "round_timeout_seconds", 0.01),
        ("model", "name", ""),
        ("model", "arguments", 5),
        ("model", "arguments", {"width": float("nan")}),
        ("model", "arguments", {"since": datetime.date(2020, 1, 1)}),
        ("model", "arguments", {"name": "x" * 5000}),
        ("trade", "tradable", []),
        ("trade", "tradable", "*"),
        ("trade", "tradable", [5]),
        ("trade", "offer_codecs", ["gzip"]),
        ("trade", "delivery_codec", "gzip"),
        ("trade", "delivery_zstd", "yes"),
        ("trade", "confidence", 0.3),
        ("trade", "confidence", 1),
        ("pricing", "rule", "auction"),
        ("pricing", "opening_credit", "-1"),
        ("pricing", "opening_credit", "much"),
        ("pricing", "fee_percent", 101),
        ("pricing", "fee_percent", "0.00001"),
        ("pricing", "fee_percent", "some"),
        ("limits", "max_parcel_mib", 0),
        ("limits", "max_parcel_mib", 10**9),
        ("limits", "max_agents", 1),
        ("limits", "max_sellers", 65),
        ("limits", "submissions_per_hour", 0),
        ("limits", "upload_seconds", -1),
        ("limits", "bid_seconds", "soon"),
        ("limits", "ask_seconds", 10**9),
        ("limits", "delivery_hours", 10**6),
        ("task", "name", ""),
        ("task", "loss", "hinge"),
        ("task", "metric", "f1"),
        ("task", "arguments", [1]),
        ("appraisal", "coefficients", "neuron"),
        ("appraisal", "max_chain", 9),
        ("trade", "groups", ["head"]),
        ("trade", "groups", {"head": "h.*"}),
        ("trade", "groups", {"head": []}),
        ("appraisal", "tell_classes", "yes"),
        ("appraisal", "report_steps", -1),
        ("task", "weight", 1),
        ("market", "colour", "red"),
        ("trade", "codec", "none"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(section: str, key: str, value: Any) -> None:
    with pytest.raises(TermsError, match=rf"\b{key}\b"):
        parse_terms(changed(section, key, value))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, r"\[market\] needs a 'name'"),
        ({**SMALLEST, "model": {}}, r"\[model\] needs a 'name'"),
        ({**SMALLEST, "task": []}, "at least one"),
        ({**SMALLEST, "task": SMALLEST["task"] * 2}, "same name"),
        ({**SMALLEST, "task": [{**SMALLEST["task"][0], "name": str(i)} for i in range(65)]}, r"\[\[task\]\]"),
        ({**SMALLEST, "task": ["all"]}, r"\[\[task\]\]"),
        ({**SMALLEST, "task": [{"name": "all"}]}, "loss"),
        ({**SMALLEST, "prices": {}}, r"\[prices\]"),
        ({**SMALLEST, "limits": 5}, r"\[limits\] must be a table"),
    ],
)
def test_a_wrong_form_is_said(document: dict[str, Any], words: str) -> None:
    with pytest.raises(TermsError, match=words):
        parse_terms(document)


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        (
            "pricing",
            "fee_percent",
            "33.33333333",
            "fee_percent is '33.33333333'; a percentage has at most four decimals",
        ),
        ("pricing", "fee_percent", "nan", "fee_percent must be a percentage between 0 and 100"),
        ("pricing", "fee_percent", "inf", "fee_percent must be a percentage between 0 and 100"),
        ("pricing", "max_revisions", 2.5, r"^max_revisions in \[pricing\] must be a whole number$"),
        ("pricing", "publish_prices", 1, r"^publish_prices in \[pricing\] must be true or false$"),
        ("trade", "confidence", 1, r"^confidence in \[trade\] must be a number with a point, such as 0.95$"),
        ("market", "description", 5, r"^description in \[market\] must be a text$"),
        ("pricing", "rule", "vickrey", r"^rule in \[pricing\] is 'vickrey'; it is posted, midpoint or k$"),
        ("pricing", "disclosure", "all", r"^disclosure in \[pricing\] is 'all'; it is none or paper$"),
        ("market", "rounds", "often", r"^rounds in \[market\] is 'often'; it is continuous or barrier$"),
        ("appraisal", "coefficients", "x", r"^coefficients in \[appraisal\] is 'x'; it is auto, model, tensor or row$"),
        (
            "trade",
            "delivery_codec",
            "gzip",
            r"^delivery_codec in \[trade\] is 'gzip'; it is none, float16, .* or int8$",
        ),
        ("trade", "offer_codecs", ["gzip"], r"^offer_codecs in \[trade\] is 'gzip'; it is none, float16, .* or int8$"),
        ("task", "loss", "mae", r"^loss in \[\[task\]\] is 'mae'; it is cross_entropy or mse$"),
        ("task", "metric", "f1", r"^metric in \[\[task\]\] is 'f1'; it is accuracy or loss$"),
    ],
)
def test_what_a_key_may_be_is_said_in_words_of_the_file(section: str, key: str, value: Any, words: str) -> None:
    with pytest.raises(TermsError, match=words):
        parse_terms(changed(section, key, value))


@pytest.mark.parametrize(("rule", "percent"), [("posted", "50"), ("midpoint", "0"), ("midpoint", 33.3)])
def test_a_k_of_another_rule_is_refused(rule: str, percent: str | float) -> None:
    pricing = {"rule": rule, "k_percent": percent}
    with pytest.raises(TermsError, match=rf"k_percent in \[pricing\] is {percent}, and the rule '{rule}' has its own"):
        parse_terms({**SMALLEST, "pricing": pricing})
    with pytest.raises(TermsError, match="at most four decimals"):
        parse_terms({**SMALLEST, "pricing": {"rule": "k", "k_percent": "33.33333333"}})


@pytest.mark.parametrize(
    ("pricing", "k_ppm"),
    [
        ({"rule": "posted"}, 0),
        ({"rule": "posted", "k_percent": 0}, 0),
        ({"rule": "k", "k_percent": "33.3333"}, 333_333),
    ],
)
def test_a_k_that_agrees_with_its_rule(pricing: dict[str, Any], k_ppm: int) -> None:
    assert parse_terms({**SMALLEST, "pricing": pricing}).k_ppm == k_ppm


def test_a_file_is_named_with_what_is_wrong_in_it(tmp_path: Path) -> None:
    path = tmp_path / "terms.toml"
    with pytest.raises(TermsError, match=r"terms\.toml: No such file"):
        load_terms(path)
    for text, words in (("x = [", "not valid TOML"), ("[market]\nname = 5", "needs|is int")):
        path.write_text(text)
        with pytest.raises(TermsError, match=words) as refused:
            load_terms(path)
        assert str(path) in str(refused.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TermsError, match="cannot read"):
        load_terms(path)


def test_terms_answer_for_tasks_tensors_and_arguments() -> None:
    document = {**SMALLEST, "model": {"name": "mlp", "arguments": {"widths": [64, 32]}}, "trade": {"tradable": ["a.*"]}}
    terms = parse_terms(document)
    assert terms.task("all") == terms.tasks[0]
    assert terms.task("none") is None
    assert terms.is_tradable("a.weight") and not terms.is_tradable("b.weight")
    assert terms.arguments("all") == {"widths": [64, 32]}


@pytest.mark.parametrize("text", ["[]", "{x", "[" * 4000])
def test_a_brokers_arguments_are_an_object_or_refused(text: str) -> None:
    fields = {**vars(parse_terms(SMALLEST)), "model_arguments": text}
    with pytest.raises(MalformedMessage, match="JSON object"):
        MarketTerms(**fields).arguments("all")


def test_arguments_survive_the_wire() -> None:
    assert json.loads(parse_terms(changed("model", "arguments", {"b": 1.5})).model_arguments) == {"b": 1.5}
