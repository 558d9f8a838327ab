"""Money and sizes in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.units import CREDIT, format_bytes, format_credits, now_ms, parse_credits


@given(st.integers(0, MAX_AMOUNT))
def test_what_is_shown_can_be_typed_in_again(micro: int) -> None:
    assert parse_credits(format_credits(micro)) == micro


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("4.20", 4_200_000),
        ("0", 0),
        ("0.000001", 1),
        ("007.", 7 * CREDIT),
        (".5", CREDIT // 2),
        (7, 7 * CREDIT),
        ("9007199254.740991", MAX_AMOUNT),
    ],
)
def test_credits_are_exact(text: str | int, micro: int) -> None:
    assert parse_credits(text) == micro


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "four", "-1", "-0.000001", "+1", "1,5", "0x10", "1e3", "1e400", "nan", "NaN", "inf", "-Infinity",
        "1_000", " 1", "1\n", "1 000", "1.2.3", "١٢", "１", "²", True,
    ],
)  # fmt: skip
def test_what_is_no_amount_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of credits"):
        parse_credits(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.0000001", "finer than"), ("1." + "0" * 30 + "1", "finer than"), ("9007199254.740992", "outside 0"),
        ("9" * 5000, "outside 0"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        parse_credits(text)
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize(
    ("micro", "text"), [(0, "0.00"), (-1, "-0.000001"), (1_234_567, "1.234567"), (10 * CREDIT, "10.00")]
)
def test_credits_are_shown_with_two_decimals_or_more(micro: int, text: str) -> None:
    assert format_credits(micro) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 1024**4, "3072.0 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_the_clock_is_in_milliseconds_of_this_century() -> None:
    assert 1_600_000_000_000 < now_ms() < 4_102_444_800_000
