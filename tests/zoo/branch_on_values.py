"""A branch on values.

`if x.max() > 3` goes one way for the whole batch, and a file has no such ways. `torch.where` chooses value by value.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "What a forward may do"
REFUSED = "torch.where"
INPUTS = ("x [B, 5]",)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(5, 12, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(12, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        y = self.fc2(torch.relu(self.fc1(x)))
        if y.mean() > 0:
            y = torch.log1p(y.abs())
        return y


class Choosing(Branching):
    def forward(self, x):
        y = self.fc2(torch.relu(self.fc1(x)))
        return torch.where(y > 0, torch.log1p(y.abs()), y)


SHOWN = (Branching.forward,)
SHOWN_MENDED = (Choosing.forward,)


def network():
    return Branching()


def mended():
    return Choosing()


def example():
    return torch.randn(9, 5)
