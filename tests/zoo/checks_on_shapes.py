"""Checks and branches on shapes.

`assert x.dim() == 3` and `if x.size(-1) == 1` are decided by the example, since those sizes are the same at every call.
"""

import torch
from blitz.modules import BayesianGRU, BayesianLinear
from torch import nn

GROUP = "What a forward may do"
INPUTS = ("x [B, T, 1]",)


class Checking(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = BayesianGRU(1, 6, posterior_rho_init=-3.0)
        self.head = BayesianLinear(6, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        assert x.dim() == 3, f"expected [rows, steps, features], got {x.shape}"
        y = self.head(self.gru(x)[1])
        if x.size(-1) == 1:
            y = y + x[:, -1]
        return y


SHOWN = (Checking.forward,)


def network():
    return Checking()


def example():
    return torch.randn(6, 9, 1)
