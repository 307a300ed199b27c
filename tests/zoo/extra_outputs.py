"""A forward that returns more than is wanted.

Attention weights beside the answer: `outputs=("price",)` names the first and leaves the rest.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Text"
OPTIONS = {"outputs": ("price",)}
INPUTS = ("x [B, T, 4]",)


class WithWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = BayesianLinear(4, 1, posterior_rho_init=-2.0)

    def forward(self, x):
        attended, weights = self.attention(x, x, x)
        return self.head(attended.mean(1)), weights, attended


SHOWN = (WithWeights.forward,)


def network():
    return WithWeights()


def example():
    return torch.randn(5, 8, 4)
