"""Attention over the steps.

Each step of an LSTM gets a weight, by a softmax over time, and the weighted sum is the answer's ground.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 3]",)


class AttentionPooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = BayesianLSTM(3, 8, posterior_rho_init=-3.0)
        self.score = BayesianLinear(8, 1, posterior_rho_init=-3.0)
        self.head = BayesianLinear(8, 2, posterior_rho_init=-3.0)

    def forward(self, x):
        out, _ = self.lstm(x)
        weights = torch.softmax(self.score(out), dim=1)
        return self.head((weights * out).sum(dim=1))


def network():
    return AttentionPooling()


def example():
    return torch.randn(6, 9, 3)
