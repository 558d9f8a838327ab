"""The broker of linear models: what it chooses by, what it tells, what it delivers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from p2pmarket.appraisal.appraise import Appraisal
from p2pmarket.experiments.worlds.linear_broker import PARAMETERS, BrokerSamples, LinearAppraiser
from p2pmarket.market import parse_terms

DIMENSION = 16


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TRUTH = drawn(0, DIMENSION).double()
OURS = {PARAMETERS: (TRUTH + drawn(1, DIMENSION)).float()}
THEIRS = {PARAMETERS: (TRUTH + drawn(2, DIMENSION)).float()}


def appraised(
    select: Tensor | None = None, report: Tensor | None = None, theirs: Any = None, codec: str = "none"
) -> Appraisal:
    terms = parse_terms(
        {
            "market": {"name": "linear"},
            "model": {"name": "linear", "arguments": {"inputs": DIMENSION}},
            "task": [{"name": "linear", "loss": "mse", "metric": "loss"}],
            "trade": {"delivery_codec": codec},
        }
    )
    samples = {} if select is None or report is None else {"linear": BrokerSamples(select, report)}
    buyer, seller = (SimpleNamespace(snapshot=one * 32, task="linear") for one in (b"a", b"b"))
    appraiser: Any = LinearAppraiser(terms, {"linear": TRUTH}, samples, seed=0)
    found: Appraisal = appraiser.measure(buyer, seller, OURS, theirs or THEIRS, [])
    return found


def error(tensors: Any) -> float:
    return float((tensors[PARAMETERS].double() - TRUTH).square().sum())


def test_what_is_chosen_by_does_not_change_with_report() -> None:
    select = drawn(3, 50, DIMENSION)
    found = [appraised(select, drawn(100 + number, 50, DIMENSION)) for number in range(8)]
    assert len({one.gain for one in found}) == 8, "REPORT is what is told"
    assert len({(one.alpha, one.select_gain, one.adds) for one in found}) == 1
    assert found[0].select_gain > 0


def test_what_is_chosen_by_changes_with_select() -> None:
    report = drawn(3, 50, DIMENSION)
    found = [appraised(drawn(100 + number, 20, DIMENSION), report) for number in range(20)]
    assert len({one.select_gain for one in found}) == 20


def test_whether_it_adds_is_measured_on_select_beyond_chance() -> None:
    """On its own data a seller with the truth adds; on a REPORT that sees nothing of it none would."""
    blind = torch.zeros(50, DIMENSION)
    truth = {PARAMETERS: TRUTH.float()}
    assert appraised(drawn(3, 200, DIMENSION), blind, truth).adds
    assert not appraised(blind, drawn(3, 200, DIMENSION), truth).adds


def test_with_the_truth_both_are_the_whole() -> None:
    found = appraised()
    assert found.select_gain == found.gain == pytest.approx(error(OURS) - error(found.delivered))


@pytest.mark.parametrize("codec", ["none", "float16", "int8"])
def test_what_is_measured_is_what_is_decoded(codec: str, tmp_path: Path) -> None:
    found = appraised(codec=codec)
    assert found.loss_after == pytest.approx(error(found.delivered), rel=1e-12)
    exact = appraised()
    assert (codec == "none") == torch.equal(found.delivered[PARAMETERS], exact.delivered[PARAMETERS])


def test_a_merge_that_the_codec_spoils_is_none() -> None:
    """What int8 adds to the error of parameters this near is more than a purchase takes off."""
    near = {PARAMETERS: OURS[PARAMETERS] + 1e-4 * (TRUTH.float() - OURS[PARAMETERS])}
    assert appraised(theirs=near).delivered
    spoiled = appraised(theirs=near, codec="int8")
    assert not spoiled.delivered and spoiled.alpha == 0.0 and spoiled.select_gain == spoiled.gain == 0.0
