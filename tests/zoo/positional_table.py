"""A positional table in a buffer.

Sines and cosines [1, longest, width], of which the forward takes as many as there are steps.
"""

import math

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Text"
INPUTS = ("x [B, T, 6]",)


class PositionalEncoding(nn.Module):
    def __init__(self, width, longest=100):
        super().__init__()
        table = torch.zeros(1, longest, width)
        position = torch.arange(longest).unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table[0, :, 0::2], table[0, :, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
        self.register_buffer("pe", table)

    def forward(self, x):
        return x + self.pe[:, : x.size(1)]


class WithPositions(nn.Module):
    def __init__(self):
        super().__init__()
        self.positions = PositionalEncoding(6)
        self.fc = BayesianLinear(6, 10, posterior_rho_init=-3.0)
        self.out = BayesianLinear(10, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        return self.out(torch.relu(self.fc(self.positions(x))).mean(dim=1))


SHOWN = (PositionalEncoding.forward,)


def network():
    return WithPositions()


def example():
    return torch.randn(5, 12, 6)
