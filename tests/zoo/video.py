"""Three-dimensional convolutions.

Clips of frames, with Bayesian convolutions over time and space.
"""

import torch
from blitz.modules import BayesianConv3d, BayesianLinear
from torch import nn

GROUP = "Images"
INPUTS = ("x [B, 1, 6, 8, 8]",)


class Clips(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = BayesianConv3d(1, 3, (3, 3, 3), padding=1, posterior_rho_init=-4.0)
        self.pool = nn.MaxPool3d(2)
        self.head = BayesianLinear(3 * 3 * 4 * 4, 2, posterior_rho_init=-4.0)

    def forward(self, x):
        return self.head(self.pool(torch.relu(self.conv(x))).flatten(1))


def network():
    return Clips()


def example():
    return torch.rand(4, 1, 6, 8, 8)
