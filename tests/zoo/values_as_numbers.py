"""A value taken out with item().

`x[0, 0].item()` becomes a constant of the file, that of the example. Tensors are calculated with as they are.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "What a forward may do"
REFUSED = ".max().item()"
INPUTS = ("x [B, 4]",)


class WithItem(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(4, 10, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(10, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        level = x[:, :1].abs().max().item()
        return self.fc2(torch.tanh(self.fc1(x / level))) * level


class WithTensor(WithItem):
    def forward(self, x):
        level = x[:, :1].abs() + 1.0
        return self.fc2(torch.tanh(self.fc1(x / level))) * level


SHOWN = (WithItem.forward,)
SHOWN_MENDED = (WithTensor.forward,)


def network():
    return WithItem()


def mended():
    return WithTensor()


def example():
    return torch.randn(9, 4)
