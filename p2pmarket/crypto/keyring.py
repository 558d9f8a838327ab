"""Encryption keys: short-lived pairs that sealed parcels are addressed to, told to others in a signed statement.

Knows: X25519 and the hybrid ML-KEM-768 + X25519 key pairs of one epoch, when they are renewed, the file (0600) that
keeps their seeds. Refuses to know: what is sealed (sealing), who was told which epoch (the roles keep the highest).
Fails with `IdentityError` for a damaged file of this machine and with `BadSeal` for an epoch that is not kept.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

from p2pmarket import limits
from p2pmarket.crypto.keys import Identity, read_private, write_private
from p2pmarket.crypto.signing import check_fresh, sign, verify
from p2pmarket.errors import BadSeal, Expired, IdentityError, MalformedMessage, PeerFault
from p2pmarket.messages import KeyStatement
from p2pmarket.records import Bound, Count, Millis, Record, decode, encode
from p2pmarket.units import Clock

MAX_KEY_AGE_MS = limits.MAX_KEY_AGE_SECONDS * 1000
RENEW_AFTER_MS = MAX_KEY_AGE_MS // 2
"""New keys after half the life of the old ones, so that what was sealed to the old ones can still be opened."""


@dataclasses.dataclass(frozen=True)
class EncryptionKeys(Record):
    """The private keys of one epoch, as raw seeds."""

    epoch: Count
    x25519_seed: Annotated[bytes, Bound(32, 32)]
    mlkem768_seed: Annotated[bytes, Bound(0, 64)]
    """64 bytes (FIPS 203, seed form), or empty where this machine's cryptography lacks ML-KEM."""
    not_before_ms: Millis
    not_after_ms: Millis

    @classmethod
    def generate(cls, epoch: int, now_ms: int) -> EncryptionKeys:
        """New keys from the system's randomness, valid from now for MAX_KEY_AGE_SECONDS."""
        try:
            mlkem768_seed = MLKEM768PrivateKey.generate().private_bytes_raw()
        except UnsupportedAlgorithm:
            mlkem768_seed = b""
        x25519_seed = X25519PrivateKey.generate().private_bytes_raw()
        return cls(epoch, x25519_seed, mlkem768_seed, now_ms, now_ms + MAX_KEY_AGE_MS)

    def __repr__(self) -> str:
        return f"EncryptionKeys(epoch={self.epoch})"

    @property
    def x25519(self) -> X25519PrivateKey:
        """The key of suite 1."""
        return X25519PrivateKey.from_private_bytes(self.x25519_seed)

    @property
    def mlkem768_x25519(self) -> MLKEM768X25519PrivateKey:
        """The key of suite 2.

        :raises BadSeal: this machine published none
        """
        if not self.mlkem768_seed:
            raise BadSeal("this parcel is sealed with ML-KEM, which the receiver's keys did not offer")
        return MLKEM768X25519PrivateKey(MLKEM768PrivateKey.from_seed_bytes(self.mlkem768_seed), self.x25519)

    def statement(self, identity: Identity) -> bytes:
        """The signed `KeyStatement` of these keys."""
        x25519 = self.x25519.public_key().public_bytes_raw()
        hybrid = b""
        if self.mlkem768_seed:
            hybrid = MLKEM768PrivateKey.from_seed_bytes(self.mlkem768_seed).public_key().public_bytes_raw() + x25519
        statement = KeyStatement(identity.peer_id, self.epoch, x25519, hybrid, self.not_before_ms, self.not_after_ms)
        return sign(identity, statement)


@dataclasses.dataclass(frozen=True)
class _KeyringFile(Record):
    VERSION: ClassVar[int] = 1
    version: Annotated[int, Bound(1, 1)]
    epochs: Annotated[tuple[EncryptionKeys, ...], Bound(0, 64)]
    """Oldest first."""


class Keyring:
    """The encryption keys of one peer: one epoch that is published, and older ones until they run out."""

    def __init__(self, path: Path, identity: Identity, clock: Clock, epochs: tuple[EncryptionKeys, ...]) -> None:
        self._path = path
        self._identity = identity
        self._clock = clock
        self._epochs = epochs
        self._statement = b""

    @classmethod
    def open(cls, path: Path, identity: Identity, clock: Clock) -> Keyring:
        """The keyring in the file `path`, made where there is none, renewed where its keys are old.

        :raises IdentityError: the file cannot be read
        :raises DiskFull: the file could not be written
        """
        epochs: tuple[EncryptionKeys, ...] = ()
        if path.exists():
            try:
                epochs = decode(_KeyringFile, read_private(path)).epochs
            except PeerFault:
                raise IdentityError(f"{path} is damaged; remove it, and new encryption keys will be made") from None
        keyring = cls(path, identity, clock, epochs)
        keyring._renew()
        return keyring

    @property
    def statement(self) -> bytes:
        """The signed `KeyStatement` of the current epoch; makes a new epoch first where it is time.

        :raises DiskFull: the new epoch could not be kept
        """
        self._renew()
        return self._statement

    def private(self, epoch: int) -> EncryptionKeys:
        """The private keys of an epoch that has not run out.

        :raises BadSeal: no such keys here
        """
        for keys in self._epochs:
            if keys.epoch == epoch and self._clock() < keys.not_after_ms:
                return keys
        raise BadSeal("this parcel is sealed to keys that the receiver no longer has; seal it to its newest statement")

    def _renew(self) -> None:
        now_ms = self._clock()
        epochs = tuple(keys for keys in self._epochs if now_ms < keys.not_after_ms)
        if not epochs or now_ms >= epochs[-1].not_before_ms + RENEW_AFTER_MS:
            newest = max((keys.epoch for keys in self._epochs), default=0)
            epochs += (EncryptionKeys.generate(max(now_ms, newest + 1), now_ms),)
        if epochs != self._epochs:
            write_private(self._path, encode(_KeyringFile(_KeyringFile.VERSION, epochs)))
            self._epochs = epochs
            self._statement = b""
        self._statement = self._statement or epochs[-1].statement(self._identity)


def verify_statement(data: bytes, *, peer: str, now_ms: int) -> KeyStatement:
    """The encryption keys that `peer` published in the signed bytes `data`.

    :raises BadSignature, MalformedMessage, TooLarge: as `signing.verify`
    :raises Expired: not valid at `now_ms` (UTC), or for longer than MAX_KEY_AGE_SECONDS
    """
    statement = verify(data, KeyStatement, signer=peer)
    if statement.peer != peer:
        raise MalformedMessage(f"this key statement of {peer} speaks for another peer; ask it for its own")
    if len(statement.mlkem768_x25519) not in (0, 1216):
        raise MalformedMessage(f"the ML-KEM key of {peer} has the wrong length; it runs another program")
    if statement.not_after_ms - statement.not_before_ms > MAX_KEY_AGE_MS:
        raise Expired(f"the encryption keys of {peer} claim a life above {limits.MAX_KEY_AGE_SECONDS // 86400} days")
    check_fresh(statement.not_before_ms, statement.not_after_ms, now_ms, what="key statement")
    return statement
