"""One agent with a torch model and images, measured on test images.

Knows: its model, its data, its trainer. Refuses to know: whose images they are and what is traded. Fails with DataError
where images and model do not fit each other, ModelError where what is loaded is not the model's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from p2pmarket.datasets import Dataset
from p2pmarket.experiments.worlds.contract import Scores
from p2pmarket.node.trainers import Trainer
from p2pmarket.parameters.snapshot import load_in_place, take_snapshot

_BATCH = 1000
"""Test images at a time."""


@dataclasses.dataclass(frozen=True)
class Training:
    """How every agent trains; a round is an epoch."""

    optimizer: str
    """"sgd" or "adam"."""
    learning_rate: float
    momentum: float
    batch_size: int
    reset_optimizer: bool
    """Whether a purchase starts a new optimiser, as the published script does; SGD without momentum has nothing to
    lose by it."""


class ImageLearner:
    """One agent."""

    def __init__(
        self, model: nn.Module, data: Dataset, test: Dataset, training: Training, *, seed: int, device: str, about: str
    ) -> None:
        """:param test: on the device"""
        self.about = about
        self.samples = len(data)
        self._test = test
        self._training = training
        self._trainer = Trainer(
            model,
            data,
            loss="cross_entropy",
            optimizer=training.optimizer,
            learning_rate=training.learning_rate,
            momentum=training.momentum,
            batch_size=training.batch_size,
            seed=seed,
            device=device,
        )

    def learn(self) -> None:
        """One epoch."""
        self._trainer.epoch()

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the parameters, on the CPU."""
        return take_snapshot(self._trainer.model)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what was bought, in place."""
        load_in_place(self._trainer.model, tensors)
        if self._training.reset_optimizer:
            self._trainer.forget()

    @torch.inference_mode()
    def scores(self) -> Scores:
        """Mean cross entropy and accuracy, 0 ... 1, on the test images."""
        model = self._trainer.model.eval()
        outputs = torch.cat([model(images) for images in torch.split(self._test.inputs, _BATCH)])
        loss = nn.functional.cross_entropy(outputs, self._test.targets)
        return Scores(float(loss), float((outputs.argmax(1) == self._test.targets).double().mean()))
