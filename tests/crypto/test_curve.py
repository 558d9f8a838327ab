"""Which 32 bytes are a public key."""

from __future__ import annotations

import random

from p2pmarket.crypto.curve import is_public_key
from p2pmarket.crypto.keys import Identity

P = 2**255 - 19


def test_every_real_key_is_one() -> None:
    assert all(is_public_key(Identity.generate().public_key) for _ in range(50))


def test_half_of_all_bytes_are_no_point() -> None:
    chance = random.Random(1)
    points = sum(is_public_key(chance.randbytes(32)) for _ in range(400))
    assert 150 < points < 250


def test_points_of_small_order_and_second_spellings_are_none() -> None:
    order_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    for y in (0, 1, P - 1, int.from_bytes(order_8, "little"), P - int.from_bytes(order_8, "little")):
        for sign in (0, 1):
            assert not is_public_key((y | sign << 255).to_bytes(32, "little"))
    assert not is_public_key((P + 3).to_bytes(32, "little"))
    assert not is_public_key(b"short")
