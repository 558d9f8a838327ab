"""A multi-layer perceptron and its permutation symmetry.

Knows: layers and their names. Refuses to know: where arguments come from (registry checks them).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from p2pmarket.permutation import Axis, PermutationClass, PermutationSpec


class Mlp(nn.Module):
    """Linear layers with ReLU between them; the paper's MNIST model is 784-32-32-32-16-10."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        widths = (inputs, *hidden, outputs)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in zip(widths, widths[1:], strict=False))

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, ...) with `inputs` numbers a sample -> (N, outputs)."""
        values = inputs.flatten(1)
        for layer in self.layers[:-1]:
            values = torch.relu(layer(values))
        outputs: Tensor = self.layers[-1](values)
        return outputs


def mlp_spec(model: Mlp) -> PermutationSpec:
    """One class per hidden layer: its units are rows of its own layer and columns of the next."""
    widths = [layer.out_features for layer in model.layers if isinstance(layer, nn.Linear)]
    return PermutationSpec(
        tuple(
            PermutationClass(
                f"hidden.{index}",
                width,
                (
                    Axis(f"layers.{index}.weight", 0),
                    Axis(f"layers.{index}.bias", 0),
                    Axis(f"layers.{index + 1}.weight", 1),
                ),
            )
            for index, width in enumerate(widths[:-1])
        )
    )
