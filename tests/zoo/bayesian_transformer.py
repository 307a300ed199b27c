"""A transformer with Bayesian projections.

Queries, keys and values from BayesianLinear layers, heads made by `view` and `transpose`.
"""

import math

import torch
from blitz.modules import BayesianEmbedding, BayesianLinear
from torch import nn

GROUP = "Text"
INPUTS = ("x [B, T]",)


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.q = BayesianLinear(width, width, posterior_rho_init=-3.0)
        self.k = BayesianLinear(width, width, posterior_rho_init=-3.0)
        self.v = BayesianLinear(width, width, posterior_rho_init=-3.0)
        self.out = nn.Linear(width, width)

    def split(self, x):
        b, t, _ = x.size()
        return x.view(b, t, self.heads, self.size).transpose(1, 2)

    def forward(self, x):
        b, t, width = x.size()
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(self.size), dim=-1)
        return self.out((weights @ v).transpose(1, 2).contiguous().view(b, t, width))


class BayesianTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = BayesianEmbedding(30, 8, posterior_rho_init=-3.0)
        self.attention = SelfAttention(8, 2)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.ff = nn.Sequential(BayesianLinear(8, 16, posterior_rho_init=-3.0), nn.GELU(), nn.Linear(16, 8))
        self.head = BayesianLinear(8, 2, posterior_rho_init=-3.0)

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = self.norm1(x + self.attention(x))
        x = self.norm2(x + self.ff(x))
        return self.head(x[:, 0])


SHOWN = (SelfAttention.forward,)


def network():
    return BayesianTransformer()


def example():
    return torch.randint(0, 30, (5, 9))
