"""A convolutional network on images.

Bayesian convolutions, pooling, and `view` to rows.
"""

import torch
import torch.nn.functional as F
from blitz.modules import BayesianConv2d, BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

from zoo import fitted

GROUP = "Images"
OPTIONS = {"task": "classification"}
INPUTS = ("x [B, 1, 20, 20]",)


@variational_estimator
class BayesianCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = BayesianConv2d(1, 4, (5, 5))
        self.conv2 = BayesianConv2d(4, 6, (3, 3))
        self.fc1 = BayesianLinear(6 * 3 * 3, 16)
        self.fc2 = BayesianLinear(16, 10)

    def forward(self, x):
        out = F.max_pool2d(F.relu(self.conv1(x)), 2)
        out = F.max_pool2d(F.relu(self.conv2(out)), 2)
        out = out.view(out.size(0), -1)
        return self.fc2(F.relu(self.fc1(out)))


def network():
    return fitted(BayesianCNN(), example(), torch.arange(6), nn.CrossEntropyLoss())


def example():
    return torch.rand(6, 1, 20, 20)
