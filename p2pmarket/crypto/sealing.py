"""Sealed parcels: bytes that one named receiver can open, that only the named sender can have sent, for one purpose.

::

    header    see crypto/header
    chunk i   AEAD of at most `chunk_bytes` plain bytes, tag (16) at the end, nonce = i (11 bytes) | last flag (1)
    trailer   signature (64) over SHA-256(header) and SHA-256(all chunk tags in order)

The chunks are the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance, 2015). The signed trailer binds the sender to every byte, without a second hash of them.

Knows: keys, bytes in the caller's buffers. Refuses to know: files (network/spool), streams (network/transfer).
Nothing may be acted on before `Opener.check_trailer` returns. Fails with a `PeerFault`.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from p2pmarket.crypto.header import (
    AES_256_GCM,
    CHACHA20_POLY1305,
    FILE_KEY_BYTES,
    Expectation,
    PrivateKeys,
    open_header,
    own_header,
    seal_header,
)
from p2pmarket.crypto.keys import Identity, public_key_of
from p2pmarket.crypto.signing import SIGNATURE_BYTES, check_signature, signed_bytes
from p2pmarket.errors import BadSeal
from p2pmarket.messages import KeyStatement
from p2pmarket.parcel import ParcelContext

TAG_BYTES = 16
TRAILER_BYTES = SIGNATURE_BYTES

_CIPHERS: dict[int, type[AESGCM] | type[ChaCha20Poly1305]] = {
    AES_256_GCM: AESGCM,
    CHACHA20_POLY1305: ChaCha20Poly1305,
}


class _Chunks:
    """Seals and opens the chunks of one parcel, at any index, with a chunk key."""

    def __init__(self, chunk_key: bytes, cipher: int, chunks: int) -> None:
        self._aead = _CIPHERS[cipher](chunk_key)
        self._chunks = chunks

    def seal(self, index: int, plain: memoryview, out: memoryview) -> None:
        """Writes the sealed chunk, `len(plain) + TAG_BYTES` bytes, to `out`."""
        self._aead.encrypt_into(_nonce(index, index == self._chunks - 1), plain, None, out)

    def open(self, index: int, sealed: bytes | memoryview, out: memoryview) -> None:
        """Writes the plain chunk, `len(sealed) - TAG_BYTES` bytes, to `out`.

        :raises BadSeal: altered, or of another place
        """
        try:
            self._aead.decrypt_into(_nonce(index, index == self._chunks - 1), sealed, None, out)
        except InvalidTag:
            raise BadSeal(f"chunk {index} of this parcel does not open; it was altered, send it again") from None


class Sealer:
    """The sender's side of one parcel. The same plain bytes always give the same sealed bytes."""

    def __init__(self, identity: Identity, header: bytes, file_key: bytes) -> None:
        """Takes a parcel up again from its header and file key. New ones come from `create`.

        The plain bytes must be the very same: two plaintexts under one key and nonce break both ciphers.
        """
        self.header = header
        self.file_key = file_key
        """32 secret bytes."""
        self.context, chunk_key = own_header(header, file_key)
        self._identity = identity
        self._chunks = _Chunks(chunk_key, self.context.cipher, self.context.chunks)

    @classmethod
    def create(cls, identity: Identity, receiver: KeyStatement, context: ParcelContext) -> Sealer:
        """A new parcel with a fresh file key, sealed to the receiver's published keys.

        :raises MalformedMessage: those are not keys
        """
        file_key = secrets.token_bytes(FILE_KEY_BYTES)
        return cls(identity, seal_header(identity, receiver, context, file_key), file_key)

    def seal_chunk(self, index: int, plain: memoryview, out: memoryview) -> memoryview:
        """Seals chunk `index` into `out`; returns the part of `out` that was written, its last TAG_BYTES the tag."""
        sealed = out[: len(plain) + TAG_BYTES]
        self._chunks.seal(index, plain, sealed)
        return sealed

    def trailer(self, tags: bytes) -> bytes:
        """The signed end of the parcel; `tags` are those of every chunk in order, TAG_BYTES each."""
        return self._identity.sign(_trailer_bytes(self.header, tags))


class Opener:
    """The receiver's side of one parcel."""

    def __init__(self, header: bytes, expectation: Expectation, keyring: PrivateKeys, now_ms: int) -> None:
        """Verifies the header before anything else.

        :raises PeerFault: as `header.open_header`
        """
        self.context, chunk_key = open_header(header, expectation, keyring, now_ms)
        self.header = header
        self._chunks = _Chunks(chunk_key, self.context.cipher, self.context.chunks)

    def open_chunk(self, index: int, sealed: bytes | memoryview, out: memoryview) -> memoryview:
        """Opens chunk `index` into `out`; returns the part of `out` that was written.

        :raises BadSeal: altered, of another place or length
        """
        length = self.context.chunk_length(index)
        if len(sealed) != length + TAG_BYTES:
            raise BadSeal(f"chunk {index} of this parcel has the wrong length; send it again")
        self._chunks.open(index, sealed, out[:length])
        return out[:length]

    def tag_of(self, index: int, plain: memoryview, scratch: memoryview) -> bytes:
        """The tag that chunk `index` had if `plain` is what was sealed; finds out whether kept bytes are still good.

        `scratch` holds at least `len(plain) + TAG_BYTES`.
        """
        self._chunks.seal(index, plain, scratch[: len(plain) + TAG_BYTES])
        return bytes(scratch[len(plain) : len(plain) + TAG_BYTES])

    def check_trailer(self, trailer: bytes, tags: bytes) -> None:
        """Verifies that the sender signed exactly these chunks; `tags` are those of every chunk in order.

        :raises BadSeal: not as many tags as chunks
        :raises BadSignature: other chunks than the sender sealed
        """
        if len(tags) != TAG_BYTES * self.context.chunks:
            raise BadSeal("this parcel ended before its last chunk; send the rest")
        public_key = public_key_of(self.context.sender)
        check_signature(public_key, trailer, _trailer_bytes(self.header, tags), "parcel's trailer")


def _nonce(index: int, last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes((last,))


def _trailer_bytes(header: bytes, tags: bytes) -> bytes:
    return signed_bytes("parcel-trailer", hashlib.sha256(header).digest() + hashlib.sha256(tags).digest())
