"""A network that float32 itself blurs.

Large terms cancel, so float32 is some 1e-5 from float64, in BLiTZ as in the file. Equality is measured against float64,
with BLiTZ's own distance from it in mind.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "What a forward may do"
INPUTS = ("x [B, 6]",)


class Cancelling(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(6, 40, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(40, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(torch.sin(h + 100.0) - torch.sin(h + 100.01))


SHOWN = (Cancelling.forward,)


def network():
    return Cancelling()


def example():
    return torch.randn(9, 6)
