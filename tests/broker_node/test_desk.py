"""A broker whose market cannot be described in one message is told so at its start, not at the first agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from p2pmarket.broker_node.desk import Desk
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import TermsError
from p2pmarket.market import parse_terms
from p2pmarket.parcel import Schema, TensorSpec
from p2pmarket.units import now_ms

TERMS = parse_terms(
    {
        "market": {"name": "large"},
        "model": {"name": "mlp", "arguments": {"inputs": 4, "hidden": [4], "outputs": 2}},
        "task": [{"name": "task", "loss": "mse", "metric": "loss"}],
    }
)


def desk_for(tensors: int, folder: Path) -> Desk:
    identity = Identity.generate()
    unused = cast(Any, None)
    names = (f"layers.{number:05d}.{'x' * 50}.weight" for number in range(tensors))
    return Desk(
        identity=identity,
        keyring=Keyring.open(folder / "keys", identity, now_ms),
        terms=TERMS,
        schemas={"task": Schema(tuple(TensorSpec(name, (4, 4), "float32") for name in names))},
        data={"task": b"d" * 32},
        ledger=unused,
        book=unused,
        clearing=unused,
        witness=unused,
        clock=now_ms,
    )


def test_a_model_of_a_thousand_tensors_fits(tmp_path: Path) -> None:
    assert desk_for(1000, tmp_path)


@pytest.mark.parametrize("tensors", [3115, 4096])
def test_a_model_whose_tensors_do_not_fit_a_welcome_is_refused_with_their_number(tensors: int, tmp_path: Path) -> None:
    """3115: the schema alone still fits a record, the Welcome around it does not."""
    with pytest.raises(TermsError, match=f"have {tensors} tensors"):
        desk_for(tensors, tmp_path)
