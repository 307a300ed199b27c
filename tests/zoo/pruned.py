"""Pruned layers.

`weight_mu` and `weight_rho` are replaced by their pruned forms, and the sampler keeps the ones from before, which are
what the network draws from. The file says what the network says, and a warning says which that is.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "How layers are kept"
INPUTS = ("x [B, 6]",)
NOTES = ("weight_mu differs from weight_sampler.mu",)


class Prunable(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(6, 10, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(10, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def prune(layer, share):
    sigma = torch.log1p(torch.exp(layer.weight_rho))
    signal = (layer.weight_mu.abs() / sigma).flatten()
    keep = layer.weight_mu.abs() / sigma > signal.kthvalue(int(share * len(signal))).values
    layer.weight_mu = nn.Parameter(layer.weight_mu.detach() * keep)
    layer.weight_rho = nn.Parameter(layer.weight_rho.detach().masked_fill(~keep, -30.0))


SHOWN = (prune,)


def network():
    net = Prunable()
    prune(net.fc1, 0.5)
    return net


def example():
    return torch.randn(7, 6)
