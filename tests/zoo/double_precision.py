"""A network in float64.

The file computes in float32, and is compared with BLiTZ's own float64.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Training"
INPUTS = ("x [B, 4]",)


class Precise(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(4, 10, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(10, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def network():
    return Precise().double()


def example():
    return torch.randn(8, 4, dtype=torch.float64)
