"""A buyer's snapshot and a seller's side by side: read from their parcels, and their units matched.

Knows: that a buyer is taken with the purchases that a further one is upon, and how long a matching may take. Refuses to
know: which merge of the two is best and what it is worth (appraisal), who asks. A parcel that cannot be read raises the
`MarketError` that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from p2pmarket.alignment import match_activations
from p2pmarket.appraisal.appraise import align_pair
from p2pmarket.appraisal.plan import Progress
from p2pmarket.broker_node.benches import TaskBench
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.merges import Alignments
from p2pmarket.parameters.packing import unpack
from p2pmarket.parcel import Schema

ACTIVATION_SAMPLES = 1024
"""Of SELECT, at most, that units are matched on."""
MATCHING_SECONDS = 60.0
"""For one matching of two snapshots by their weights; the best found until then is used, so that no pair holds up
a market. Equal inputs give equal results only where this time is not reached."""


class Pair(NamedTuple):
    """A buyer's tensors and a seller's, and what a merge of them is found with."""

    bench: TaskBench
    ours: Mapping[str, Tensor]
    theirs: Mapping[str, Tensor]
    tradable: Sequence[str]
    """Names of what is for sale."""
    worker: int


def read_pair(
    schemas: Mapping[str, Schema],
    buyer: Submission,
    seller: Submission,
    buyer_path: Path,
    seller_path: Path,
    upon: Sequence[Path],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The buyer's tensors, and the seller's.

    :param schemas: by task
    :param upon: packed deliveries: the buyer's tensors are as they would be after these purchases
    :raises MarketError: a parcel that cannot be read
    """
    schema = schemas[buyer.task]
    ours = unpack(buyer_path, schema=schema)
    for path in upon:
        ours.update(unpack(path, schema=schema, partial=True))
    return ours, unpack(seller_path, schema=schemas[seller.task])


def align_whole(pair: Pair, *, activations: bool, seed: int, matching_seconds: float, progress: Progress) -> Alignments:
    """What brings the seller's units to the buyer's, whatever is for sale.

    The pair itself is matched: what a shortlist is ranked with goes by way of a third model, and loses gain.

    :param activations: whether units are also matched by what they answer
    :param matching_seconds: when they are spent the best found so far is used
    :param progress: may raise to stop
    """
    bench, evaluator = pair.bench, pair.bench.evaluators[pair.worker]
    weights = align_pair(
        bench.spec,
        pair.ours,
        pair.theirs,
        seed=seed,
        device=evaluator.device,
        time_budget_seconds=matching_seconds,
        progress=lambda *visits: progress("aligning", 0.0),
    )
    if bench.spec is None or not activations:
        return Alignments(weights, None)
    inputs = bench.validation.select_inputs[:ACTIVATION_SAMPLES].to(evaluator.device)
    own, other = evaluator.place(pair.ours), evaluator.place(pair.theirs)
    return Alignments(weights, match_activations(evaluator.module, bench.spec, own, other, (inputs,), start=weights))
