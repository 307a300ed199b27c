"""A residual network on a table.

The skip connection goes around a Bayesian layer, so rows that carry the draws are added to rows that do not.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("x [B, 6]",)


class ResidualBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = BayesianLinear(width, 2 * width, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(2 * width, width, posterior_rho_init=-3.0)

    def forward(self, x):
        return x + self.fc2(torch.nn.functional.gelu(self.fc1(self.norm(x))))


class ResidualMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 12)
        self.blocks = nn.Sequential(*[ResidualBlock(12) for _ in range(3)])
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


def network():
    return ResidualMLP()


def example():
    return torch.randn(8, 6)
