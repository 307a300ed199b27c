"""An nn.Sequential.

No class at all.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "How layers are kept"
INPUTS = ("x [B, 3]",)


def network():
    return nn.Sequential(
        BayesianLinear(3, 10, posterior_rho_init=-3.0), nn.Tanh(), BayesianLinear(10, 2, posterior_rho_init=-3.0)
    )


def example():
    return torch.randn(7, 3)
