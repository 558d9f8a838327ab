"""What both transports do alike with an incoming stream: admit it within the caps, serve it, close it.

Knows: how many streams each peer holds. Refuses to know: what carries the bytes and what they say. A stream above a
cap is not admitted; whatever a handler raises ends in the log and with the stream closed, never in the transport.
"""

from __future__ import annotations

import logging
from collections import Counter

from p2pmarket import limits
from p2pmarket.errors import MarketError
from p2pmarket.network.transport import Stream, StreamHandler

logger = logging.getLogger(__name__)


class StreamCaps:
    """Counts incoming streams: at most `total` in all and `per_peer` from one peer."""

    def __init__(self, total: int = limits.MAX_STREAMS, per_peer: int = limits.MAX_STREAMS_PER_PEER) -> None:
        self._total = total
        self._per_peer = per_peer
        self._open: Counter[str] = Counter()

    def admit(self, peer_id: str) -> bool:
        """Counts one more stream of this peer; False, and nothing counted, where that is above a cap."""
        if self._open.total() >= self._total or self._open[peer_id] >= self._per_peer:
            logger.warning("refused a stream of %s: it or all peers together hold too many", peer_id)
            return False
        self._open[peer_id] += 1
        return True

    def leave(self, peer_id: str) -> None:
        """One admitted stream of this peer has ended."""
        self._open[peer_id] -= 1
        if not self._open[peer_id]:
            del self._open[peer_id]


async def serve_stream(stream: Stream, protocol: str, handler: StreamHandler) -> None:
    """Runs `handler` on one stream and closes it; raises nothing but cancellation."""
    try:
        await handler(stream)
    except MarketError as error:
        logger.debug("stream %s with %s ended: %s", protocol, stream.peer_id, error)
    except Exception:
        logger.exception("serving the stream %s to %s failed", protocol, stream.peer_id)
    finally:
        await stream.close()
