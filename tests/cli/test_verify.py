"""`verify`: what a receipt says and whether it holds, from its bytes alone."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import identity_of

from p2pmarket.cli import main
from p2pmarket.crypto.signing import sign
from p2pmarket.ledger.leaves import pack, settlement_of
from p2pmarket.ledger.log import inclusion_proof, leaf_hash, root_of
from p2pmarket.messages import Checkpoint, Receipt
from p2pmarket.units import CREDIT

BROKER, BUYER, SELLER = identity_of("broker"), identity_of("buyer"), identity_of("seller")

Run = Callable[..., Any]


def receipt_in(size: int, index: int) -> Receipt:
    """A receipt for leaf `index` of a log of `size` leaves."""
    draft = Receipt(
        market="digits", broker=BROKER.peer_id, trade=b"t" * 16, buyer=BUYER.peer_id, seller=SELLER.peer_id,
        price=3 * CREDIT, fee=CREDIT // 2, delivery=b"d" * 32, settled_ms=1_700_000_000_000, leaf=bytes(32), index=0,
        log_size=0, root=bytes(32), proof=(),
    )  # fmt: skip
    hashes = [leaf_hash(bytes([number])) for number in range(size)]
    hashes[index] = leaf_hash(pack(settlement_of(draft)))
    return dataclasses.replace(
        draft,
        leaf=hashes[index],
        index=index,
        log_size=size,
        root=root_of(hashes),
        proof=inclusion_proof(hashes, index),
    )


RECEIPT = receipt_in(7, 4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.receipt"
    path.write_bytes(sign(BROKER, RECEIPT))
    return path


@pytest.fixture
def run(file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Verifies the file with --json; the exit code must be `code`. What was printed, parsed."""

    def command(*arguments: object, code: int = 0) -> Any:
        before = file.read_bytes()
        assert main(["verify", str(file), *map(str, arguments), "--json"]) == code
        assert file.read_bytes() == before, "evidence stays as it is"
        return json.loads(capsys.readouterr().out)

    return command


def checkpoint(folder: Path, size: int, root: bytes, **changes: object) -> Path:
    words = Checkpoint("digits", BROKER.peer_id, size, root, 1)
    path = folder / "some.checkpoint"
    path.write_bytes(sign(BROKER, dataclasses.replace(words, **changes)))  # type: ignore[arg-type]
    return path


def test_a_receipt_that_holds(run: Run, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run("--broker", BROKER.peer_id)
    assert (told["holds"], told["broker_from"], told["checkpoint"]) == (True, "given", "none")
    assert (told["price"], told["fee"], told["leaf"], told["log_size"]) == (3 * CREDIT, CREDIT // 2, 4, 7)
    assert run()["broker_from"] == "receipt"
    assert main(["verify", str(file)]) == 0
    words = capsys.readouterr().out
    for part in (BUYER.peer_id, SELLER.peer_id, BROKER.peer_id, "3.00 credits", "0.50", "2.50", "2023-11-14", "leaf 4"):
        assert part in words
    assert "compare it with yours" in words


def test_another_brokers_receipt(run: Run) -> None:
    told = run("--broker", SELLER.peer_id, code=1)
    assert told["code"] == "bad-signature" and "some.receipt does not hold" in told["sentence"]
    assert run("--broker", "nobody", code=2)["code"] == "bad-settings"


def test_a_receipt_that_was_changed(run: Run, file: Path) -> None:
    """One bit anywhere: it does not verify, or (in the signer's own key) another broker is named than expected."""
    good, chance = file.read_bytes(), random.Random(1)
    for _ in range(200):
        bent = bytearray(good)
        bent[chance.randrange(len(bent))] ^= 1 << chance.randrange(8)
        file.write_bytes(bent)
        assert main(["verify", str(file), "--broker", BROKER.peer_id]) in (1, 2)


@pytest.mark.parametrize("change", [{"price": 1}, {"index": 3}, {"log_size": 16}, {"root": bytes(32)}, {"proof": ()}])
def test_a_receipt_that_the_broker_signed_and_that_proves_nothing(run: Run, file: Path, change: dict[str, Any]) -> None:
    file.write_bytes(sign(BROKER, dataclasses.replace(RECEIPT, **change)))
    assert run(code=1)["code"] == "bad-signature"


def test_a_receipt_that_is_cut_short(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = file.read_bytes()
    for size in range(len(good)):
        file.write_bytes(good[:size])
        assert main(["verify", str(file)]) in (1, 2)
        told = capsys.readouterr()
        assert "some.receipt" in told.err and "sender" not in told.err and told.out == ""


def test_a_receipt_in_another_brokers_name(run: Run, file: Path) -> None:
    file.write_bytes(sign(SELLER, RECEIPT))
    assert run(code=1)["code"] == "bad-signature"
    assert run("--broker", BROKER.peer_id, code=1)["code"] == "bad-signature"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no receipt"), (b"rubbish", "no receipt"), (bytes(300_000), "no receipt"),
        (sign(BROKER, Checkpoint("d", "p" * 52, 1, bytes(32), 1)), "is a checkpoint and no receipt"),
    ],
)  # fmt: skip
def test_garbage_is_one_sentence_about_the_file(run: Run, file: Path, content: bytes, words: str) -> None:
    file.write_bytes(content)
    told = run(code=2)
    assert told["code"] == "bad-data" and words in told["sentence"] and "some.receipt" in told["sentence"]
    assert "sender" not in told["sentence"]


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "none", tmp_path):
        assert main(["verify", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_checkpoint_that_fits(run: Run, tmp_path: Path) -> None:
    assert run("--checkpoint", checkpoint(tmp_path, 7, RECEIPT.root))["checkpoint"] == "fits"


def test_two_heads_of_one_size_prove_that_the_broker_cheats(
    run: Run, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = checkpoint(tmp_path, 7, b"r" * 32)
    assert run("--checkpoint", other, code=1)["checkpoint"] == "contradicts"
    assert main(["verify", str(file), "--checkpoint", str(other)]) == 1
    assert "TWO LOGS" in capsys.readouterr().out


def test_a_checkpoint_of_another_size_says_neither(run: Run, tmp_path: Path) -> None:
    assert run("--checkpoint", checkpoint(tmp_path, 8, b"r" * 32))["checkpoint"] == "unknown"


def test_checkpoints_that_say_nothing(run: Run, tmp_path: Path) -> None:
    foreign = checkpoint(tmp_path, 7, RECEIPT.root, market="other")
    assert run("--checkpoint", foreign, code=2)["code"] == "bad-settings"
    foreign.write_bytes(sign(SELLER, Checkpoint("digits", BROKER.peer_id, 7, RECEIPT.root, 1)))
    assert run("--checkpoint", foreign, code=1)["code"] == "bad-signature"
    foreign.write_bytes(b"")
    assert "no checkpoint" in run("--checkpoint", foreign, code=2)["sentence"]
    assert run("--checkpoint", tmp_path / "none", code=2)["code"] == "bad-data"
