"""Whether 32 bytes are a public key that Ed25519 signatures can be checked with, before anything is paid to it.

Knows: decoding of a point and the order of the small ones (RFC 8032, sections 5.1 and 5.1.3). Refuses to know: peer ids
(keys) and signatures (signing). Never raises; not constant time, for what is public only.
"""

from __future__ import annotations

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)


def is_public_key(data: bytes) -> bool:
    """Whether these 32 bytes encode a point of the curve, one of more than the 8 whose private key is nobody's."""
    y = int.from_bytes(data, "little") & (2**255 - 1)
    if len(data) != 32 or y >= _P:
        return False
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P:
        return False
    point = x, y
    for _ in range(3):
        point = _doubled(*point)
    return point != (0, 1)


def _doubled(x: int, y: int) -> tuple[int, int]:
    both = _D * x * x * y * y
    return (
        2 * x * y * pow(1 + both, -1, _P) % _P,
        (y * y + x * x) * pow(1 - both, -1, _P) % _P,
    )
