"""One agent with a torch model and images, measured on test images.

Knows: its model, its data, its trainer, and what torch's own generators are at when it trains: a model may draw from
them (dropout), and no other agent's draws may change its. Refuses to know: whose images they are and what is traded.
Fails with DataError where images and model do not fit each other, ModelError where what is loaded is not the model's.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

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


class Draws:
    """What torch's own generators are at for one agent: the CPU's, and a GPU's where it trains on one."""

    def __init__(self, seed: int, device: str) -> None:
        place = torch.device(device)
        self._gpus = [place] if place.type == "cuda" else []
        places = [torch.device("cpu"), *self._gpus]
        self._states = [torch.Generator(one).manual_seed(seed).get_state() for one in places]

    @contextlib.contextmanager
    def lent(self, *, keep: bool) -> Iterator[None]:
        """Torch's generators are this agent's for a while; afterwards they are at what they were before.

        :param keep: whether what is drawn meanwhile moves them on
        """
        with torch.random.fork_rng(devices=[_index(one) for one in self._gpus]):
            torch.set_rng_state(self._states[0])
            for gpu, state in zip(self._gpus, self._states[1:], strict=True):
                torch.cuda.set_rng_state(state, gpu)
            yield
            if keep:
                self._states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in self._gpus)]


def _index(gpu: torch.device) -> int:
    return torch.cuda.current_device() if gpu.index is None else gpu.index


class ImageLearner:
    """One agent."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        test: Dataset,
        training: Training,
        *,
        batches: int,
        draws: int,
        device: str,
        about: str,
    ) -> None:
        """
        :param test: on the device
        :param batches: seed of their order
        :param draws: seed of what the model itself draws
        """
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
            seed=batches,
            device=device,
        )
        self._draws = Draws(draws, device)

    def learn(self) -> None:
        """One epoch."""
        with self._draws.lent(keep=True):
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
        with self._draws.lent(keep=False):  # a look changes no training
            outputs = torch.cat([model(images) for images in torch.split(self._test.inputs, _BATCH)])
        loss = nn.functional.cross_entropy(outputs, self._test.targets)
        return Scores(float(loss), float((outputs.argmax(1) == self._test.targets).double().mean()))
