"""An autoencoder.

A narrow code in the middle, and as many values out as in: the spread of the reconstruction serves to find outliers.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

from zoo import fitted

GROUP = "Tables"
INPUTS = ("x [B, 20]",)


@variational_estimator
class BayesianAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(BayesianLinear(20, 10), nn.ELU(), BayesianLinear(10, 3))
        self.decoder = nn.Sequential(BayesianLinear(3, 10), nn.ELU(), BayesianLinear(10, 20))

    def forward(self, x):
        return self.decoder(self.encoder(x))


def network():
    return fitted(BayesianAutoencoder(), example(), example(), nn.MSELoss())


def example():
    return torch.randn(12, 20)
