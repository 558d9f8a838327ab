"""Randomness from one seed, for code that asks the system for it.

Knows: where the package draws ids (`secrets.token_bytes`) and pauses and orders (the functions of `random`). Refuses to
know: what for. Ids drawn inside `seeded` (and by the tasks it starts) come from its generator; any other thread or task
of the process keeps the system's, also meanwhile: a node that runs beside a simulation has keys nobody can foresee.
`random` has one generator for the whole process: it is seeded, and is afterwards where it was before. Whoever else
draws from it meanwhile changes the simulation.

Not from the seed: the encryption keys and encapsulations of `cryptography` (OpenSSL draws them itself). They change
bytes that nothing looks into, and no decision; tests/simulation/test_virtual.py compares whole traces.
"""

from __future__ import annotations

import contextlib
import contextvars
import random
import secrets
from collections.abc import Iterator

_GENERATOR: contextvars.ContextVar[random.Random | None] = contextvars.ContextVar("p2pmarket-chance", default=None)
_system_bytes = secrets.token_bytes
_users = 0


def stream(seed: int, purpose: str) -> random.Random:
    """A generator of its own for each purpose, so that more draws for one change none of another."""
    return random.Random(f"p2pmarket/{seed}/{purpose}")


def token_bytes(nbytes: int | None = None) -> bytes:
    """`nbytes` bytes, of the context's generator where it has one, else of the system."""
    generator = _GENERATOR.get()
    return _system_bytes(nbytes) if generator is None else generator.randbytes(32 if nbytes is None else nbytes)


@contextlib.contextmanager
def seeded(generator: random.Random) -> Iterator[None]:
    """Draws from `generator` in this context and in tasks started from it; one at a time in a process."""
    global _users
    before, pauses = _GENERATOR.get(), random.getstate()
    _GENERATOR.set(generator)
    _users += 1
    secrets.token_bytes = token_bytes
    random.seed(generator.getrandbits(64))
    try:
        yield
    finally:
        _GENERATOR.set(before)
        random.setstate(pauses)
        _users -= 1
        if not _users:
            secrets.token_bytes = _system_bytes
