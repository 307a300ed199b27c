"""Everything said beforehand.

What an export finds out and notes can be said: lengths that are fixed, inputs that all rows share, arguments that are
constants. Then it has nothing to note.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Time series"
OPTIONS = {"fixed": {"x": 1}, "shared_inputs": ("weights",), "constants": {"squash": True}}
INPUTS = ("x [B, 12, 2]", "weights [2, 3] for all rows")


class Said(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = BayesianLinear(3, 1, posterior_rho_init=-3.0)

    def forward(self, x, weights, squash):
        lags = x[:, [-1, -7, -12]] @ weights
        y = self.fc(lags.mean(dim=1))
        return torch.tanh(y) if squash else y


def network():
    return Said()


def example():
    return {"x": torch.randn(6, 12, 2), "weights": torch.randn(2, 3)}
