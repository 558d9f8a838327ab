"""The built-in trainer: plain PyTorch on a data file, one epoch at a time.

Knows: a model, a loss, batches in an order fixed by the seed. Refuses to know: the market. It is what `node --data`
runs; whoever has a training loop of their own calls `Agent.trade` from it instead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from p2pmarket.datasets import Dataset
from p2pmarket.errors import DataError

_EVALUATION_BATCH = 4096


class Trainer:
    """Trains one model; two trainers with the same seed and data take the same steps, where the model draws nothing
    itself: dropout draws from torch's own generators, which the caller seeds."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        *,
        loss: str,
        optimizer: str,
        learning_rate: float,
        momentum: float,
        batch_size: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """:param loss: "cross_entropy" or "mse", as the task's
        :param optimizer: "sgd", with `momentum`, or "adam"
        :param device: where the model and its data are moved to, by torch's name
        """
        self.model = model.to(device)
        self._data = Dataset(data.inputs.to(device), data.targets.to(device))
        self._loss = loss
        self._rule = (optimizer, learning_rate, momentum)
        self.forget()
        self._batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def forget(self) -> None:
        """Starts with a new optimiser, without the moments of the one before."""
        optimizer, learning_rate, momentum = self._rule
        parameters = self.model.parameters()
        self._optimizer: torch.optim.Optimizer
        if optimizer == "adam":
            self._optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        else:
            self._optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum)

    def epoch(self) -> float:
        """One pass over the data in a new random order; the mean loss of its steps.

        :raises DataError: the data does not fit the model
        """
        self.model.train()
        order = torch.randperm(len(self._data), generator=self._generator).to(self._data.targets.device)
        total = 0.0
        for batch in torch.split(order, self._batch_size):
            self._optimizer.zero_grad()
            inputs = self._data.inputs.index_select(0, batch)  # twice as fast as [batch]
            loss = loss_of(self._loss, self._predict(inputs), self._data.targets[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += loss.item() * len(batch)
        return total / len(self._data)

    def _predict(self, inputs: Tensor) -> Tensor:
        try:
            outputs: Tensor = self.model(inputs)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"the data of shape {tuple(inputs.shape[1:])} does not fit the model: {reason}") from None
        return outputs


def loss_of(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean loss of a batch.

    :raises DataError: targets that are no classes of the model, or of another shape
    """
    try:
        if name == "cross_entropy":
            return nn.functional.cross_entropy(outputs, targets)
        return nn.functional.mse_loss(outputs, targets.reshape(outputs.shape).to(outputs.dtype))
    except (RuntimeError, IndexError) as error:
        raise DataError(f"the data's targets do not fit the model: {str(error).splitlines()[0]}") from None


@torch.inference_mode()
def score(model: nn.Module, data: Dataset, loss: str) -> float:
    """Accuracy in percent for cross-entropy tasks, the mean loss for others."""
    model.eval()
    outputs = torch.cat([model(inputs) for inputs in torch.split(data.inputs, _EVALUATION_BATCH)])
    if loss == "cross_entropy":
        return float((outputs.argmax(-1) == data.targets).double().mean() * 100)
    return float(loss_of(loss, outputs, data.targets))
