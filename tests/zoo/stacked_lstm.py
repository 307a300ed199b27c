"""Stacked LSTMs.

Several recurrent layers, dropout between them, kept in a ModuleList.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 3]",)


class StackedLSTM(nn.Module):
    def __init__(self, features, hidden, layers):
        super().__init__()
        self.lstms = nn.ModuleList(
            [BayesianLSTM(features if k == 0 else hidden, hidden, posterior_rho_init=-3.0) for k in range(layers)]
        )
        self.dropout = nn.Dropout(0.2)
        self.fc = BayesianLinear(hidden, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        for lstm in self.lstms:
            x, _ = lstm(x)
            x = self.dropout(x)
        return self.fc(x[:, -1])


def network():
    return StackedLSTM(3, 8, 3).eval()


def example():
    return torch.randn(6, 14, 3)
