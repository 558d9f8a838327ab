"""Activation matching: units that fire alike on the same inputs are the same unit.

Knows: Li et al. 2015, "Convergent Learning", and Ainsworth et al. 2022, section 3.1: one forward pass of each model on
unlabelled inputs, the correlation of every pair of units, one assignment for each family of classes; no family waits
for another. Units are seen where a layer's output enumerates them (linear, convolution, norms).
Refuses to know: labels, losses, random numbers. Fails with ModelError where the model does not run on the inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from p2pmarket.alignment.assignment import Assigner
from p2pmarket.alignment.families import Family, Part, families_of
from p2pmarket.alignment.symmetry import Permutations, check_fits, identity
from p2pmarket.alignment.wreath import as_choice, solve
from p2pmarket.errors import BadSnapshot, ModelError
from p2pmarket.permutation import PermutationSpec

_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)
_CHANNELS_SECOND = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
)


def match_activations(
    model: nn.Module,
    spec: PermutationSpec,
    buyer: Mapping[str, Tensor],
    seller: Mapping[str, Tensor],
    inputs: Sequence[Tensor],
    *,
    start: Permutations | None = None,
    batch_size: int = 256,
) -> dict[str, Tensor]:
    """Permutations that bring the seller's units to the buyer's that fire like them.

    :param model: runs both models' tensors in turn, in evaluation mode; where the seller's lack a tensor or have
        another shape (another task's head), the buyer's is used; its own weights and mode stay as they are
    :param inputs: the model's arguments, samples first; all on the device of the tensors
    :param start: what classes keep whose units no layer shows; weight matching's, or the identity
    :raises ModelError: the spec does not fit, or the model does not run on the inputs
    :raises BadSnapshot: activations are not finite
    """
    check_fits(spec, buyer)
    check_fits(spec, seller)
    found = {name: indices.clone() for name, indices in (start or identity(spec)).items()}
    common = {
        name: tensor.shape for name, tensor in buyer.items() if name in seller and seller[name].shape == tensor.shape
    }
    families = families_of(spec, common)
    modules = dict(model.named_modules())
    shown = {
        part: modules[part.tensor.removesuffix(".weight")]
        for family in families
        for part in family.parts
        if part.axis == 0
        and part.tensor.endswith(".weight")
        and isinstance(modules.get(part.tensor.removesuffix(".weight")), _CHANNELS_LAST + _CHANNELS_SECOND)
    }
    sums = _observe(
        model, shown, (dict(buyer), {**buyer, **{name: seller[name] for name in common}}), inputs, batch_size
    )
    for family in families:
        seen = {part: sums[part] for part in shown if part in family.parts and part in sums}
        if seen:
            found.update(_best(family, seen, found))
    return found


@dataclasses.dataclass
class _Moments:
    """Sums over samples and places: of each unit, of its square, and of products of the buyer's and the seller's."""

    count: int
    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    product: Tensor

    def correlation(self) -> Tensor:
        """(sites, sites); 0 where a unit never changes."""
        means = [total / self.count for total in self.first]
        deviations = [
            (square / self.count - mean**2).clamp(min=0).sqrt() for square, mean in zip(self.second, means, strict=True)
        ]
        covariance = self.product / self.count - torch.outer(*means)
        scale = torch.outer(*deviations)
        floor = 1e-12 * float(scale.max())
        return torch.where(scale > floor, covariance / scale.clamp(min=floor + 1e-300), 0.0)


def _observe(
    model: nn.Module,
    shown: Mapping[Part, nn.Module],
    tensors: tuple[dict[str, Tensor], dict[str, Tensor]],
    inputs: Sequence[Tensor],
    batch_size: int,
) -> dict[Part, _Moments]:
    """Runs both models batch by batch."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        outputs[module] = output

    modes = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_hook(keep) for module in set(shown.values())]
    sums: dict[Part, _Moments] = {}
    try:
        model.eval()
        for at in range(0, len(inputs[0]), batch_size):
            batch = tuple(part[at : at + batch_size] for part in inputs)
            both = []
            for state in tensors:
                outputs.clear()
                with torch.no_grad():
                    torch.func.functional_call(model, state, batch, tie_weights=False)
                both.append(
                    {part: _units(module, outputs[module], part) for part, module in shown.items() if module in outputs}
                )
            for part in both[0].keys() & both[1].keys():
                _add(sums, part, both[0][part], both[1][part])
    except (RuntimeError, TypeError, ValueError, IndexError) as reason:
        raise ModelError(f"the model does not run on the inputs for activation matching: {reason}") from reason
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return sums


def _units(module: nn.Module, output: Tensor, part: Part) -> Tensor:
    """(observations, sites) float64: each sample, place and copy of a site is one observation."""
    last = output if isinstance(module, _CHANNELS_LAST) else output.movedim(1, -1)
    sites, copies = part.places.shape
    places = part.places.reshape(-1).to(output.device)
    values = last.flatten(0, -2).index_select(1, places).double().reshape(-1, sites, copies)
    return values.transpose(1, 2).reshape(-1, sites)


def _add(sums: dict[Part, _Moments], part: Part, buyer: Tensor, seller: Tensor) -> None:
    moments = _Moments(
        len(buyer), (buyer.sum(0), seller.sum(0)), ((buyer**2).sum(0), (seller**2).sum(0)), buyer.T @ seller
    )
    before = sums.get(part)
    if before is not None:
        moments = _Moments(
            before.count + moments.count,
            (before.first[0] + moments.first[0], before.first[1] + moments.first[1]),
            (before.second[0] + moments.second[0], before.second[1] + moments.second[1]),
            before.product + moments.product,
        )
    sums[part] = moments


def _best(family: Family, seen: Mapping[Part, _Moments], found: Permutations) -> dict[str, Tensor]:
    """The permutations of one family by the sum of its correlations; what shows nothing stays."""
    matrices = [np.zeros((pattern.sites, pattern.sites), np.float32) for pattern in family.patterns]
    for part, moments in seen.items():
        correlation = moments.correlation()
        if not torch.isfinite(moments.product).all():
            raise BadSnapshot(f"the units of {part.tensor} are not finite on the inputs; the parameters are unusable")
        matrices[part.pattern] += correlation.float().cpu().numpy()
    if family.simple:
        group = family.classes[0]
        total = np.sum(matrices, axis=0).reshape(group.blocks, group.size, group.blocks, group.size)
        current = found[group.name].reshape(group.blocks, group.size).numpy()
        blocks = [
            Assigner().best(torch.from_numpy(total[block, :, block].copy()), current[block])
            for block in range(group.blocks)
        ]
        return {group.name: torch.from_numpy(np.stack(blocks)).reshape(found[group.name].shape)}
    names = [group.name for group in family.classes]
    choice = solve(family, matrices, as_choice(family.classes, {name: found[name].numpy() for name in names}))
    return {name: torch.from_numpy(choice[name]).reshape(found[name].shape) for name in names}
