"""An output that is squeezed.

`squeeze()` takes every axis of length 1 away. Of a single row torch takes the axis of rows too; the file keeps that.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("x [B, 3]",)


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(3, 10, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(10, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x))).squeeze()


SHOWN = (Squeezed.forward,)


def network():
    return Squeezed()


def example():
    return torch.randn(10, 3)
