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
    ("text", "micro"), [("4.20", 4_200_000), ("0", 0), ("0.000001", 1), ("1e3", 1000 * CREDIT), (7, 7 * CREDIT)]
)
def test_credits_are_exact(text: str | int, micro: int) -> None:
    assert parse_credits(text) == micro


@pytest.mark.parametrize("text", ["", "four", "0.0000001", "-1", "-0.000001", "nan", "inf", "1e30", "1,5", "0x10"])
def test_what_is_no_amount_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="credits"):
        parse_credits(text)


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
