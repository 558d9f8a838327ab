"""The interval told for learned coefficients covers the true gain; choosing and reporting on one set does not."""

from __future__ import annotations

import torch
from torch import nn

from p2pmarket.appraisal import Evaluator, Validation, gain_on, paired_gain, plan_merge
from p2pmarket.appraisal.merging import merge

REPETITIONS, SAMPLES, WIDTH = 60, 60, 24


def test_the_interval_on_report_covers_and_on_select_over_reports() -> None:
    """Two linear models with errors of their own, one coefficient for each of 24 outputs learned on 60 samples."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(8, WIDTH, bias=False)
    evaluator = Evaluator(model, loss="mse", metric="loss", device="cpu")
    truth = torch.randn(WIDTH, 8, generator=generator)
    covered, covered_on_select, told, told_on_select = 0, 0, 0.0, 0.0
    for repetition in range(REPETITIONS):
        buyer, seller = ({"weight": truth + torch.randn(WIDTH, 8, generator=generator)} for _ in range(2))
        inputs = torch.randn(2 * SAMPLES, 8, generator=generator)
        targets = inputs @ truth.T + 6 * torch.randn(2 * SAMPLES, WIDTH, generator=generator)
        data = Validation.split(inputs, targets, select_fraction=0.5, seed=repetition)
        plan = plan_merge(evaluator, data, None, buyer, seller, tradable=["weight"], seed=repetition)
        merged = merge(buyer, seller, plan.coefficients, ["weight"])
        true = sum(  # of standard normal inputs: the mean over outputs of the squared error of the weights
            sign * float((tensors["weight"] - truth).square().sum(1).mean())
            for sign, tensors in ((1, buyer), (-1, merged))
        )
        gain = gain_on(evaluator, data, buyer, merged, 0.95).gain
        before, after = (
            evaluator.measure(tensors, data.select_inputs, data.select_targets) for tensors in (buyer, merged)
        )
        dishonest = paired_gain(before.losses, after.losses, 0.95)
        covered += gain.low <= true <= gain.high
        covered_on_select += dishonest.low <= true <= dishonest.high
        told += (gain.mean - true) / REPETITIONS
        told_on_select += (dishonest.mean - true) / REPETITIONS
    assert covered / REPETITIONS >= 0.87  # nominal 0.95; two and a half standard errors below
    assert abs(told) < 0.25
    assert told_on_select > abs(told) + 0.1 and covered_on_select < covered
