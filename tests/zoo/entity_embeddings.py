"""Embeddings of categorical columns.

Whole numbers [B, C], one column for each category, each with an embedding of its own, beside columns of floats. A value
beyond a column's categories is refused when the file is asked.
"""

import torch
from blitz.modules import BayesianEmbedding, BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("categories [B, 3]", "numbers [B, 4]")


class EntityEmbeddings(nn.Module):
    def __init__(self, cardinalities, n_numbers):
        super().__init__()
        self.embeddings = nn.ModuleList([BayesianEmbedding(c, 4, posterior_rho_init=-2.0) for c in cardinalities])
        self.norm = nn.BatchNorm1d(n_numbers)
        self.fc = BayesianLinear(4 * len(cardinalities) + n_numbers, 8, posterior_rho_init=-3.0)
        self.out = BayesianLinear(8, 1, posterior_rho_init=-3.0)

    def forward(self, categories, numbers):
        embedded = [emb(categories[:, i]) for i, emb in enumerate(self.embeddings)]
        x = torch.cat([*embedded, self.norm(numbers)], dim=1)
        return self.out(torch.relu(self.fc(x)))


SHOWN = (EntityEmbeddings.forward,)


def network():
    return EntityEmbeddings([7, 12, 3], 4).eval()


def example():
    categories = torch.stack([torch.arange(10) % 7, torch.arange(10), torch.arange(10) % 3], dim=1)
    return categories, torch.randn(10, 4)
