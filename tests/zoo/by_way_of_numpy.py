"""A forward that goes through numpy.

What numpy computes is a number to the file. torch has the same functions.
"""

import numpy as np
import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "What a forward may do"
REFUSED = {"TorchScript": "numpy"}
INPUTS = ("x [B, 4]",)


class ThroughNumpy(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(4, 10, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(10, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        x = torch.from_numpy(np.sign(x.numpy()) * np.log1p(np.abs(x.numpy())))
        return self.fc2(torch.relu(self.fc1(x)))


class ThroughTorch(ThroughNumpy):
    def forward(self, x):
        x = torch.sign(x) * torch.log1p(torch.abs(x))
        return self.fc2(torch.relu(self.fc1(x)))


SHOWN = (ThroughNumpy.forward,)
SHOWN_MENDED = (ThroughTorch.forward,)


def network():
    return ThroughNumpy()


def mended():
    return ThroughTorch()


def example():
    return torch.randn(9, 4)
