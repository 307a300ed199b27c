"""A value of a week ago.

`x[:, -7]` needs windows of seven steps or more, so their length is fixed to that of the example.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, 21, 1]",)
NOTES = ("Axis 1 of x (time) is fixed at 21, the example's length",)


class LastWeek(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = BayesianLSTM(1, 8, posterior_rho_init=-3.0)
        self.head = BayesianLinear(9, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.head(torch.cat([out[:, -1], x[:, -7]], dim=1))


SHOWN = (LastWeek.forward,)


def network():
    return LastWeek()


def example():
    return torch.randn(6, 21, 1)
