"""Missing values filled in.

The values, with 0 where they are missing, and a mask of 0 and 1 go in; the observed values come back as they were.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("x [B, 7]", "mask [B, 7]")


class Imputer(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.encoder = BayesianLinear(2 * features, 10, posterior_rho_init=-2.0)
        self.decoder = BayesianLinear(10, features, posterior_rho_init=-2.0)

    def forward(self, x, mask):
        filled = self.decoder(torch.relu(self.encoder(torch.cat([x * mask, mask], dim=1))))
        return mask * x + (1 - mask) * filled


def network():
    return Imputer(7)


def example():
    return torch.randn(12, 7), (torch.rand(12, 7) > 0.3).float()
