"""Every size, count and age taken from a stranger is bounded here, with its unit in the name.

A market's terms may lower `MAX_PARCEL_BYTES` and the like; nothing a peer sends can raise them.
"""

from __future__ import annotations

# Records and frames (docs/protocol.md, "Signed records")
MAX_RECORD_BYTES = 256 * 1024
"""One signed record or one frame's body."""
MAX_RECORD_DEPTH = 6
MAX_TEXT_CHARACTERS = 1024
MAX_NAME_CHARACTERS = 64
MAX_TUPLE_ITEMS = 4096

# The DHT (docs/protocol.md, "The DHT is a hint")
MAX_DHT_VALUE_BYTES = 1024
MAX_DHT_NESTING = 4
MAX_DHT_RECORDS_PER_KEY = 256
"""Announcements a node keeps under one key; what is there is renewed, what is new waits."""
MAX_DHT_LOGS = 256
"""Brokers' logs of which a node keeps heads; what is there is renewed, what is new waits."""
MAX_DHT_HEADS_PER_LOG = 64
MAX_DHT_EXPIRY_SECONDS = 20 * 60
ANNOUNCE_EXPIRY_SECONDS = 15 * 60
ANNOUNCE_EVERY_SECONDS = 5 * 60
MAX_CLOCK_SKEW_SECONDS = 3.0

# Streams
MAX_STREAMS = 512
"""Every agent keeps one open for its session; each is a file descriptor, of which a process often has 1024."""
MAX_STREAMS_PER_PEER = 4
HEARTBEAT_SECONDS = 15.0
STREAM_STALL_SECONDS = 60.0
REQUEST_TIMEOUT_SECONDS = 60.0
MAX_SESSION_REQUESTS_IN_FLIGHT = 16

# Parcels (docs/protocol.md, "The sealed parcel")
CHUNK_BYTES = 1024 * 1024
MAX_PARCEL_BYTES = 64 * 1024**3
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_PARCEL_HEADER_BYTES = 16 * 1024
MAX_TENSORS = 4096
MAX_TENSOR_DIMENSIONS = 8
MAX_TENSOR_NAME_CHARACTERS = 256
MAX_COMPRESSION_RATIO = 1000
MAX_PARCEL_AGE_SECONDS = 7 * 24 * 3600

# Keys and signed statements
MAX_KEY_AGE_SECONDS = 30 * 24 * 3600
MAX_MESSAGE_AGE_SECONDS = 24 * 3600

# Money, in micro-credits
MAX_AMOUNT = 2**53 - 1

MAX_CHAIN = 8
"""Purchases upon one another."""

MAX_GROUPS = 32
"""Parameter groups of a market: each costs a pass over the validation data in every appraisal."""

# Built-in models, whose arguments come with a broker's terms
MAX_MODEL_WIDTH = 2**16
"""Units, channels or classes of one layer."""
MAX_MODEL_DEPTH = 1000
"""Layers."""
MAX_MODEL_PARAMETERS = 2**34
