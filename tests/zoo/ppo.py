"""A PPO agent: policy and value.

An actor and a critic on one body, returned as a pair. `outputs` gives names to both.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Agents"
OPTIONS = {"outputs": ("probabilities", "value")}
INPUTS = ("x [B, 6]",)


class ActorCritic(nn.Module):
    def __init__(self, observations, actions):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(observations, 16), nn.Tanh())
        self.actor = nn.Sequential(BayesianLinear(16, actions, posterior_rho_init=-3.0), nn.Softmax(dim=-1))
        self.critic = BayesianLinear(16, 1, posterior_rho_init=-3.0)

    def forward(self, observation):
        h = self.body(observation)
        return self.actor(h), self.critic(h)


def network():
    return ActorCritic(6, 3)


def example():
    return torch.randn(8, 6)
