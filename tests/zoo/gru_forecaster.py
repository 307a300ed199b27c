"""A GRU that forecasts several days at once.

A head with one output a day.
"""

import torch
from blitz.modules import BayesianGRU, BayesianLinear
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 2]",)


class GRUForecaster(nn.Module):
    def __init__(self, horizon):
        super().__init__()
        self.gru = BayesianGRU(2, 9, posterior_rho_init=-3.0)
        self.head = BayesianLinear(9, horizon, posterior_rho_init=-3.0)

    def forward(self, x):
        out, hidden = self.gru(x)
        return self.head(hidden)


def network():
    return GRUForecaster(7)


def example():
    return torch.randn(6, 18, 2)
