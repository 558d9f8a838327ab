"""Random modules of the usual shapes, written for the benchmarks alone.

No weights are loaded and nothing is trained: the figures are about shapes and sizes. `simple` keeps the classes of a
spec that a plain weight matcher can express, which permute whole axes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from p2pmarket.permutation import PermutationSpec


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with BatchNorm, plus the input, projected where shapes differ."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.conv1, self.norm1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.norm3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.project = self.project_norm = None
        if inputs != outputs or stride != 1:
            self.project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.project_norm = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        added = torch.relu(self.norm1(self.conv1(images)))
        added = self.norm3(self.conv3(torch.relu(self.norm2(self.conv2(added)))))
        if self.project is not None and self.project_norm is not None:
            images = self.project_norm(self.project(images))
        return torch.relu(added + images)


class ResNet50(nn.Module):
    """Stages of 3, 4, 6 and 3 bottlenecks (He et al. 2015, table 1)."""

    def __init__(self, depths: tuple[int, ...] = (3, 4, 6, 3), width: int = 64, outputs: int = 1000) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        stages, inputs = [], width
        for stage, depth in enumerate(depths):
            inner = width * 2**stage
            blocks = []
            for block in range(depth):
                blocks.append(Bottleneck(inputs, inner, 2 if stage and not block else 1))
                inputs = 4 * inner
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, images: Tensor) -> Tensor:
        values = torch.max_pool2d(torch.relu(self.norm(self.stem(images))), 3, 2, 1)
        for stage in self.stages:
            values = stage(values)
        outputs: Tensor = self.head(values.mean((2, 3)))
        return outputs


class Block(nn.Module):
    """Attention with fused queries, keys and values, then an MLP; LayerNorm before each."""

    def __init__(self, width: int, heads: int, inner: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, stream: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(stream)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        stream = stream + self.out(mixed.transpose(1, 2).flatten(2))
        added: Tensor = self.down(nn.functional.gelu(self.up(self.norm2(stream))))
        return stream + added


class Vit(nn.Module):
    """ViT-B/16 for 224 x 224 images (Dosovitskiy et al. 2020, table 1)."""

    def __init__(self, depth: int = 12, width: int = 768, heads: int = 12, inner: int = 3072, side: int = 224) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, (side // 16) ** 2 + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, inner, False) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).mT
        stream = torch.cat([self.token.expand(len(images), -1, -1), patches], 1) + self.places
        for block in self.blocks:
            stream = block(stream)
        outputs: Tensor = self.head(self.norm(stream)[:, 0])
        return outputs


class Gpt(nn.Module):
    """GPT-2 small (Radford et al. 2019) with tied embeddings and, to be short, 8,192 words."""

    def __init__(
        self,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        inner: int = 3072,
        words: int = 8192,
        places: int = 1024,
    ) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(places, width)
        self.blocks = nn.ModuleList(Block(width, heads, inner, True) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            stream = block(stream)
        outputs: Tensor = self.head(self.norm(stream))
        return outputs


def simple(spec: PermutationSpec) -> PermutationSpec:
    """The classes that permute whole axes, each by itself."""
    return PermutationSpec(
        tuple(
            group
            for group in spec.classes
            if group.blocks == 1
            and not group.within
            and all((member.start, member.outer, member.inner) == (0, 1, 1) for member in group.members)
        )
    )
