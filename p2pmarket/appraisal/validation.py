"""A broker's validation data, split once: SELECT for every choice, REPORT for the gain that is told.

Knows: the split and its digest. Refuses to know: models. Choosing and measuring on the same samples reports gains that
are not there (best of 10 candidates: a false gain one time in five), hence two parts that never meet.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import torch
from torch import Tensor

from p2pmarket.errors import DataError

_FEWEST = 2
"""Samples that each part needs: an interval needs two."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """The two parts of one task's validation data, on one device."""

    select_inputs: Tensor
    """(S, ...)"""
    select_targets: Tensor
    report_inputs: Tensor
    """(R, ...)"""
    report_targets: Tensor
    digest: bytes
    """SHA-256 over both parts' contents in order: says which data a gain was measured on, without showing it."""

    @classmethod
    def split(cls, inputs: Tensor, targets: Tensor, *, select_fraction: float, seed: int) -> Validation:
        """A random `select_fraction` of the samples for SELECT, the rest for REPORT; the same for the same seed.

        :raises DataError: lengths differ, or fewer than two samples in a part
        """
        if len(inputs) != len(targets):
            raise DataError(f"validation data has {len(inputs)} inputs and {len(targets)} targets; expected as many")
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(inputs)))
        cut = round(select_fraction * len(inputs))
        if min(cut, len(inputs) - cut) < _FEWEST:
            raise DataError(
                f"{len(inputs)} validation samples with {select_fraction:.0%} for SELECT leave a part with fewer than "
                f"{_FEWEST} samples; add validation data"
            )
        return cls.of(inputs[order[:cut]], targets[order[:cut]], inputs[order[cut:]], targets[order[cut:]])

    @classmethod
    def of(
        cls, select_inputs: Tensor, select_targets: Tensor, report_inputs: Tensor, report_targets: Tensor
    ) -> Validation:
        """From parts that are split already, on the CPU."""
        parts = (select_inputs, select_targets, report_inputs, report_targets)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(f"{part.dtype} {tuple(part.shape)}\0".encode())
            digest.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return cls(*parts, digest.digest())

    def to(self, device: torch.device) -> Validation:
        """The same data on `device`; no copy where it is there already."""
        return Validation(
            self.select_inputs.to(device),
            self.select_targets.to(device),
            self.report_inputs.to(device),
            self.report_targets.to(device),
            self.digest,
        )
