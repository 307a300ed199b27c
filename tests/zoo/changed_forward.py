"""A layer with a forward of its own.

A subclass that computes something else is no longer BLiTZ's layer. The message has the lines that teach murho what it
computes from given weights; fill in the formula.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

from murho.export import register_layer

GROUP = "How layers are kept"
REFUSED = "register_layer"
INPUTS = ("x [B, 4]",)


class CosineLinear(BayesianLinear):
    def forward(self, x):
        w = self.weight_sampler.sample()
        return nn.functional.normalize(x, dim=-1) @ nn.functional.normalize(w, dim=-1).T


class Taught(CosineLinear):
    pass


def teach():
    @register_layer(Taught, tensors=["weight"])
    def cosine(layer, weights, x):
        rows = nn.functional.normalize(x, dim=-1)
        return rows @ nn.functional.normalize(weights["weight"], dim=-1).transpose(1, 2)


SHOWN = (CosineLinear,)
SHOWN_MENDED = (teach,)


def with_layer(layer):
    return nn.Sequential(BayesianLinear(4, 6, posterior_rho_init=-3.0), nn.ReLU(), layer)


def network():
    return with_layer(CosineLinear(6, 3, posterior_rho_init=-3.0))


def mended():
    teach()
    return with_layer(Taught(6, 3, posterior_rho_init=-3.0))


def example():
    return torch.randn(7, 4)
