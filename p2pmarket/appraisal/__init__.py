"""What a purchase would gain: align, merge, choose the coefficient on SELECT, measure on REPORT."""

from p2pmarket.appraisal.appraise import Appraisal, align_pair, appraise
from p2pmarket.appraisal.evaluator import LOSSES, METRICS, Evaluator
from p2pmarket.appraisal.gain import Gain, paired_gain
from p2pmarket.appraisal.validation import Validation

__all__ = [
    "LOSSES",
    "METRICS",
    "Appraisal",
    "Evaluator",
    "Gain",
    "Validation",
    "align_pair",
    "appraise",
    "paired_gain",
]
