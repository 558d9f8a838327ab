"""Residual networks for small images and their permutation symmetry.

Knows: the pre-activation Wide-ResNet (Zagoruyko and Komodakis 2016) with GroupNorm(1, C), the paper's "ResNet20",
and the CIFAR ResNet20 (He et al. 2015, section 4.2) with a projection where the shape changes (option B), since
option A's zero padding would tie the channels of two stages. Refuses to know: where arguments come from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from p2pmarket.permutation import Axis, PermutationClass, PermutationSpec

NORMS = ("group", "batch")
"""Normalisation layers: GroupNorm(1, C), or BatchNorm."""


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels) if kind == "group" else nn.BatchNorm2d(channels)


class PreActivationBlock(nn.Module):
    """norm, relu, conv, norm, relu, conv, plus the input; a projection of the activated input where widths differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = _norm("group", inputs)
        self.conv1 = _conv(inputs, outputs, stride=stride)
        self.norm2 = _norm("group", outputs)
        self.conv2 = _conv(outputs, outputs)
        changes = inputs != outputs or stride != 1
        self.shortcut = _conv(inputs, outputs, kernel=1, stride=stride) if changes else None

    def forward(self, stream: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        active = torch.relu(self.norm1(stream))
        added: Tensor = self.conv2(torch.relu(self.norm2(self.conv1(active))))
        return added + (stream if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """Wide-ResNet depth-width, pre-activation. 22-6 on 3 channels has 9.66 M parameters, as in the paper."""

    def __init__(self, depth: int, width: int, outputs: int, channels: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        widths = (16, 16 * width, 32 * width, 64 * width)
        self.stem = _conv(channels, widths[0])
        self.groups = nn.ModuleList(
            nn.Sequential(
                *(
                    PreActivationBlock(
                        widths[group] if block == 0 else widths[group + 1],
                        widths[group + 1],
                        2 if group > 0 and block == 0 else 1,
                    )
                    for block in range(blocks)
                )
            )
            for group in range(3)
        )
        self.norm = _norm("group", widths[3])
        self.head = nn.Linear(widths[3], outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, outputs)."""
        stream: Tensor = self.stem(images)
        for group in self.groups:
            stream = group(stream)
        outputs: Tensor = self.head(torch.relu(self.norm(stream)).mean((2, 3)))
        return outputs


class PostActivationBlock(nn.Module):
    """conv, norm, relu, conv, norm, plus the input (projected and normalised where widths differ), relu."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, stride=stride)
        self.norm1 = _norm(norm, outputs)
        self.conv2 = _conv(outputs, outputs)
        self.norm2 = _norm(norm, outputs)
        changes = inputs != outputs or stride != 1
        self.shortcut = _conv(inputs, outputs, kernel=1, stride=stride) if changes else None
        self.shortcut_norm = _norm(norm, outputs) if changes else None

    def forward(self, stream: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        added: Tensor = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(stream)))))
        if self.shortcut is not None and self.shortcut_norm is not None:
            stream = self.shortcut_norm(self.shortcut(stream))
        return torch.relu(added + stream)


class ResNet20(nn.Module):
    """Three stages of three blocks, 16, 32 and 64 channels times `width`."""

    def __init__(self, width: int, outputs: int, channels: int, norm: str) -> None:
        super().__init__()
        widths = (16 * width, 16 * width, 32 * width, 64 * width)
        self.stem = _conv(channels, widths[0])
        self.norm = _norm(norm, widths[0])
        self.groups = nn.ModuleList(
            nn.Sequential(
                PostActivationBlock(widths[group], widths[group + 1], 1 if group == 0 else 2, norm),
                PostActivationBlock(widths[group + 1], widths[group + 1], 1, norm),
                PostActivationBlock(widths[group + 1], widths[group + 1], 1, norm),
            )
            for group in range(3)
        )
        self.head = nn.Linear(widths[3], outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, outputs)."""
        stream: Tensor = torch.relu(self.norm(self.stem(images)))
        for group in self.groups:
            stream = group(stream)
        outputs: Tensor = self.head(stream.mean((2, 3)))
        return outputs


class _Classes:
    """Collects members of permutation classes while a network is walked."""

    def __init__(self, model: nn.Module) -> None:
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self._members: dict[str, list[Axis]] = {}

    def weight(self, name: str, *, rows: str | None = None, columns: str | None = None) -> None:
        """A convolution or linear weight: axis 0 writes to class `rows`, axis 1 reads from class `columns`."""
        for axis, group in ((0, rows), (1, columns)):
            if group is not None:
                self._members.setdefault(group, []).append(Axis(f"{name}.weight", axis))

    def norm(self, name: str, group: str) -> None:
        """Every tensor with one number a channel: affine, and running statistics where there are any."""
        for part in ("weight", "bias", "running_mean", "running_var"):
            if f"{name}.{part}" in self._shapes:
                self._members.setdefault(group, []).append(Axis(f"{name}.{part}", 0))

    def spec(self) -> PermutationSpec:
        sizes = {group: self._shapes[axes[0].tensor][axes[0].axis] for group, axes in self._members.items()}
        return PermutationSpec(
            tuple(PermutationClass(group, sizes[group], tuple(axes)) for group, axes in self._members.items())
        )


def wide_resnet_spec(model: WideResNet) -> PermutationSpec:
    """One class per block's inner channels and one per residual stream.

    A stream goes on through a block without a projection: at width 1 the stem writes to the first group's stream.
    """
    classes = _Classes(model)
    stream = "stem"
    classes.weight("stem", rows=stream)
    for path, block in _blocks(model.groups):
        inner = f"{path}.inner"
        after = stream if getattr(block, "shortcut", None) is None else f"{path}.stream"
        classes.norm(f"{path}.norm1", stream)
        classes.weight(f"{path}.conv1", rows=inner, columns=stream)
        classes.norm(f"{path}.norm2", inner)
        classes.weight(f"{path}.conv2", rows=after, columns=inner)
        if after != stream:
            classes.weight(f"{path}.shortcut", rows=after, columns=stream)
        stream = after
    classes.norm("norm", stream)
    classes.weight("head", columns=stream)
    return classes.spec()


def resnet20_spec(model: ResNet20) -> PermutationSpec:
    """One class per block's inner channels and one per residual stream."""
    classes = _Classes(model)
    stream = "stem"
    classes.weight("stem", rows=stream)
    classes.norm("norm", stream)
    for path, block in _blocks(model.groups):
        inner = f"{path}.inner"
        after = stream if getattr(block, "shortcut", None) is None else f"{path}.stream"
        classes.weight(f"{path}.conv1", rows=inner, columns=stream)
        classes.norm(f"{path}.norm1", inner)
        classes.weight(f"{path}.conv2", rows=after, columns=inner)
        classes.norm(f"{path}.norm2", after)
        if after != stream:
            classes.weight(f"{path}.shortcut", rows=after, columns=stream)
            classes.norm(f"{path}.shortcut_norm", after)
        stream = after
    classes.weight("head", columns=stream)
    return classes.spec()


def _blocks(groups: nn.ModuleList) -> list[tuple[str, nn.Module]]:
    return [
        (f"groups.{group}.{index}", block)
        for group, blocks in enumerate(groups)
        for index, block in enumerate(blocks.children())
    ]
