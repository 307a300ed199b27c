"""An agent that returns a distribution object.

A file gives numbers: return the logits, and make the distribution of them outside.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn
from torch.distributions import Categorical

GROUP = "Agents"
REFUSED = "is Categorical"
INPUTS = ("x [B, 6]",)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), BayesianLinear(16, 3, posterior_rho_init=-3.0))

    def forward(self, observation):
        return Categorical(logits=self.body(observation))


class PolicyLogits(Policy):
    def forward(self, observation):
        return self.body(observation)


SHOWN = (Policy.forward,)
SHOWN_MENDED = (PolicyLogits.forward,)


def network():
    return Policy()


def mended():
    return PolicyLogits()


def example():
    return torch.randn(8, 6)
