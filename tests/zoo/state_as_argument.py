"""A state that the caller hands on.

The forward takes a state, None at first, and returns the next one beside its answer. Without a state in the example the
file starts from zeros, and gives the answer alone; `streaming=True` makes a file that carries the states on.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 2]",)


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = BayesianLSTM(2, 7, posterior_rho_init=-3.0)
        self.head = BayesianLinear(7, 1, posterior_rho_init=-3.0)

    def forward(self, x, state=None):
        out, state = self.lstm(x, state)
        return self.head(out[:, -1]), state


SHOWN = (Stateful.forward,)


def network():
    return Stateful()


def example():
    return torch.randn(6, 12, 2)
