"""A plain PyTorch training loop that trades after every epoch: one line of it is the market's.

Start a market in another terminal with `p2pmarket testnet`; it prints the address and a data file for:

    python examples/train_and_trade.py --market digits --data DATA.npz --peers ADDRESS
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import nn

from p2pmarket import Agent
from p2pmarket.datasets import load_dataset
from p2pmarket.errors import MarketError
from p2pmarket.models import build_model

parser = argparse.ArgumentParser(description="Train on a data file, and trade after every epoch.")
parser.add_argument("--peers", nargs="+", required=True, help="address of any peer of the network")
parser.add_argument("--market", required=True, help="name of the market")
parser.add_argument("--data", required=True, help="file.npz with inputs and targets")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--state", default="~/.p2pmarket/example", help="folder for this agent's identity and journal")
given = parser.parse_args()


def train() -> None:
    """Trains one model, with a visit to the market after every epoch."""
    data = load_dataset(given.data, allow_import=False)

    with Agent.join(given.peers, market=given.market, state=given.state) as agent:
        # The market says which model it trades; one of your own will do if its tensors have the same names and shapes.
        model = build_model(agent.terms.model, agent.terms.arguments(agent.terms.tasks[0].name), allow_import=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        for epoch in range(1, given.epochs + 1):
            for batch in torch.randperm(len(data)).split(32):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(data.inputs[batch]), data.targets[batch])
                loss.backward()
                optimizer.step()
            print(f"epoch {epoch}: loss {loss.item():.4f}; {agent.trade(model)}", flush=True)


try:
    train()
except MarketError as error:
    sys.exit(str(error))
