"""A recommender of users and items.

Ids come as [B], one number a row. The two embeddings are multiplied and summed.
"""

import torch
from blitz.modules import BayesianEmbedding
from torch import nn

GROUP = "Tables"
INPUTS = ("user [B]", "item [B]")


class MatrixFactorization(nn.Module):
    def __init__(self, users, items, width=6):
        super().__init__()
        self.user_factors = BayesianEmbedding(users, width, posterior_rho_init=-2.0)
        self.item_factors = BayesianEmbedding(items, width, posterior_rho_init=-2.0)
        self.user_bias = BayesianEmbedding(users, 1, posterior_rho_init=-2.0)

    def forward(self, user, item):
        score = (self.user_factors(user) * self.item_factors(item)).sum(1)
        return score + self.user_bias(user).squeeze(1)


SHOWN = (MatrixFactorization.forward,)


def network():
    return MatrixFactorization(40, 25)


def example():
    return torch.randint(0, 40, (16,)), torch.randint(0, 25, (16,))
