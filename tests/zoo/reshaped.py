"""A window reshaped to rows of a known size.

`reshape(-1, 3, 39)` holds for one length of the window alone.
"""

import torch
from blitz.modules import BayesianConv1d, BayesianLinear
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, 39, 3]",)
NOTES = ("Axis 1 of x (time) is fixed at 39",)


class Reshaped(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = BayesianConv1d(3, 5, 4, stride=2, posterior_rho_init=-3.0)
        self.head = BayesianLinear(5 * 18, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        x = x.reshape(-1, 3, 39)
        x = torch.relu(self.conv(x))
        return self.head(x.reshape(x.shape[0], -1))


SHOWN = (Reshaped.forward,)


def network():
    return Reshaped()


def example():
    return torch.randn(6, 39, 3)
