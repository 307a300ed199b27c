"""Dropout that is always on.

`F.dropout(x, 0.5)` drops after `eval()` too, since its `training` is True unless it is told otherwise.
"""

import torch
import torch.nn.functional as F
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "What a forward may do"
REFUSED = "dropout that is always on"
INPUTS = ("x [B, 5]",)
NOTES = ("The network is in training mode; the artifact has the evaluation mode",)


class AlwaysDropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(5, 12, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(12, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        return self.fc2(F.dropout(torch.relu(self.fc1(x)), 0.5))


class DroppingInTraining(AlwaysDropping):
    def forward(self, x):
        return self.fc2(F.dropout(torch.relu(self.fc1(x)), 0.5, training=self.training))


SHOWN = (AlwaysDropping.forward,)
SHOWN_MENDED = (DroppingInTraining.forward,)


def network():
    return AlwaysDropping()


def mended():
    return DroppingInTraining()


def example():
    return torch.randn(7, 5)
