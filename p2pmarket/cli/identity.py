"""`identity`: the key file that is a peer's id and account."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import IdentityError


def show(given: argparse.Namespace) -> int:
    """Prints the peer id of an existing identity."""
    path = _path(given)
    if not path.exists():
        raise IdentityError(f"there is no identity at {path}; make one with `p2pmarket identity create`")
    return _print(Identity.load(path), path, given.json)


def create(given: argparse.Namespace) -> int:
    """Makes an identity where there is none."""
    path = _path(given)
    if path.exists():
        raise IdentityError(f"{path} holds an identity already; it is not overwritten, as its account would be lost")
    return _print(Identity.load_or_create(path), path, given.json)


def backup(given: argparse.Namespace) -> int:
    """Copies the identity to a file that does not exist yet."""
    return _copy(_path(given), given.file, given.json)


def restore(given: argparse.Namespace) -> int:
    """Takes the identity from a backup, where there is none yet."""
    return _copy(given.file, _path(given), given.json)


def _path(given: argparse.Namespace) -> Path:
    path: Path = given.identity_path or given.state / "identity.key"
    return path.expanduser()


def _copy(source: Path, target: Path, as_json: bool) -> int:
    identity = Identity.load(source)
    if target.exists():
        raise IdentityError(f"{target} exists already and is not overwritten; move it away first")
    identity.save(target)
    return _print(identity, target, as_json)


def _print(identity: Identity, path: Path, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"peer_id": identity.peer_id, "path": str(path)}))
    else:
        print(f"{identity.peer_id}\n{path} is this peer's account: whoever loses it loses the balance. Keep a backup.")
    return 0
