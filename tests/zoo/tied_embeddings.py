"""One layer under two names.

The layer is kept twice in the network and is one layer in the file; each call draws anew.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "How layers are kept"
INPUTS = ("x [B, 6]",)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = BayesianLinear(6, 6, posterior_rho_init=-3.0)
        self.two = self.one
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.two(torch.tanh(self.one(x)))))


def network():
    return Shared()


def example():
    return torch.randn(7, 6)
