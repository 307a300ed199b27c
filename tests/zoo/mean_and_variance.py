"""A mean and a variance.

Two heads, returned as a pair; `outputs=("mu", "log_variance")` gives both. A pair without names is taken for an
output and a state, of which the first is exported.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
OPTIONS = {"outputs": ("mu", "log_variance")}
INPUTS = ("x [B, 3]",)


class Heteroscedastic(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Sequential(BayesianLinear(3, 16, posterior_rho_init=-3.0), nn.SiLU())
        self.mean = BayesianLinear(16, 1, posterior_rho_init=-3.0)
        self.log_variance = BayesianLinear(16, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        h = self.shared(x)
        return self.mean(h), self.log_variance(h).clamp(-10, 10)


def network():
    return Heteroscedastic()


def example():
    return torch.randn(7, 3)
