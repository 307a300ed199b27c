"""Two inputs, one encoder.

A siamese network: the encoder is called twice, and draws its weights at each call, as in BLiTZ.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("left [B, 6]", "right [B, 6]")


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            BayesianLinear(6, 12, posterior_rho_init=-3.0), nn.ReLU(), BayesianLinear(12, 4, posterior_rho_init=-3.0)
        )
        self.out = nn.Linear(4, 1)

    def forward(self, left, right):
        return self.out(torch.abs(self.encoder(left) - self.encoder(right)))


def network():
    return Siamese()


def example():
    return torch.randn(8, 6), torch.randn(8, 6)
