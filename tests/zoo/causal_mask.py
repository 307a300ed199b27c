"""A causal mask made in the forward.

`torch.tril(torch.ones(t, t))` takes its size from the input, so the length stays free.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Text"
INPUTS = ("x [B, T, 4]",)


class CausalAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = BayesianLinear(4, 18, posterior_rho_init=-3.0)
        self.out = BayesianLinear(6, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        t = x.size(1)
        mask = torch.tril(torch.ones(t, t, device=x.device))
        scores = (q @ k.transpose(1, 2) / 6**0.5).masked_fill(mask == 0, float("-inf"))
        return self.out(torch.softmax(scores, dim=-1) @ v)


SHOWN = (CausalAttention.forward,)


def network():
    return CausalAttention()


def example():
    return torch.randn(5, 9, 4)
