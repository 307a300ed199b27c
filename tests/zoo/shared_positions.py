"""A positional table that all rows share, as an input.

The caller passes a table [T, F] beside the rows.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Text"
INPUTS = ("x [B, T, 4]", "positions [T, 4] for all rows")
NOTES = ("All rows share the input positions",)


class GivenPositions(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = BayesianLinear(4, 10, posterior_rho_init=-3.0)
        self.out = BayesianLinear(10, 1, posterior_rho_init=-3.0)

    def forward(self, x, positions):
        return self.out(torch.tanh(self.fc(x + positions.unsqueeze(0))).mean(dim=1))


SHOWN = (GivenPositions.forward,)


def network():
    return GivenPositions()


def example():
    return torch.randn(5, 8, 4), torch.linspace(-1, 1, 32).reshape(8, 4)
