"""Writes the fixed vectors in this folder: `python tests/vectors/make.py`, after a change to a format on purpose.

identity.json, signed.json and sealed.json hold hexadecimal bytes. HPKE is randomised, so a sealed vector is the bytes
of one run with the keys that open them; all else comes out the same every time.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "crypto"), str(HERE.parents[1])]

from crypto_examples import BROKER_KEYS, SELLER, SIGNED_TYPES, context, example, seal, sealer_for  # noqa: E402

from p2pmarket.crypto.signing import sign  # noqa: E402
from p2pmarket.records import encode  # noqa: E402


def plain(value: Any) -> Any:
    """A record's fields as JSON has them, bytes in hexadecimal."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return value.hex() if isinstance(value, bytes) else value


def identity() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        SELLER.save(Path(folder) / "identity")
        data = (Path(folder) / "identity").read_bytes()
    return {"file": data.hex(), "public_key": SELLER.public_key.hex(), "peer_id": SELLER.peer_id}


def signed() -> dict[str, Any]:
    examples = {name: example(kind) for name, kind in sorted(SIGNED_TYPES.items())}
    return {name: {"record": plain(one), "signed": sign(SELLER, one).hex()} for name, one in examples.items()}


def sealed() -> list[dict[str, Any]]:
    vectors = []
    for suite in (1, 2):
        for cipher in (1, 2):
            sealer = sealer_for(context(suite, cipher))
            header, *chunks, trailer = seal(sealer, bytes(range(40)))
            vectors.append({
                "suite": suite, "cipher": cipher, "receiver_keys": encode(BROKER_KEYS).hex(), "header": header.hex(),
                "chunks": [chunk.hex() for chunk in chunks], "trailer": trailer.hex(), "plain": bytes(range(40)).hex(),
            })  # fmt: skip
    return vectors


if __name__ == "__main__":
    for name, vectors in (("identity", identity()), ("signed", signed()), ("sealed", sealed())):
        (HERE / f"{name}.json").write_text(json.dumps(vectors, indent=1) + "\n", encoding="ascii")
