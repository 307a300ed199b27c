"""A pretrained network made Bayesian.

The pretrained part keeps its plain layers, one layer is frozen at its means, and the spread of the last comes from its
weights, by `MOPED_`, which moves the samplers' ρ alone: a note says that it is theirs that count.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

GROUP = "Training"
INPUTS = ("x [B, 6]",)
NOTES = ("weight_rho differs from weight_sampler.rho", "bias_rho differs from bias_sampler.rho")


@variational_estimator
class FineTuned(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.neck = BayesianLinear(16, 8)
        self.head = BayesianLinear(8, 2)
        for parameter in self.backbone.parameters():
            parameter.requires_grad = False

    def forward(self, x):
        return self.head(torch.relu(self.neck(self.backbone(x))))


def network():
    net = FineTuned().eval()
    net.MOPED_(0.2)
    net.neck.freeze = True
    return net


def example():
    return torch.randn(8, 6)
