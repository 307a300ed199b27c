"""A mixture of normals as the output.

The network returns weights, means and scales, three tensors. Name them, so that the file knows which are wanted.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
REFUSED = "The network returns 3 values. Name those to export, in order: outputs=('first', …)."
MENDED = {"outputs": ("pi", "mu", "sigma")}
INPUTS = ("x [B, 5]",)


class MixtureDensityNetwork(nn.Module):
    def __init__(self, features, components):
        super().__init__()
        self.hidden = BayesianLinear(features, 20, posterior_rho_init=-3.0)
        self.pi = BayesianLinear(20, components, posterior_rho_init=-3.0)
        self.mu = BayesianLinear(20, components, posterior_rho_init=-3.0)
        self.sigma = BayesianLinear(20, components, posterior_rho_init=-3.0)

    def forward(self, x):
        h = torch.tanh(self.hidden(x))
        return torch.softmax(self.pi(h), dim=-1), self.mu(h), nn.functional.elu(self.sigma(h)) + 1 + 1e-6


SHOWN = (MixtureDensityNetwork.forward,)


def network():
    return MixtureDensityNetwork(5, 4)


def example():
    return torch.randn(9, 5)
