"""One number in, one number out.

x is [B], and the answer is [B]: the forward adds the axis and takes it away.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("x [B]",)


class Curve(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(1, 16, posterior_rho_init=-2.0)
        self.fc2 = BayesianLinear(16, 1, posterior_rho_init=-2.0)

    def forward(self, x):
        return self.fc2(torch.tanh(self.fc1(x.unsqueeze(-1)))).squeeze(-1)


SHOWN = (Curve.forward,)


def network():
    return Curve()


def example():
    return torch.linspace(-1, 1, 11)
