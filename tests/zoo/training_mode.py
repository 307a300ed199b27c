"""A network that is still in training mode.

Most networks are, after training. The file computes what the network does after `eval()`: dropout is off, and batch
norm takes the statistics that training kept. The network itself stays in the mode that it was in.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

from zoo import fitted

GROUP = "Tables"
INPUTS = ("x [B, 8]",)
NOTES = ("The network is in training mode; the artifact has the evaluation mode",)


@variational_estimator
class HousePrices(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(8, 24, posterior_rho_init=-4.0)
        self.bn1 = nn.BatchNorm1d(24)
        self.drop = nn.Dropout(0.3)
        self.fc2 = BayesianLinear(24, 1, posterior_rho_init=-4.0)

    def forward(self, x):
        return self.fc2(self.drop(torch.relu(self.bn1(self.fc1(x)))))


def network():
    return fitted(HousePrices(), example(), example()[:, :1], nn.MSELoss())


def example():
    return torch.randn(16, 8)
