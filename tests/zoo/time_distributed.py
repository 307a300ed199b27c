"""A dense layer at every step.

BayesianLinear reads the last axis, so [B, T, F] goes in and [B, T, 1] comes out.
"""

import torch
from blitz.modules import BayesianGRU, BayesianLinear
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 2]",)


class TimeDistributed(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = BayesianGRU(2, 6, posterior_rho_init=-3.0)
        self.norm = nn.LayerNorm(6)
        self.out = BayesianLinear(6, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        return self.out(self.norm(self.gru(x)[0]))


def network():
    return TimeDistributed()


def example():
    return torch.randn(6, 9, 2)
