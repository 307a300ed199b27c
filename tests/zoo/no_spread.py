"""Weights with ρ = -inf.

Their σ is 0, so they are numbers and no longer random: a way to prune, or to fix, single weights.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "How layers are kept"
INPUTS = ("x [B, 5]",)


def network():
    net = nn.Sequential(
        BayesianLinear(5, 9, posterior_rho_init=-3.0), nn.Tanh(), BayesianLinear(9, 1, posterior_rho_init=-3.0)
    )
    with torch.no_grad():
        small = net[0].weight_sampler.mu.abs() < 0.05
        net[0].weight_sampler.mu[small] = 0.0
        net[0].weight_sampler.rho[small] = float("-inf")
    return net


SHOWN = (network,)


def example():
    return torch.randn(7, 5)
