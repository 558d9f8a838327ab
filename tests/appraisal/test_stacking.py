"""Many parameter sets in one pass, where torch can batch the model; one after the other and silent where it cannot."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from p2pmarket.appraisal import Evaluator
from p2pmarket.parameters import take_snapshot


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        head: Tensor = self.head(self.layer(inputs).mean(1))
        return head


class Counting(Evaluator):
    calls = 0

    def measure(self, tensors, inputs, targets, *, exact=True):  # type: ignore[no-untyped-def]
        self.calls += 1
        return super().measure(tensors, inputs, targets, exact=exact)


@pytest.mark.parametrize(
    ("model", "batched"), [(Attention, False), (lambda: nn.Sequential(nn.Flatten(), nn.Linear(40, 3)), True)]
)
def test_what_torch_cannot_batch_is_measured_in_turn_without_a_warning(model, batched) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    sets = [take_snapshot(model()) for _ in range(3)]
    inputs, targets = torch.randn(16, 5, 8), torch.randint(0, 3, (16,))
    evaluator = Counting(model(), loss="cross_entropy", metric="accuracy", device="cpu")
    for turn in (1, 2):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            many = evaluator.measure_many(sets, inputs, targets)
        assert told == []
        assert evaluator.calls == (0 if batched else 3 * turn)
    alone = [Evaluator.measure(evaluator, tensors, inputs, targets) for tensors in sets]
    assert all(torch.allclose(one.losses, other.losses, atol=1e-5) for one, other in zip(many, alone, strict=True))
    assert len({one.loss for one in alone}) == 3
