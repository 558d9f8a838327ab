"""Parcels on disk while they travel: what a sender must keep to send again, what a receiver has verified so far.

::

    outgoing    plain  header  file-key  tags       `plain` never changes: one key and nonce seal one plaintext
    incoming    plain.part  header  tags            every chunk in `plain.part` below `len(tags)` opened correctly
                plain                               the whole parcel, after its trailer verified

Knows: files. Refuses to know: streams (transfer), what the plain bytes mean (parameters/packing). Everything here
blocks and belongs in a worker thread. Files are written with pwrite, never through a memory map, so that a full disk is
an error and not a signal. Fails with `DiskFull` when bytes cannot be kept, `DataError` when an outgoing one is damaged.
Nothing is synced: after a power cut the receiver's tags find out what was lost, or the digests in the manifest do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from p2pmarket.crypto.header import new_context
from p2pmarket.crypto.keys import Identity, read_private, write_private
from p2pmarket.crypto.sealing import TAG_BYTES, Opener, Sealer
from p2pmarket.errors import DataError, DiskFull, IdentityError, PeerFault
from p2pmarket.messages import KeyStatement
from p2pmarket.network.files import disk, opened, read_fully, write_fully
from p2pmarket.parcel import ParcelContext

SPARE_BYTES = 16 * 1024 * 1024
"""Free space that a parcel must leave on the disk."""


class Outgoing:
    """A sealed parcel that can be sent, again and from any chunk, until it is removed."""

    def __init__(self, directory: Path, sealer: Sealer) -> None:
        self.directory = directory
        self._sealer = sealer
        self._plain = memoryview(bytearray(sealer.context.chunk_length(0)))  # the longest

    @classmethod
    def create(
        cls,
        directory: Path,
        plain_path: Path,
        *,
        identity: Identity,
        receiver: KeyStatement,
        market: str,
        broker: str,
        purpose: str,
        trade: bytes,
        manifest_digest: bytes,
        issued_ms: int,
        expires_ms: int,
    ) -> Outgoing:
        """Moves the plain file into `directory` and seals it to `receiver`; the file must not change afterwards.

        :raises DiskFull: the directory cannot be written
        :raises DataError: the plain file cannot be read or is empty
        """
        try:
            plain_bytes = plain_path.stat().st_size
        except OSError as error:
            raise DataError(f"{plain_path} cannot be read ({error.strerror}); pack the parameters again") from error
        if not plain_bytes:
            raise DataError(f"{plain_path} is empty; pack the parameters again")
        context = new_context(
            receiver,
            market=market,
            broker=broker,
            purpose=purpose,
            trade=trade,
            sender=identity.peer_id,
            manifest_digest=manifest_digest,
            plain_bytes=plain_bytes,
            issued_ms=issued_ms,
            expires_ms=expires_ms,
        )
        sealer = Sealer.create(identity, receiver, context)
        with disk(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in ("header", "tags"):
                (directory / old).unlink(missing_ok=True)
            shutil.move(plain_path, directory / "plain")
        write_private(directory / "file-key", sealer.file_key)
        write_private(directory / "header", sealer.header)
        return cls(directory, sealer)

    @classmethod
    def load(cls, directory: Path, identity: Identity) -> Outgoing:
        """The parcel that `create` left in `directory`: the very same bytes, also after a restart.

        :raises DataError: nothing whole is there, or it is another identity's
        """
        try:
            sealer = Sealer(identity, read_private(directory / "header"), read_private(directory / "file-key"))
            size = (directory / "plain").stat().st_size
        except (IdentityError, PeerFault, OSError) as error:
            raise DataError(f"{directory} holds no whole outgoing parcel; pack and seal it anew") from error
        if sealer.context.sender != identity.peer_id or sealer.context.plain_bytes != size:
            raise DataError(f"{directory} holds another identity's or a changed parcel; pack and seal it anew")
        return cls(directory, sealer)

    @property
    def context(self) -> ParcelContext:
        """What the parcel is for."""
        return self._sealer.context

    @property
    def header(self) -> bytes:
        """The sealed header, as it is sent."""
        return self._sealer.header

    def seal(self, first: int, count: int, out: memoryview) -> memoryview:
        """Seals chunks `first ... first + count - 1` one after the other into `out`; returns the part written.

        :raises DataError: the plain file is not what it was when it was sealed before
        :raises DiskFull: a file cannot be used
        """
        tags, end = b"", 0
        with disk(self.directory), opened(self.directory / "plain", os.O_RDONLY) as file:
            for index in range(first, first + count):
                plain = self._plain[: self.context.chunk_length(index)]
                if read_fully(file, plain, index * self.context.chunk_bytes) != len(plain):
                    raise DataError(f"{self.directory} lost bytes after it was sealed; pack and seal it anew")
                sealed = self._sealer.seal_chunk(index, plain, out[end:])
                tags += sealed[-TAG_BYTES:]
                end += len(sealed)
        self._keep_tags(first, tags)
        return out[:end]

    def trailer(self) -> bytes:
        """The sealed end of the parcel; seals again, without sending, what an earlier process sent.

        :raises DataError: the plain file is not what it was when it was sealed before
        """
        out = memoryview(bytearray(self.context.chunk_length(0) + TAG_BYTES))
        for index in range(len(self._tags()) // TAG_BYTES, self.context.chunks):
            self.seal(index, 1, out)
        return self._sealer.trailer(self._tags())

    def remove(self) -> None:
        """Forgets the parcel and its key."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _tags(self) -> bytes:
        path = self.directory / "tags"
        return path.read_bytes() if path.exists() else b""

    def _keep_tags(self, first: int, tags: bytes) -> None:
        """Keeps the tags in order and refuses to send other bytes under a nonce that was used."""
        with disk(self.directory), opened(self.directory / "tags") as file:
            known = os.pread(file, len(tags), first * TAG_BYTES)
            if tags[: len(known)] != known:
                raise DataError(f"{self.directory} changed after it was sealed; pack and seal it anew")
            if os.fstat(file).st_size >= first * TAG_BYTES:
                write_fully(file, tags, first * TAG_BYTES)


class Incoming:
    """A parcel that is arriving; survives broken streams and restarts of this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._kept: int | None = None
        """Chunks known to be good; None until the files of an earlier process were verified."""
        self._opener: Opener | None = None

    @classmethod
    def open(cls, directory: Path) -> Incoming:
        """What has arrived in `directory` so far; nothing is trusted before `begin`.

        :raises DiskFull: the directory cannot be made
        """
        with disk(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(directory)

    @property
    def plain_path(self) -> Path:
        """The plain file; it exists once the whole parcel is verified."""
        return self.directory / "plain"

    @property
    def part_path(self) -> Path:
        """The plain file while it grows."""
        return self.directory / "plain.part"

    def begin(self, opener: Opener) -> int:
        """Takes up a parcel whose header is verified; returns the first chunk that is needed.

        What is kept of this parcel is verified first, of another parcel it is forgotten.

        :raises DiskFull: the rest of the parcel has no room on this disk
        """
        if self._read("header") != opener.header:
            self._start(opener)
        elif self._kept is None:
            self._kept = self._verify_kept(opener)
        self._opener = opener
        self._kept = self._kept or 0
        if self._kept < opener.context.chunks and self.plain_path.exists():
            with disk(self.directory):
                self.plain_path.replace(self.part_path)
        with disk(self.directory):
            free = shutil.disk_usage(self.directory).free
        missing = opener.context.plain_bytes - self._kept * opener.context.chunk_bytes
        if missing > 0 and missing + SPARE_BYTES > free:
            raise DiskFull(f"{self.directory} has {free} bytes free, the parcel needs {missing} more; make room")
        return self._kept

    def keep(self, first: int, sealed: Sequence[bytes], plain: memoryview) -> None:
        """Opens the chunks `first ...` and keeps them; `plain` is scratch space for one chunk.

        :raises BadSeal: a chunk does not open; those before it are kept
        :raises DiskFull: they could not be written
        """
        opener = self._begun()
        with disk(self.directory), opened(self._body()) as file, opened(self.directory / "tags") as tags:
            for index, chunk in enumerate(sealed, first):
                body = opener.open_chunk(index, chunk, plain)
                write_fully(file, body, index * opener.context.chunk_bytes)
                write_fully(tags, chunk[-TAG_BYTES:], index * TAG_BYTES)
                self._kept = index + 1

    def check(self, trailer: bytes) -> Path:
        """Verifies the end of the parcel; returns where its plain bytes lie until `finish`.

        :raises BadSeal, BadSignature: as `Opener.check_trailer`
        """
        opener = self._begun()
        opener.check_trailer(trailer, self._read("tags")[: opener.context.chunks * TAG_BYTES])
        with disk(self.directory):
            os.truncate(self._body(), opener.context.plain_bytes)
        return self._body()

    def finish(self) -> None:
        """Marks the parcel whole: `plain_path` exists from now on."""
        with disk(self.directory):
            self._body().replace(self.plain_path)

    def remove(self) -> None:
        """Forgets everything that arrived."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self._kept = None

    def _begun(self) -> Opener:
        if self._opener is None:
            raise RuntimeError("Incoming.begin comes first")
        return self._opener

    def _body(self) -> Path:
        return self.plain_path if self.plain_path.exists() else self.part_path

    def _read(self, name: str) -> bytes:
        path = self.directory / name
        with disk(self.directory):
            return path.read_bytes() if path.exists() else b""

    def _start(self, opener: Opener) -> None:
        self.remove()
        with disk(self.directory):
            self.directory.mkdir(mode=0o700, parents=True)
            self.part_path.touch(mode=0o600)
        write_private(self.directory / "header", opener.header)

    def _verify_kept(self, opener: Opener) -> int:
        """Seals the kept chunks again: the number of them whose tags are those that were received."""
        context, tags = opener.context, self._read("tags")
        plain = memoryview(bytearray(context.chunk_length(0)))
        scratch = memoryview(bytearray(context.chunk_length(0) + TAG_BYTES))
        with disk(self.directory), opened(self._body()) as file:
            for index in range(min(len(tags) // TAG_BYTES, context.chunks)):
                chunk = plain[: context.chunk_length(index)]
                read = read_fully(file, chunk, index * context.chunk_bytes)
                tag = tags[index * TAG_BYTES : (index + 1) * TAG_BYTES]
                if read != len(chunk) or opener.tag_of(index, chunk, scratch) != tag:
                    return index
        return min(len(tags) // TAG_BYTES, context.chunks)
