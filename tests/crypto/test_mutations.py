"""No altered byte passes: random mutations over every signed and sealed format, and controls that can fail.

`P2PMARKET_MUTATIONS` sets the number of the quick run; `pytest -m slow tests/crypto/test_mutations.py` runs 100,000.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from crypto_examples import (
    SELLER,
    SIGNED_TYPES,
    STRANGER,
    context,
    example,
    flat,
    open_flat,
    seal,
    sealer_for,
)

from p2pmarket import limits
from p2pmarket.crypto import header, sealing, signing
from p2pmarket.crypto.sealing import TAG_BYTES
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import PeerFault

QUICK = int(os.environ.get("P2PMARKET_MUTATIONS", "4000"))
SLOW = max(100_000, QUICK)
Reader = Callable[[bytes], bytes]
"""Accepts bytes and returns those it looked at, or raises PeerFault or EOFError."""


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHUNK_BYTES", 16)


# ---- mutations: (data, another valid one, randomness) -> bytes ----------------------------------------------------


def flip_bits(data: bytes, other: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def change_byte(data: bytes, other: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes((chance.randrange(256),)) + data[place + 1 :]


def truncate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def insert(data: bytes, other: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(chance.randint(1, 40)) + data[place:]


def delete(data: bytes, other: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + data[place + chance.randint(1, 40) :]


def swap_blocks(data: bytes, other: bytes, chance: random.Random) -> bytes:
    size = chance.choice((1, 16, 32, 64))
    one, two = sorted(chance.randrange(len(data)) for _ in range(2))
    if one + size > two or two + size > len(data):
        return flip_bits(data, other, chance)
    middle = data[one + size : two]
    return data[:one] + data[two : two + size] + middle + data[one : one + size] + data[two + size :]


def splice(data: bytes, other: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(min(len(data), len(other)))
    return data[:place] + other[place:]


def splice_ends(data: bytes, other: bytes, chance: random.Random) -> bytes:
    size = chance.randrange(min(len(data), len(other)))
    return data[: len(data) - size] + other[len(other) - size :]


def transplant(data: bytes, other: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(min(len(data), len(other)))
    end = start + chance.choice((16, 32, 64, 96))
    return data[:start] + other[start:end] + data[end:]


MUTATIONS = (flip_bits, change_byte, truncate, insert, delete, swap_blocks, splice, splice_ends, transplant)


# ---- what is attacked ---------------------------------------------------------------------------------------------


def record_reader(kind: Any) -> Reader:
    def read(data: bytes) -> bytes:
        verify(data, kind, signer=SELLER.peer_id)
        return data

    return read


def parcel_reader(data: bytes) -> bytes:
    return open_flat(data)[1]


def targets() -> dict[str, tuple[list[bytes], Reader]]:
    """For each format, valid ones of several senders and contents, and its reader."""
    formats: dict[str, tuple[list[bytes], Reader]] = {}
    for name, kind in SIGNED_TYPES.items():
        records = [sign(who, example(kind, seed)) for who in (SELLER, STRANGER) for seed in (0, 1)]
        formats[name] = records, record_reader(kind)
    for suite in (1, 2):
        for cipher in (1, 2):
            formats[f"parcel-{suite}-{cipher}"] = parcels(suite, cipher), parcel_reader
    return formats


def parcels(suite: int, cipher: int) -> list[bytes]:
    """Two parcels for the same place, and one each of another trade, sender and time."""
    changes: list[dict[str, Any]] = [{}, {"message_id": b"n" * 16}, {"trade": b"u" * 16}, {"issued_ms": 1}]
    made = [sealer_for(context(suite, cipher, **change), bytes((n,)) * 32) for n, change in enumerate(changes)]
    made.append(sealer_for(context(suite, cipher, sender=STRANGER.peer_id), b"s" * 32, STRANGER))
    return [flat(seal(sealer, bytes((n,)) * 40)) for n, sealer in enumerate(made)]


def swapped_chunks(data: bytes, chance: random.Random) -> bytes:
    """The same parcel with two of its sealed chunks exchanged, or one of them repeated."""
    first = 4 + int.from_bytes(data[:4], "big")
    size = 16 + TAG_BYTES
    chunks = [data[first : first + size], data[first + size : first + 2 * size]]
    order = chance.choice(((1, 0), (0, 0), (1, 1)))
    return data[:first] + b"".join(chunks[place] for place in order) + data[first + 2 * size :]


def mutated(data: bytes, other: bytes, chance: random.Random, *, is_parcel: bool) -> bytes:
    """One mutant; of parcels half are altered behind the header, which is most of so small a parcel's bytes."""
    mutate = chance.choice(MUTATIONS)
    if not is_parcel or chance.random() < 0.5:
        return mutate(data, other, chance)
    if chance.random() < 0.1:
        return swapped_chunks(data, chance)
    first = 4 + int.from_bytes(data[:4], "big")
    return data[:first] + mutate(data[first:], other[first:] or other, chance)


def accepted(count: int, seed: int, formats: dict[str, tuple[list[bytes], Reader]]) -> Counter[str]:
    """How many mutants of each format were accepted, over `count` mutants spread evenly; the count is under ""."""
    chance, result = random.Random(seed), Counter[str]()
    valid = {data for examples, _ in formats.values() for data in examples}
    everything = sorted(valid)
    names = sorted(formats)
    while result[""] < count:
        name = names[result[""] % len(names)]
        examples, read = formats[name]
        other = chance.choice(examples if chance.random() < 0.8 else everything)
        mutant = mutated(examples[chance.randrange(2)], other, chance, is_parcel=name.startswith("parcel"))
        if mutant in valid:
            continue
        result[""] += 1
        try:
            result[name] += read(mutant) not in valid
        except (PeerFault, EOFError):
            continue
    return result


def rejected_all(count: int, seed: int) -> None:
    formats = targets()
    for name, (examples, read) in formats.items():
        assert read(examples[0]) == examples[0], f"the unaltered {name} must be accepted"
    result = accepted(count, seed, formats)
    assert result.pop("") == count
    assert +result == Counter()


def test_no_mutant_is_accepted() -> None:
    rejected_all(QUICK, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_mutant_of_a_hundred_thousand_is_accepted() -> None:
    rejected_all(SLOW, seed=2)


# ---- controls -----------------------------------------------------------------------------------------------------


def no_check(public_key: bytes, signature: bytes, data: bytes, what: str) -> None:
    """Accepts any signature."""


def test_control_without_signatures_mutants_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (signing, header, sealing):
        monkeypatch.setattr(module, "check_signature", no_check)
    result = accepted(2000, 3, targets())
    assert sum(result[name] > 0 for name in SIGNED_TYPES) > len(SIGNED_TYPES) // 2
    assert sum(result[f"parcel-{suite}-{cipher}"] for suite in (1, 2) for cipher in (1, 2)) > 0


def test_control_without_chunk_tags_mutants_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing._Chunks, "open", lambda self, index, sealed, out: None)
    formats = {name: target for name, target in targets().items() if name.startswith("parcel")}
    result = accepted(2000, 4, formats)
    # The trailer still covers the tags: what passes now has an altered body and an unaltered tag.
    assert all(result[name] > 0 for name in formats), result
