"""Memory bounded by smaller batches, several sets of parameters at once, an evaluator for each device."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from p2pmarket.appraisal import Evaluator
from p2pmarket.appraisal.evaluator import evaluators_for
from p2pmarket.appraisal.memory import MIB, is_out_of_memory, peak_bytes
from p2pmarket.errors import DataError, MachineFault, ModelError
from p2pmarket.models import build_model
from p2pmarket.parameters import take_snapshot


class Hungry(nn.Module):
    """Has memory for `limit` samples at a time."""

    def __init__(self, limit: int, sentence: str) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.limit = limit
        self.sentence = sentence
        self.batches: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.batches.append(len(inputs))
        if len(inputs) > self.limit:
            raise RuntimeError(self.sentence)
        outputs: Tensor = self.norm(self.layer(inputs))
        return outputs


CPU_SAYS = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
CUDA_SAYS = "CUDA out of memory. Tried to allocate 2.00 GiB"


def _hungry(limit: int, sentence: str = CPU_SAYS) -> tuple[Hungry, Evaluator]:
    torch.manual_seed(0)
    model = Hungry(limit, sentence)
    return model, Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu", batch_size=64)


@pytest.mark.parametrize("sentence", [CPU_SAYS, CUDA_SAYS])
def test_out_of_memory_halves_the_batch_and_every_sample_is_measured_once(sentence: str) -> None:
    inputs, targets = torch.randn(100, 4), torch.randint(0, 3, (100,))
    model, evaluator = _hungry(20, sentence)
    tensors = take_snapshot(model)
    measured = evaluator.measure(tensors, inputs, targets)
    plenty = Evaluator(Hungry(1000, ""), loss="cross_entropy", metric="accuracy", device="cpu")
    torch.testing.assert_close(measured.losses, plenty.measure(tensors, inputs, targets).losses)
    assert evaluator.batch_size == 16
    assert model.batches[1:5] == [64, 32, 16, 16]
    model.batches.clear()
    evaluator.measure(tensors, inputs, targets)
    assert max(model.batches) == 16  # what was learned is kept


def test_statistics_start_anew_with_the_smaller_batch() -> None:
    inputs = torch.randn(64, 4)
    model, evaluator = _hungry(20)
    tensors = take_snapshot(model)
    fresh = evaluator.reset_statistics(tensors, inputs, tensors.keys())
    values = inputs @ tensors["layer.weight"].T + tensors["layer.bias"]
    torch.testing.assert_close(fresh["norm.running_mean"], values.mean(0))
    assert not model.norm.training and model.norm.momentum == 0.1


def test_one_sample_left_over_is_left_out_of_statistics() -> None:
    model, evaluator = _hungry(1000)
    tensors, inputs = take_snapshot(model), torch.randn(65, 4)
    one, other = (evaluator.reset_statistics(tensors, part, tensors.keys()) for part in (inputs, inputs[:64]))
    torch.testing.assert_close(one["norm.running_var"], other["norm.running_var"])


def test_a_single_sample_without_memory_is_this_machines_fault() -> None:
    model, evaluator = _hungry(0)
    tensors, inputs, targets = take_snapshot(model), torch.randn(9, 4), torch.zeros(9, dtype=torch.int64)
    for attempt in (
        lambda: evaluator.measure(tensors, inputs, targets),
        lambda: evaluator.measure_many([tensors, tensors], inputs, targets),
        lambda: evaluator.reset_statistics(tensors, inputs, tensors.keys()),
        lambda: evaluator.mean_loss(tensors, inputs, targets),
    ):
        with pytest.raises(MachineFault, match="the device cpu ran out of memory") as caught:
            attempt()
        assert caught.value.code == "out-of-memory"
    model.limit = 100  # the next pair may fit again
    assert evaluator.measure(tensors, inputs, targets).finite


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    _, evaluator = _hungry(0, "mat1 and mat2 shapes cannot be multiplied")
    tensors = take_snapshot(Hungry(0, ""))
    with pytest.raises(ModelError, match="cannot take validation inputs"):
        evaluator.measure(tensors, torch.randn(3, 4), torch.zeros(3, dtype=torch.int64))
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("")) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_peak_is_that_of_tensors_alive_together() -> None:
    inputs = torch.randn(1000)

    def chain() -> Tensor:
        values = inputs + 1
        for _ in range(10):
            values = values * 2  # the one before dies
        return values

    def keeps() -> list[Tensor]:
        return [inputs + index for index in range(10)]

    assert peak_bytes(chain) == 2 * 4000
    assert peak_bytes(keeps) == 10 * 4000
    assert peak_bytes(lambda: inputs.view(10, 100)) == 0


def test_the_batch_is_cut_to_the_budget_and_the_losses_stay() -> None:
    torch.manual_seed(0)
    model = build_model("wide_resnet", {"depth": 10, "width": 1, "outputs": 10, "channels": 3}, False)
    tensors, inputs, targets = take_snapshot(model), torch.randn(50, 3, 32, 32), torch.randint(0, 10, (50,))
    wide = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu")
    tight = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu", memory_mib=2)
    expected = wide.measure(tensors, inputs, targets)
    measured = tight.measure(tensors, inputs, targets)
    torch.testing.assert_close(measured.losses, expected.losses)
    assert wide.batch_size == 1024 and 1 <= tight.batch_size < 50
    assert 0 < tight.peak_mib <= 2 < wide.peak_mib
    # One layer's output of a single sample is the least it can be.
    assert wide.peak_mib > 50 * 16 * 32 * 32 * 4 / MIB


MODELS: dict[str, nn.Module] = {
    "mlp": nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
    "norm": nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    "convolution": nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)),
}


class LooksAtValues(nn.Module):
    """Code that cannot be batched over parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs if float(outputs.sum()) > 0 else 2 * outputs


@pytest.mark.parametrize("name", [*MODELS, "looks at values"])
@pytest.mark.parametrize("batch_size", [7, 1024])
def test_many_sets_of_parameters_are_measured_as_each_alone(name: str, batch_size: int) -> None:
    torch.manual_seed(0)
    model = MODELS[name] if name in MODELS else LooksAtValues()
    evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu", batch_size=batch_size)
    own = take_snapshot(model)
    sets = [
        {
            key: value + 0.3 * torch.randn(value.shape).abs() if value.is_floating_point() else value
            for key, value in own.items()
        }
        for _ in range(3)
    ]
    inputs, targets = torch.randn(25, 6), torch.randint(0, 3, (25,))
    many = evaluator.measure_many(sets, inputs, targets)
    for measured, tensors in zip(many, sets, strict=True):
        alone = evaluator.measure(tensors, inputs, targets)
        torch.testing.assert_close(measured.losses, alone.losses, rtol=1e-5, atol=1e-6)
        assert torch.equal(measured.metrics, alone.metrics)
    assert not torch.allclose(many[0].losses, many[1].losses)
    assert evaluator.measure_many([], inputs, targets) == []


def test_many_sets_say_the_same_about_data_that_do_not_fit() -> None:
    evaluator = Evaluator(MODELS["mlp"], loss="cross_entropy", metric="accuracy", device="cpu")
    sets = [take_snapshot(MODELS["mlp"])] * 2
    with pytest.raises(ModelError, match=r"shape \(N, 5\)"):
        evaluator.measure_many(sets, torch.randn(4, 5), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ModelError, match="classes 7"):
        evaluator.measure_many(sets, torch.randn(4, 6), torch.full((4,), 7))
    with pytest.raises(DataError, match="4 inputs and 3 targets"):
        evaluator.measure_many(sets, torch.randn(4, 6), torch.zeros(3, dtype=torch.int64))


def test_no_samples_is_a_fault_of_the_data() -> None:
    evaluator = Evaluator(MODELS["mlp"], loss="cross_entropy", metric="accuracy", device="cpu")
    with pytest.raises(DataError, match="0 inputs"):
        evaluator.measure(take_snapshot(MODELS["mlp"]), torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))


def test_losses_that_are_no_numbers_are_returned_and_can_be_seen() -> None:
    tensors = take_snapshot(MODELS["mlp"])
    evaluator = Evaluator(MODELS["mlp"], loss="cross_entropy", metric="accuracy", device="cpu")
    inputs, targets = torch.randn(4, 6), torch.zeros(4, dtype=torch.int64)
    assert evaluator.measure(tensors, inputs, targets).finite
    bad = {**tensors, "0.bias": torch.full_like(tensors["0.bias"], math.nan)}
    measured = evaluator.measure(bad, inputs, targets)
    assert not measured.finite and math.isnan(measured.loss)


@pytest.mark.parametrize(
    "forward",
    [lambda inputs: (inputs, inputs), lambda inputs: inputs.sum(), lambda inputs: inputs[:1], lambda inputs: None],
)
def test_outputs_without_a_row_for_every_sample(forward: object) -> None:
    class Odd(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return forward(inputs)  # type: ignore[operator, no-any-return]

    model = Odd(3, 3)
    evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu")
    for measure in (
        lambda tensors: evaluator.measure(tensors, torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)),
        lambda tensors: evaluator.measure_many([tensors] * 2, torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)),
    ):
        with pytest.raises(ModelError, match="a row for every sample"):
            measure(take_snapshot(model))


def test_one_number_a_sample_is_an_output() -> None:
    class Scalar(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs)[:, 0]

    evaluator = Evaluator(Scalar(3, 1), loss="mse", metric="loss", device="cpu")
    measured = evaluator.measure(take_snapshot(Scalar(3, 1)), torch.randn(4, 3), torch.randn(4))
    assert measured.losses.shape == (4,)


def test_without_cuda_there_is_one_evaluator() -> None:
    (evaluator,) = evaluators_for(nn.Linear(2, 2), loss="mse", metric="loss", device="cpu")
    assert evaluator.device == torch.device("cpu")
    with pytest.raises(ModelError, match="'abacus'"):
        evaluators_for(nn.Linear(2, 2), loss="mse", metric="loss", device="abacus")


def test_with_several_cuda_devices_each_has_a_model_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the devices: what is made, not what it computes."""
    made: list[tuple[nn.Module, str]] = []

    def make(model: nn.Module, *, device: str, **options: object) -> None:
        made.append((model, device))

    monkeypatch.setattr("p2pmarket.appraisal.evaluator.Evaluator", make)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    model = nn.Linear(2, 2)
    evaluators_for(model, loss="mse", metric="loss")
    assert [device for _, device in made] == ["cuda:0", "cuda:1"]
    assert made[0][0] is not made[1][0] and torch.equal(made[0][0].weight, made[1][0].weight)  # type: ignore[arg-type]
    made.clear()
    evaluators_for(model, loss="mse", metric="loss", device="cuda:1")
    assert made == [(model, "cuda:1")]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_cuda_device_measures_the_same() -> None:
    model = MODELS["mlp"]
    tensors, inputs, targets = take_snapshot(model), torch.randn(50, 6), torch.randint(0, 3, (50,))
    found = []
    for evaluator in evaluators_for(model, loss="cross_entropy", metric="accuracy"):
        place = evaluator.device
        sets = [evaluator.place(tensors)] * 3
        found += evaluator.measure_many(sets, inputs.to(place), targets.to(place))
    for measured in found:
        torch.testing.assert_close(measured.losses, found[0].losses)
    model.cpu()
