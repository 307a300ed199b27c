"""BLiTZ's Flipout.

It perturbs by the whole weight, and so spreads more than the posterior says. Export the same posterior without it.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.utils.layer_wrappers import Flipout
from torch import nn

GROUP = "How layers are kept"
REFUSED = 'Pass flipout="plain" to export the same posterior without Flipout.'
MENDED = {"flipout": "plain"}
INPUTS = ("x [B, 4]",)


def network():
    return nn.Sequential(
        Flipout(BayesianLinear)(4, 8, posterior_rho_init=-3.0), nn.ReLU(), BayesianLinear(8, 1, posterior_rho_init=-3.0)
    )


SHOWN = (network,)


def example():
    return torch.randn(7, 4)
