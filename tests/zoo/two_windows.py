"""A window and a row of other features.

One input is a sequence, the other a row: an LSTM reads the first, and the last step joins the second.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("window [B, T, 2]", "static [B, 4]")


class WindowAndStatic(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = BayesianLSTM(2, 6, posterior_rho_init=-3.0)
        self.head = BayesianLinear(10, 1, posterior_rho_init=-3.0)

    def forward(self, window, static):
        out, _ = self.lstm(window)
        return self.head(torch.cat([out[:, -1], static], dim=1))


def network():
    return WindowAndStatic()


def example():
    return {"window": torch.randn(6, 9, 2), "static": torch.randn(6, 4)}
