"""A dict as the output.

Every entry is an output of the file, under its key.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("x [B, 6]",)


class TwoTargets(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 10), nn.ReLU())
        self.price = BayesianLinear(10, 1, posterior_rho_init=-3.0)
        self.demand = BayesianLinear(10, 4, posterior_rho_init=-3.0)

    def forward(self, x):
        h = self.trunk(x)
        return {"price": self.price(h), "demand": self.demand(h)}


def network():
    return TwoTargets()


def example():
    return torch.randn(8, 6)
