"""How a run's market comes to rest: what faults left open is taken up, without a new trade, before its ledger is read.

Knows: that an agent which neither buys nor sells still ends what it began. Refuses to know: who trained what, what the
ledger then says. What does not end all the same is told in words; nothing here fails by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import torch

from p2pmarket.experiments.worlds.contract import AgentPlan, Learner
from p2pmarket.ledger.trade import ENDS, STATES
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.node.strategy import Strategy
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.simulation.parties import Parties

REST_TURNS = 4
"""How often everybody looks after what is open, at most."""


async def come_to_rest(
    market: MarketInMemory,
    parties: Parties,
    agents: Sequence[AgentPlan],
    learners: Mapping[str, Learner],
    *,
    faulty: bool,
) -> list[str]:
    """Lets everybody take up what is open, without a new trade; what is open all the same, in words.

    Nothing is where nothing went wrong and every visit came to its end: nobody visits the market then.

    :param faulty: whether anything may have gone wrong that the ledger does not show
    """
    if not faulty and not await open_trades(market):
        return []
    for agent in agents:
        await market.crash(agent.name)
        await parties.start_agent(agent.name, Strategy(buy=False, sell=False))
    for _ in range(REST_TURNS):
        waiting = [one.name for one in agents if not await _take_up(parties, one, learners[one.name])]
        if not await open_trades(market) and not waiting:
            return []
        await asyncio.sleep((market.terms.bid_ms + market.terms.ask_ms) / 1000 + 1.0)
    return [f"trade {row.trade.hex()} is {row.state} and does not end" for row in await open_trades(market)]


async def _take_up(parties: Parties, agent: AgentPlan, learner: Learner) -> bool:
    """What it brings is nobody's, and nobody buys it: its own parameters may have diverged."""
    nothing = {name: torch.zeros_like(tensor) for name, tensor in learner.snapshot().items()}
    return await parties.take_up(agent.name, lambda: nothing, task=agent.task)


async def open_trades(market: MarketInMemory) -> list[TradeRow]:
    """The ledger's trades that have not ended."""
    states = [state for state in STATES if state not in ENDS]
    return await market.running.ledger.run(
        lambda ledger: [row for state in states for row in ledger.trades(state=state)]
    )
