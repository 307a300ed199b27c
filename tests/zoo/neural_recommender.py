"""A recommender with hidden layers.

User and item ids as two columns of one tensor [B, 2], embedded, concatenated and fed to a network.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("x [B, 2]",)


class NeuralRecommender(nn.Module):
    def __init__(self, users, items):
        super().__init__()
        self.users, self.items = nn.Embedding(users, 8), nn.Embedding(items, 8)
        self.mlp = nn.Sequential(
            BayesianLinear(16, 8, posterior_rho_init=-3.0), nn.ReLU(), BayesianLinear(8, 1, posterior_rho_init=-3.0)
        )

    def forward(self, pairs):
        return self.mlp(torch.cat([self.users(pairs[:, 0]), self.items(pairs[:, 1])], dim=-1)) * 4 + 1


def network():
    return NeuralRecommender(30, 20)


def example():
    return torch.stack([torch.randint(0, 30, (14,)), torch.randint(0, 20, (14,))], dim=1)
