"""A mask that all rows share, as an input.

A mask [T, T] has no row axis. It is an input that all rows share: a call gives it once.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Text"
INPUTS = ("x [B, T, 4]", "mask [T, T] for all rows")
NOTES = ("All rows share the input mask",)


class MaskedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = BayesianLinear(4, 18, posterior_rho_init=-3.0)
        self.out = BayesianLinear(6, 1, posterior_rho_init=-3.0)

    def forward(self, x, mask):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = q @ k.transpose(1, 2) / 6**0.5 + mask
        return self.out((torch.softmax(scores, dim=-1) @ v)[:, -1])


SHOWN = (MaskedAttention.forward,)


def network():
    return MaskedAttention()


def example():
    return torch.randn(5, 9, 4), torch.triu(torch.full((9, 9), -1e4), diagonal=1)
