"""What a purchase would gain: align, merge, choose the coefficients on SELECT, measure on REPORT."""

from p2pmarket.appraisal.appraise import Appraisal, align_pair, appraise, gain_on
from p2pmarket.appraisal.evaluator import LOSSES, METRICS, Evaluator
from p2pmarket.appraisal.gain import ClassGain, Gain, TaskGain, paired_gain
from p2pmarket.appraisal.plan import MergePlan, plan_merge, reverse
from p2pmarket.appraisal.validation import Validation

__all__ = [
    "LOSSES",
    "METRICS",
    "Appraisal",
    "ClassGain",
    "Evaluator",
    "Gain",
    "MergePlan",
    "TaskGain",
    "Validation",
    "align_pair",
    "appraise",
    "gain_on",
    "paired_gain",
    "plan_merge",
    "reverse",
]
