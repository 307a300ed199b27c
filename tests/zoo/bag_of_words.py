"""A mean over embedded words.

`embedding(tokens).mean(1)`: the simplest network on text, at any length.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Text"
INPUTS = ("x [B, T]",)


class BagOfWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, 8, padding_idx=0)
        self.head = BayesianLinear(8, 1, posterior_rho_init=-2.0)

    def forward(self, tokens):
        return self.head(self.embedding(tokens).mean(dim=1))


def network():
    return BagOfWords()


def example():
    return torch.randint(0, 40, (6, 9))
