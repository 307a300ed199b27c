"""A bidirectional LSTM.

Two layers, one of which reads the window from its end: `torch.flip`.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 2]",)


class Bidirectional(nn.Module):
    def __init__(self):
        super().__init__()
        self.forwards = BayesianLSTM(2, 6, posterior_rho_init=-3.0)
        self.backwards = BayesianLSTM(2, 6, posterior_rho_init=-3.0)
        self.head = BayesianLinear(12, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        there, _ = self.forwards(x)
        back, _ = self.backwards(torch.flip(x, dims=[1]))
        return self.head(torch.cat([there[:, -1], back[:, -1]], dim=-1))


def network():
    return Bidirectional()


def example():
    return torch.randn(6, 11, 2)
