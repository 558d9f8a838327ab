"""Parameters as tensors: snapshots of a model, codecs, and the plain bytes of a parcel."""

from p2pmarket.parameters.codecs import decode, encode, round_trip
from p2pmarket.parameters.packing import digest_of, pack, read_manifest, unpack
from p2pmarket.parameters.snapshot import (
    check_against,
    check_finite,
    load_in_place,
    matching,
    schema_of,
    take_snapshot,
)

__all__ = [
    "check_against",
    "check_finite",
    "decode",
    "digest_of",
    "encode",
    "load_in_place",
    "matching",
    "pack",
    "read_manifest",
    "round_trip",
    "schema_of",
    "take_snapshot",
    "unpack",
]
