"""A DQN agent with dueling heads.

The value of the state and the advantage of each action are joined in the forward; the answer is a Q value per action.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

GROUP = "Agents"
INPUTS = ("x [B, 4]",)


@variational_estimator
class DuelingDQN(nn.Module):
    def __init__(self, state_size, action_size):
        super().__init__()
        self.fc1 = nn.Linear(state_size, 24)
        self.fc2 = BayesianLinear(24, 24, posterior_rho_init=-3.0)
        self.value = BayesianLinear(24, 1, posterior_rho_init=-3.0)
        self.advantage = BayesianLinear(24, action_size, posterior_rho_init=-3.0)

    def forward(self, state):
        x = torch.relu(self.fc2(torch.relu(self.fc1(state))))
        advantage = self.advantage(x)
        return self.value(x) + advantage - advantage.mean(dim=1, keepdim=True)


def network():
    return DuelingDQN(4, 2)


def example():
    return torch.randn(8, 4)
