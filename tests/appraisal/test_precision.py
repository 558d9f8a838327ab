"""Number formats: chosen by time, refused where losses do not survive, never used for what is reported."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from p2pmarket.appraisal import Evaluator
from p2pmarket.appraisal.precision import EXACT, TOLERANCE, Choice, Format, distance, fastest, formats
from p2pmarket.errors import ModelError
from p2pmarket.models import build_model
from p2pmarket.parameters import take_snapshot

BF16 = Format(torch.bfloat16)
LAST = Format(torch.float32, True)


class Clock:
    """Runs in a format take what the test says; nothing here depends on this machine's speed."""

    def __init__(self, seconds: dict[Format, float]) -> None:
        self.seconds = seconds
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def running(self, losses: Callable[[Format], Tensor]) -> Callable[[Format], Tensor]:
        def run(form: Format) -> Tensor:
            self.now += self.seconds[form]
            return losses(form)

        return run


def _choose(seconds: dict[Format, float], losses: Callable[[Format], Tensor], forced: bool = False) -> Choice:
    clock = Clock({EXACT: 1.0, **seconds})
    return fastest(clock.running(losses), list(seconds), forced=forced, clock=clock)


def _nearly_equal(form: Format) -> Tensor:
    return torch.ones(8) if form == EXACT else torch.full((8,), 1.001)


def test_the_fastest_format_wins_where_it_is_well_ahead() -> None:
    choice = _choose({LAST: 0.8, BF16: 0.4}, _nearly_equal)
    assert choice.format == BF16
    assert "2.5 times as fast" in str(choice) and "0.10%" in str(choice)
    assert _choose({LAST: 0.4, BF16: 0.45}, _nearly_equal).format == LAST
    assert _choose({LAST: 0.95, BF16: 0.7}, _nearly_equal) == Choice(EXACT, "no other format is well ahead of it here")


def test_a_format_that_changes_the_losses_is_refused_even_when_it_was_asked_for() -> None:
    def off(form: Format) -> Tensor:
        return torch.ones(8) if form == EXACT else torch.full((8,), 1 + 2 * TOLERANCE)

    for forced in (False, True):
        choice = _choose({BF16: 0.1}, off, forced)
        assert choice.format == EXACT and "off by 4.0%" in choice.reason
    assert _choose({BF16: 0.1}, lambda form: torch.full((8,), 1.0 if form == EXACT else torch.nan)).format == EXACT


def test_a_named_format_is_taken_however_slow() -> None:
    assert _choose({BF16: 7.0}, _nearly_equal, forced=True).format == BF16


def test_a_model_that_does_not_run_in_a_format_falls_back() -> None:
    def raises(form: Format) -> Tensor:
        if form.dtype == torch.bfloat16:
            raise RuntimeError("expected Float but found BFloat16")
        return torch.ones(2)

    choice = _choose({BF16: 0.1}, raises, forced=True)
    assert choice.format == EXACT and "does not run in bfloat16 (RuntimeError)" in choice.reason


def test_distance_counts_only_what_differs() -> None:
    one = torch.tensor([1.0, 3.0, torch.inf, torch.nan])
    assert distance(one, one) == 0.0
    assert distance(one, torch.tensor([1.5, 3.0, torch.inf, torch.nan])) == pytest.approx(0.5 / 4 / 2)
    assert not distance(one, torch.full((4,), torch.nan)) <= TOLERANCE


def test_formats_fit_the_model() -> None:
    assert formats(nn.Linear(2, 2), "auto") == (BF16,)
    assert formats(nn.Linear(2, 2), "float32") == ()
    assert set(formats(nn.Conv2d(1, 1, 1), "auto")) == {LAST, BF16, Format(torch.bfloat16, True)}
    assert formats(nn.Conv2d(1, 1, 1), "float32") == (LAST,)


def test_only_float32_is_converted() -> None:
    form = Format(torch.bfloat16, True)
    image = torch.randn(2, 3, 4, 4)
    assert form.of(image).dtype == torch.bfloat16
    assert form.of(image).is_contiguous(memory_format=torch.channels_last)
    for tensor in (torch.arange(3), torch.zeros(2, dtype=torch.float64)):
        assert form.of(tensor) is tensor
    assert EXACT.of(image) is image


@pytest.fixture
def convolutional() -> tuple[nn.Module, dict[str, Tensor], Tensor, Tensor]:
    torch.manual_seed(0)
    model = build_model("wide_resnet", {"depth": 10, "width": 1, "outputs": 10, "channels": 3}, False)
    return model, take_snapshot(model), torch.randn(40, 3, 16, 16), torch.randint(0, 10, (40,))


def _always_faster() -> Callable[[], float]:
    """A clock on which every run is faster than the one before."""
    ticks: Iterator[float] = itertools.accumulate(1.0 / 2**index for index in itertools.count())
    return lambda: next(ticks)


def test_quick_losses_are_near_and_exact_ones_are_exact(
    convolutional: tuple[nn.Module, dict[str, Tensor], Tensor, Tensor],
) -> None:
    model, tensors, inputs, targets = convolutional
    evaluator = Evaluator(
        model, loss="cross_entropy", metric="accuracy", device="cpu", precision="bfloat16", clock=_always_faster()
    )
    assert evaluator.precision == "not probed yet"
    exact = evaluator.measure(tensors, inputs, targets)
    assert evaluator.precision == "not probed yet"
    quick = evaluator.measure(tensors, inputs, targets, exact=False)
    assert evaluator.precision.startswith("bfloat16, channels last: ") and evaluator.rounds
    assert not torch.equal(exact.losses, quick.losses)
    torch.testing.assert_close(exact.losses, quick.losses, rtol=0.02, atol=0.02)
    again = evaluator.measure(tensors, inputs, targets)
    assert torch.equal(exact.losses, again.losses)
    expected = nn.functional.cross_entropy(model(inputs), targets, reduction="none").double()
    torch.testing.assert_close(exact.losses, expected)


def test_a_snapshot_that_rounding_destroys_is_searched_in_float32_and_the_next_one_is_not(
    convolutional: tuple[nn.Module, dict[str, Tensor], Tensor, Tensor],
) -> None:
    model, tensors, inputs, targets = convolutional
    evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu", precision="bfloat16")
    assert evaluator.calibrate(tensors, inputs, targets).startswith("bfloat16")
    # The logits' differences are a thousandth of the logits, which bfloat16 cannot hold.
    fragile = {**tensors, "head.bias": tensors["head.bias"] + 1000, "head.weight": 3 * tensors["head.weight"]}
    assert "are off by" in evaluator.calibrate(fragile, inputs, targets) and not evaluator.rounds
    quick = evaluator.measure(fragile, inputs, targets, exact=False)
    assert torch.equal(quick.losses, evaluator.measure(fragile, inputs, targets).losses)
    assert evaluator.calibrate(tensors, inputs, targets).startswith("bfloat16")


class FlattensByView(nn.Module):
    """Code that takes a dense layout for granted, and makes float32 tensors of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 36, 10)

    def forward(self, images: Tensor) -> Tensor:
        flat = self.conv(images).view(len(images), -1) @ torch.eye(4 * 36)
        outputs: Tensor = self.head(flat)
        return outputs


def test_code_that_knows_one_format_only_still_runs() -> None:
    torch.manual_seed(0)
    model = FlattensByView()
    tensors, inputs, targets = take_snapshot(model), torch.randn(6, 3, 8, 8), torch.randint(0, 10, (6,))
    for precision in ("auto", "bfloat16"):
        evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu", precision=precision)
        quick = evaluator.measure(tensors, inputs, targets, exact=False)
        assert torch.equal(quick.losses, evaluator.measure(tensors, inputs, targets).losses)
        assert evaluator.precision.startswith("float32: the model does not run in bfloat16")


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(ModelError, match="auto, float32, bfloat16"):
        Evaluator(nn.Linear(2, 2), loss="mse", metric="loss", device="cpu", precision="float8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_quick_losses_are_near_exact_ones(
    convolutional: tuple[nn.Module, dict[str, Tensor], Tensor, Tensor],
) -> None:
    model, tensors, inputs, targets = convolutional
    there = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cuda", precision="bfloat16")
    placed, images, classes = there.place(tensors), inputs.cuda(), targets.cuda()
    exact = there.measure(placed, images, classes)
    quick = there.measure(placed, images, classes, exact=False)
    torch.testing.assert_close(exact.losses, quick.losses, rtol=0.02, atol=0.02)
    here = Evaluator(model.cpu(), loss="cross_entropy", metric="accuracy", device="cpu")
    torch.testing.assert_close(exact.losses, here.measure(tensors, inputs, targets).losses, rtol=1e-4, atol=1e-5)
    assert there.peak_mib > 0
