"""Guards against hostile bytes in hivemind's DHT, which decodes what strangers send before it checks it.

Knows: the weak places of hivemind 1.1: its decoder's recursion and errors, its trust in records. Refuses to know:
hivemind itself; what is guarded is passed in, so that only `libp2p` imports it. Bad bytes end as a ValueError inside
hivemind's own handlers, which answer with an error, or as a record that is not stored.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgpack

from p2pmarket import limits
from p2pmarket.errors import MalformedMessage, PeerFault
from p2pmarket.network.table import check_record, key_of_head
from p2pmarket.units import Clock

logger = logging.getLogger(__name__)

_ENVELOPE_BYTES = 8
"""What msgpack may add around a value or a key."""


def install_decoder_guards(serializer: Any, deepest: int = limits.MAX_DHT_NESTING) -> None:
    """Bounds how deep extension types nest in what `serializer` (hivemind's MSGPackSerializer) decodes, and how much
    its errors hold. Both fail with a ValueError; may be called again.

    Unbounded, one message of 120 kB overflows the C stack and ends the process; and an error that quotes a message of
    1 MiB is too long to be sent, so that hivemind keeps both for ever (1.1.12).
    """
    decode = serializer._decode_ext_types.__func__
    loads = serializer.loads.__func__
    if getattr(decode, "bounded", False):
        return
    level = threading.local()

    @functools.wraps(decode)
    def decode_within(cls: Any, type_code: int, data: bytes) -> Any:
        depth = getattr(level, "depth", 0)
        if depth >= deepest:
            raise ValueError(f"extension types nested deeper than {deepest}")
        level.depth = depth + 1
        try:
            return decode(cls, type_code, data)
        finally:
            level.depth = depth

    @functools.wraps(loads)
    def loads_or_brief_error(cls: Any, data: bytes) -> Any:
        try:
            return loads(cls, data)
        except Exception as error:
            raise ValueError(f"not msgpack: {str(error)[:100]}") from None

    decode_within.bounded = True  # type: ignore[attr-defined]
    serializer._decode_ext_types = classmethod(decode_within)
    serializer.loads = classmethod(loads_or_brief_error)


class Record(Protocol):
    """What hivemind calls a DHTRecord."""

    key: bytes
    """SHA-1 of the key's msgpack form."""
    subkey: bytes
    """msgpack of the publisher's peer id."""
    value: bytes
    """msgpack of the signed statement's bytes."""
    expiration_time: float
    """UTC in seconds."""


class AnnouncementValidator:
    """Lets a record into the table, or out of it, only where `check_record` does. Has the methods of hivemind's
    RecordValidatorBase; its place in a `CompositeValidator` would be `priority` 0.

    :param keys: the fixed key names by their hashed form
    :param hashed: a key name's hashed form: those of heads are as many as there are logs, and follow from their values
    """

    priority = 0

    def __init__(self, keys: Mapping[bytes, str], clock: Clock, hashed: Callable[[str], bytes]) -> None:
        self._keys = keys
        self._hashed = hashed
        self._clock = clock

    def validate(self, record: Record) -> bool:
        try:
            peer_id = _unpack(record.subkey, str)
            value = _unpack(record.value, bytes)
            key = self._keys.get(record.key) or key_of_head(value)
            if record.key not in self._keys and record.key != self._hashed(key):
                raise MalformedMessage("a head stands under a key that is not its log's")
            check_record(key, peer_id, value, record.expiration_time * 1000, self._clock())
        except PeerFault as error:
            logger.debug("refused a DHT record: %s", error)
            return False
        except Exception:
            # An exception here would travel to the sender as text and stop hivemind's search half-way.
            logger.debug("refused a DHT record that cannot be read", exc_info=True)
            return False
        return True

    def sign_value(self, record: Record) -> bytes:
        """The value as it is: statements come signed."""
        return record.value

    def strip_value(self, record: Record) -> bytes:
        """The value as it is."""
        return record.value

    def merge_with(self, other: object) -> bool:
        """False: stays a validator of its own."""
        return False


def _unpack(data: bytes, kind: type[Any]) -> Any:
    """A single msgpack text or bytes; regular values and whole dictionaries fail here, as their subkey is neither."""
    if len(data) > limits.MAX_DHT_VALUE_BYTES + _ENVELOPE_BYTES:
        raise ValueError("too long")
    value = msgpack.unpackb(data, raw=False, max_array_len=0, max_map_len=0, max_ext_len=0)
    if type(value) is not kind:
        raise ValueError(f"not {kind.__name__}")
    return value
