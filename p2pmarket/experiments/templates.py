"""Scenarios to begin with: whole files with a comment on every line that one may want to change."""

from __future__ import annotations

_HEAD = """\
# A scenario of p2pmarket: who trades what with whom, for how long. docs/simulation.md explains every key.
#   p2pmarket simulate THIS.toml --check        what it would run
#   p2pmarket simulate THIS.toml                run it; the same command goes on after an interruption
[scenario]
name = "{name}"
about = "one line about it, for plots and reports"
method = "market"            # {methods}
protocol = "honest"          # honest: the broker's data are its own; paper: it measures on the test data
rounds = {rounds}                  # of training, each followed by a visit to the market
trade_from = 1               # the first round after which agents trade
trade_every = 1
measure_every = 1            # rounds between two looks at the test data
round_seconds = 10.0         # virtual, between the beginnings of two rounds
seeds = 5                    # how many, or a list of them
"""

_TAIL = """
[terms.pricing]              # of the market, as in a broker's terms; also market, trade, appraisal, limits
rule = "midpoint"            # posted: the seller's ask; midpoint: between ask and bid
opening_credit = "100"       # credits of every agent at the beginning
fee_percent = "0"

# [faults]                   # what goes wrong; without this section nothing does
# delay_seconds = 0.1        # of a message, at most
# lost = 0.001               # part of the messages that never arrive
# crash = 0.001              # chance of each step of a process to be its last; it is started again

[sweep]                      # every combination of these values is run, each with every seed
scenario.method = ["market", "alone"]
"""

TEMPLATES = {
    "regression": _HEAD.replace("{methods}", "market, fedavg, alone").replace("{rounds}", "30")
    + """
[regression]                 # agents fit linear models by gradient descent: cheap
dimension = 32               # parameters
rate = 0.05                  # step size
steps = 5                    # gradient steps in a round
broker_samples = 2000        # that the broker measures on
# tasks = { linear = 0.0, other = 2.0 }   # distance of each task's true parameters from what they share

[[agent]]
name = "few"
count = 1                    # so many agents of this kind
samples = 40                 # that it learns from
noise = 0.1                  # variance of its labels' noise
strategy = "default"         # default, collaborative, competitive, budgeted, or your own: "module:Class"
knobs = { credits_per_gain = 10 }         # of the strategy, as the flags of `p2pmarket node`

[[agent]]
name = "noisy"
samples = 80
noise = 2.0
"""
    + _TAIL,
    "images": _HEAD.replace("{methods}", "market, paper, unaligned, fedavg, alone").replace("{rounds}", "20")
    + """
[images]                     # agents train networks on images
data = "digits"              # digits come with scikit-learn; mnist, cifar10, tinyimagenet are found by --data
model = "mlp"
arguments = { hidden = [64, 64] }
learning_rate = 0.1
batch_size = 32
broker_images = 300          # held out of the training images for the broker
test_images = 0              # 0: all

[[agent]]
name = "A"
scarce = "first-half"        # classes that it is short of: a list of them, first-half or second-half
keep = 0.1                   # part of their images that it has

[[agent]]
name = "B"
scarce = "second-half"
keep = 0.1
"""
    + _TAIL,
}
"""By the section that says what agents learn."""


def template(kind: str, name: str) -> str:
    """The text of a new scenario's file."""
    return TEMPLATES[kind].replace("{name}", name)
