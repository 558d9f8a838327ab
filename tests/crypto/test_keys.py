"""Identity files, peer ids, and the keyring's epochs."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from crypto_examples import BROKER, NOW_MS, SELLER

from p2pmarket.crypto.keyring import MAX_KEY_AGE_MS, RENEW_AFTER_MS, EncryptionKeys, Keyring, verify_statement
from p2pmarket.crypto.keys import Identity, peer_id_of, public_key_of
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import BadSeal, BadSignature, DiskFull, Expired, IdentityError, MalformedMessage
from p2pmarket.messages import KeyStatement

VECTORS = Path(__file__).parents[1] / "vectors"


class Time:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def test_the_identity_file_is_the_one_in_the_vectors(tmp_path: Path) -> None:
    vector = json.loads((VECTORS / "identity.json").read_text())
    path = tmp_path / "identity"
    path.write_bytes(bytes.fromhex(vector["file"]))
    path.chmod(0o600)
    identity = Identity.load(path)
    assert identity.peer_id == vector["peer_id"] and identity.peer_id.startswith("12D3Koo")
    assert public_key_of(identity.peer_id) == identity.public_key == bytes.fromhex(vector["public_key"])


def test_hivemind_reads_the_identity_file_and_sees_the_same_peer(tmp_path: Path) -> None:
    crypto_pb2 = pytest.importorskip("hivemind.proto.crypto_pb2")
    peer_id = pytest.importorskip("hivemind.p2p").PeerID
    SELLER.save(tmp_path / "identity")
    key = crypto_pb2.PrivateKey.FromString((tmp_path / "identity").read_bytes())
    assert key.key_type == crypto_pb2.Ed25519 and key.data[32:] == SELLER.public_key
    assert peer_id.from_base58(SELLER.peer_id).to_bytes()[-32:] == SELLER.public_key


def test_a_new_identity_is_private_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deeper" / "identity"
    created = Identity.load_or_create(path)
    assert Identity.load_or_create(path).peer_id == created.peer_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert {folder.stat().st_mode & 0o777 for folder in (path.parent, path.parent.parent)} == {0o700}
    assert [entry.name for entry in path.parent.iterdir()] == ["identity"]


def test_a_file_that_others_can_read_is_made_private_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "identity"
    SELLER.save(path)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert Identity.load(path).peer_id == SELLER.peer_id
    assert "could be read by other users" in caplog.text and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: b"\x08\x00\x12\xa7\x09" + bytes(1191), "RSA"),
        (lambda data: data[:-1], "not an identity file"),
        (lambda data: data + b"\0", "not an identity file"),
        (lambda data: b"", "not an identity file"),
        (lambda data: data[:10] + bytes((data[10] ^ 1,)) + data[11:], "damaged"),
        (lambda data: bytes(100_000), "too long"),
    ],
)
def test_what_is_no_identity_file_is_named(tmp_path: Path, change: object, word: str) -> None:
    path = tmp_path / "identity"
    SELLER.save(path)
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    path.chmod(0o644)
    with pytest.raises(IdentityError, match=word):
        Identity.load(path)
    assert path.stat().st_mode & 0o777 == 0o644


def test_folders_pipes_and_files_that_cannot_be_read_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o755)
    os.mkfifo(tmp_path / "pipe", 0o644)
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    for name, mode in (("folder", 0o755), ("pipe", 0o644)):
        path = tmp_path / name
        path.chmod(mode)
        for load in (Identity.load, Identity.load_or_create):
            with pytest.raises(IdentityError, match="is not a file|Is a directory"):
                load(path)
        assert path.stat().st_mode & 0o777 == mode
    with pytest.raises(IdentityError, match="cannot be read"):
        Identity.load_or_create(tmp_path / "nowhere")
    if os.getuid() != 0:
        SELLER.save(tmp_path / "closed")
        (tmp_path / "closed").chmod(0o044)
        with pytest.raises(IdentityError, match="cannot be read"):
            Identity.load(tmp_path / "closed")
        assert (tmp_path / "closed").stat().st_mode & 0o777 == 0o044


def test_missing_and_unwritable_places_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="cannot be read"):
        Identity.load(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskFull, match="could not be written"):
        SELLER.save(tmp_path / "file" / "identity")


@pytest.mark.parametrize(
    "peer_id", ["", "12D3Koo", "Qm" + "x" * 44, SELLER.peer_id + " ", SELLER.peer_id[:-1], "0" * 52, "ä" * 52]
)
def test_what_is_no_peer_id_is_refused(peer_id: str) -> None:
    with pytest.raises(MalformedMessage):
        public_key_of(peer_id)
    assert peer_id_of(public_key_of(SELLER.peer_id)) == SELLER.peer_id


def test_a_keyring_keeps_its_keys_renews_them_at_half_their_life_and_drops_them_at_the_end(tmp_path: Path) -> None:
    time, path = Time(), tmp_path / "keyring"
    keyring = Keyring.open(path, BROKER, time)
    first = verify_statement(keyring.statement, peer=BROKER.peer_id, now_ms=time())
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keyring.open(path, BROKER, time).statement == keyring.statement
    time.now_ms += RENEW_AFTER_MS
    second = verify_statement(keyring.statement, peer=BROKER.peer_id, now_ms=time())
    assert second.epoch > first.epoch and second.x25519 != first.x25519
    assert keyring.private(first.epoch).x25519.public_key().public_bytes_raw() == first.x25519
    assert Keyring.open(path, BROKER, time).private(first.epoch) == keyring.private(first.epoch)
    time.now_ms = NOW_MS + MAX_KEY_AGE_MS
    with pytest.raises(BadSeal, match="no longer has"):
        keyring.private(first.epoch)
    assert keyring.private(second.epoch).epoch == second.epoch


def test_epochs_grow_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    time = Time()
    keyring = Keyring.open(tmp_path / "keyring", BROKER, time)
    first = verify_statement(keyring.statement, peer=BROKER.peer_id, now_ms=time())
    time.now_ms = first.not_after_ms
    keyring = Keyring.open(tmp_path / "keyring", BROKER, time)
    assert verify_statement(keyring.statement, peer=BROKER.peer_id, now_ms=time()).epoch > first.epoch


def test_a_damaged_keyring_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "keyring").write_bytes(b"\x93")
    with pytest.raises(IdentityError, match="remove it"):
        Keyring.open(tmp_path / "keyring", BROKER, Time())


def test_secrets_stay_out_of_what_is_printed() -> None:
    keys = EncryptionKeys.generate(1, NOW_MS)
    assert repr(keys) == "EncryptionKeys(epoch=1)" and repr(SELLER) == f"Identity({SELLER.peer_id})"


def test_key_statements_of_others_for_too_long_or_past_are_refused() -> None:
    keys = EncryptionKeys.generate(1, NOW_MS)
    data = keys.statement(BROKER)
    with pytest.raises(BadSignature):
        verify_statement(data, peer=SELLER.peer_id, now_ms=NOW_MS)
    for now_ms in (NOW_MS - 10_000, NOW_MS + MAX_KEY_AGE_MS):
        with pytest.raises(Expired):
            verify_statement(data, peer=BROKER.peer_id, now_ms=now_ms)
    borrowed = KeyStatement(BROKER.peer_id, 1, bytes(32), b"", NOW_MS, NOW_MS + 1000)
    with pytest.raises(MalformedMessage, match="another peer"):
        verify_statement(sign(SELLER, borrowed), peer=SELLER.peer_id, now_ms=NOW_MS)
    eternal = KeyStatement(BROKER.peer_id, 1, bytes(32), b"", NOW_MS, NOW_MS + MAX_KEY_AGE_MS + 1)
    with pytest.raises(Expired, match="claim a life"):
        verify_statement(sign(BROKER, eternal), peer=BROKER.peer_id, now_ms=NOW_MS)
    short = KeyStatement(BROKER.peer_id, 1, bytes(32), bytes(7), NOW_MS, NOW_MS + 1)
    with pytest.raises(MalformedMessage, match="wrong length"):
        verify_statement(sign(BROKER, short), peer=BROKER.peer_id, now_ms=NOW_MS)
