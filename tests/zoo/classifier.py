"""A classifier that returns logits.

Pass `task="classification"` for class probabilities; without it the answer and its interval are those of the logits.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

from zoo import fitted

GROUP = "Tables"
OPTIONS = {"task": "classification"}
INPUTS = ("x [B, 4]",)


@variational_estimator
class BayesianClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            BayesianLinear(4, 16, prior_sigma_1=1.0, posterior_rho_init=-3.0),
            nn.ReLU(),
            BayesianLinear(16, 3, prior_sigma_1=1.0, posterior_rho_init=-3.0),
        )

    def forward(self, x):
        return self.layers(x)


def network():
    return fitted(BayesianClassifier(), example(), torch.arange(12) % 3, nn.CrossEntropyLoss())


def example():
    return torch.randn(12, 4)
