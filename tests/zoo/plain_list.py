"""Layers in a plain Python list.

torch does not see them: their parameters are not in `network.parameters()`, so they do not train either.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "How layers are kept"
REFUSED = "ModuleList"
INPUTS = ("x [B, 5]",)


class PlainList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [BayesianLinear(5, 8, posterior_rho_init=-3.0), BayesianLinear(8, 8, posterior_rho_init=-3.0)]
        self.head = BayesianLinear(8, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


class InModuleList(PlainList):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(self.layers)


SHOWN = (PlainList.__init__,)
SHOWN_MENDED = (InModuleList.__init__,)


def network():
    return PlainList()


def mended():
    return InModuleList()


def example():
    return torch.randn(7, 5)
