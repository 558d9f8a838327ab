"""An identity: one Ed25519 key that is a peer's address, account and verification key in one.

Knows: the libp2p identity file (protobuf `PrivateKey{Ed25519, seed || public}`, as hivemind reads it) and peer ids,
which contain the public key, so that no directory of keys is needed. Refuses to know: what is signed (signing),
encryption keys (keyring), hivemind. Fails with `IdentityError` for a file of this machine, which names the file and
the remedy, and with `MalformedMessage` for a peer id that came from elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import stat
from pathlib import Path

import base58
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from p2pmarket.errors import DiskFull, IdentityError, MalformedMessage

logger = logging.getLogger(__name__)

SEED_BYTES = 32
PUBLIC_KEY_BYTES = 32

_FILE_PREFIX = b"\x08\x01\x12\x40"  # key_type = Ed25519; data = 64 bytes
_RSA_PREFIX = b"\x08\x00\x12"
_PEER_ID_PREFIX = b"\x00\x24\x08\x01\x12\x20"  # identity multihash of 36 bytes; key_type = Ed25519; data = 32 bytes
_MAX_FILE_BYTES = 64 * 1024


class Identity:
    """One Ed25519 private key (RFC 8032)."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key: bytes = self._key.public_key().public_bytes_raw()
        """32 bytes."""
        self.peer_id: str = peer_id_of(self.public_key)
        """The libp2p peer id in base58, `12D3Koo...`."""

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"

    @classmethod
    def generate(cls) -> Identity:
        """A new identity from the system's randomness."""
        return cls(secrets.token_bytes(SEED_BYTES))

    @classmethod
    def load(cls, path: Path) -> Identity:
        """The identity in the file `path`; one that others can read is made private, with a warning.

        :raises IdentityError: missing, unreadable, not an Ed25519 libp2p key, or damaged; the file stays as it is
        """
        identity = cls(_seed_in(_read_small(path), path))
        # Only now: a path given by mistake is somebody else's file.
        _make_private(path)
        return identity

    @classmethod
    def load_or_create(cls, path: Path) -> Identity:
        """The identity in the file `path`, or a new one kept there. Two programs that start at once agree.

        :raises IdentityError: as `load`
        :raises DiskFull: the new file could not be written
        """
        if not os.path.lexists(path):
            created = cls.generate()
            with contextlib.suppress(FileExistsError):
                write_private(path, created._file_bytes(), replace=False)
        return cls.load(path)

    def save(self, path: Path) -> None:
        """Writes the identity file (0600, atomically, parent directories 0700), over an older one if there is one.

        :raises DiskFull: the file could not be written
        """
        write_private(path, self._file_bytes())

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of `data`. Callers put a label of their own in front (crypto/signing)."""
        return self._key.sign(data)

    def derived_key(self, label: bytes) -> bytes:
        """32 secret bytes for one use: the same at each call, others for each label (HKDF-SHA256, RFC 5869)."""
        return HKDF(SHA256(), 32, None, label).derive(self._key.private_bytes_raw())

    def _file_bytes(self) -> bytes:
        return _FILE_PREFIX + self._key.private_bytes_raw() + self.public_key


@functools.lru_cache(maxsize=4096)
def peer_id_of(public_key: bytes) -> str:
    """The peer id of a 32-byte Ed25519 public key (libp2p peer id specification, identity multihash)."""
    return base58.b58encode(_PEER_ID_PREFIX + public_key).decode("ascii")


def public_key_of(peer_id: str) -> bytes:
    """The 32-byte public key inside a peer id.

    :raises MalformedMessage: not the one spelling of an Ed25519 peer id
    """
    try:
        data: bytes = base58.b58decode(peer_id)
    except ValueError:
        data = b""
    if len(data) != len(_PEER_ID_PREFIX) + PUBLIC_KEY_BYTES or not data.startswith(_PEER_ID_PREFIX):
        raise MalformedMessage(f"{peer_id[:64]!r} is not the peer id of an Ed25519 key; they begin with 12D3Koo")
    public_key = data[len(_PEER_ID_PREFIX) :]
    if peer_id_of(public_key) != peer_id:
        raise MalformedMessage(f"{peer_id[:64]!r} is not spelled as a peer id; remove spaces around it")
    return public_key


def read_private(path: Path) -> bytes:
    """The bytes of a secret file that this program wrote, made private where others could read it.

    :raises IdentityError: missing, unreadable, or not a small file
    """
    data = _read_small(path)
    _make_private(path)
    return data


def _read_small(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK a pipe is waited for before it can be seen that it is no file.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise IdentityError(f"{path} is not a file; check the path")
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"{path} cannot be read ({error.strerror}); check the path and its owner") from error
    if len(data) > _MAX_FILE_BYTES:
        raise IdentityError(f"{path} is too long for a key file; check the path")
    return data


def _make_private(path: Path) -> None:
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
            logger.warning("%s could be read by other users of this machine; it is private now (mode 0600)", path)
    except OSError as error:
        raise IdentityError(
            f"{path} can be read by other users of this machine, and that cannot be changed ({error.strerror});"
            " check its owner"
        ) from error


def write_private(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Writes a secret file atomically with mode 0600; parent directories that are missing get 0700.

    :raises DiskFull: it could not be written
    :raises FileExistsError: the file is there and `replace` is False
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        for parent in reversed(path.parents):
            if not parent.is_dir():
                parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            (os.replace if replace else os.link)(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, FileExistsError) and not replace and path.exists():
            raise
        raise DiskFull(f"{path} could not be written ({error.strerror}); free space or choose another place") from error


def _seed_in(data: bytes, path: Path) -> bytes:
    if data.startswith(_RSA_PREFIX):
        raise IdentityError(f"{path} holds an RSA key; this market needs Ed25519, so choose another identity file")
    seed = data[len(_FILE_PREFIX) : len(_FILE_PREFIX) + SEED_BYTES]
    public_key = data[len(_FILE_PREFIX) + SEED_BYTES :]
    if not data.startswith(_FILE_PREFIX) or len(public_key) != PUBLIC_KEY_BYTES:
        raise IdentityError(f"{path} is not an identity file (an Ed25519 libp2p key of 68 bytes); restore a backup")
    if Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() != public_key:
        raise IdentityError(f"{path} is damaged: its two halves do not belong together; restore a backup")
    return seed
