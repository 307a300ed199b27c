"""torch's own transformer encoder.

`nn.TransformerEncoder` below a Bayesian head.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Text"
INPUTS = ("x [B, T, 4]",)


class TransformerRegressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 8)
        layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.head = BayesianLinear(8, 1, posterior_rho_init=-2.0)

    def forward(self, x):
        return self.head(self.encoder(self.project(x)).mean(dim=1))


def network():
    return TransformerRegressor().eval()


def example():
    return torch.randn(5, 10, 4)
