"""A network inside nn.DataParallel.

What was trained on several devices is exported as it is, wrapper and all.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Training"
INPUTS = ("x [B, 4]",)


def network():
    net = nn.Sequential(
        BayesianLinear(4, 8, posterior_rho_init=-3.0), nn.ReLU(), BayesianLinear(8, 1, posterior_rho_init=-3.0)
    )
    return nn.DataParallel(net)


def example():
    return torch.randn(8, 4)
