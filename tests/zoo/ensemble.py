"""An ensemble of Bayesian networks.

The members' answers are stacked and averaged inside the forward.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("x [B, 4]",)


class Ensemble(nn.Module):
    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(
            nn.Sequential(
                BayesianLinear(4, 8, posterior_rho_init=-3.0), nn.ReLU(), BayesianLinear(8, 1, posterior_rho_init=-3.0)
            )
            for _ in range(members)
        )

    def forward(self, x):
        return torch.stack([member(x) for member in self.members], dim=0).mean(dim=0)


def network():
    return Ensemble(3)


def example():
    return torch.randn(8, 4)
