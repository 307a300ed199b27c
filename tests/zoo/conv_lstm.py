"""Convolutions into an LSTM.

Features are found by a Conv1d over the window, and read by an LSTM.
"""

import torch
from blitz.modules import BayesianConv1d, BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, 24, 2]",)
NOTES = ("Axis 1 of x (time) is fixed at 24, the example's length",)


class ConvLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = BayesianConv1d(2, 6, 3, padding=1, posterior_rho_init=-3.0)
        self.pool = nn.MaxPool1d(2)
        self.lstm = BayesianLSTM(6, 7, posterior_rho_init=-3.0)
        self.head = BayesianLinear(7, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv(x.transpose(1, 2))))
        out, _ = self.lstm(x.transpose(1, 2))
        return self.head(out[:, -1, :])


SHOWN = (ConvLSTM.forward,)


def network():
    return ConvLSTM()


def example():
    return torch.randn(6, 24, 2)
