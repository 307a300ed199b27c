"""Images flattened by `view(-1, 28 * 28)`.

The number of rows is left to `view`, and stays free.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Images"
OPTIONS = {"task": "classification"}
INPUTS = ("x [B, 1, 28, 28]",)


class MNISTNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(28 * 28, 12, posterior_rho_init=-5.0)
        self.fc2 = BayesianLinear(12, 10, posterior_rho_init=-5.0)

    def forward(self, x):
        x = x.view(-1, 28 * 28)
        x = torch.relu(self.fc1(x))
        return torch.log_softmax(self.fc2(x), dim=1)


SHOWN = (MNISTNet.forward,)


def network():
    return MNISTNet()


def example():
    return torch.rand(5, 1, 28, 28)
