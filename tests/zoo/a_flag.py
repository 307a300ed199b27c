"""A flag that is left at its default.

Arguments of the forward with a default need no example.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("x [B, 5]",)


class WithFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = BayesianLinear(5, 12, posterior_rho_init=-3.0)
        self.head = BayesianLinear(12, 1, posterior_rho_init=-3.0)

    def forward(self, x, return_features=False, scale=None):
        features = torch.relu(self.body(x))
        y = self.head(features)
        if scale is not None:
            y = y * scale
        return (y, features) if return_features else y


def network():
    return WithFeatures()


def example():
    return torch.randn(8, 5)
