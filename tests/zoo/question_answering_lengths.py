"""Two sequences, each with a length of its own.

A context is longer than its question. Both are free, each for itself.
"""

import torch
from blitz.modules import BayesianEmbedding, BayesianGRU, BayesianLinear
from torch import nn

GROUP = "Text"
INPUTS = ("context [B, T]", "question [B, T]")


class LongAndShort(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = BayesianEmbedding(60, 6, posterior_rho_init=-3.0)
        self.context, self.question = BayesianGRU(6, 6), BayesianGRU(6, 6)
        self.out = BayesianLinear(12, 1, posterior_rho_init=-3.0)

    def forward(self, context, question):
        _, told = self.context(self.embedding(context))
        _, asked = self.question(self.embedding(question))
        return self.out(torch.cat([told, asked], dim=1))


def network():
    return LongAndShort()


def example():
    return torch.randint(0, 60, (5, 14)), torch.randint(0, 60, (5, 5))
