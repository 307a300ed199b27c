"""A federated average.

Each client trains a copy, the server averages the state dicts, μ and ρ alike, and loads the average.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

from zoo import fitted

GROUP = "Training"
INPUTS = ("x [B, 6]",)


@variational_estimator
class Client(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(6, 12, posterior_rho_init=-4.0)
        self.fc2 = BayesianLinear(12, 2, posterior_rho_init=-4.0)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def network():
    states = [fitted(Client(), example(), example()[:, :2], nn.MSELoss(), steps=2).state_dict() for _ in range(3)]
    server = Client()
    server.load_state_dict({key: torch.stack([state[key] for state in states]).mean(dim=0) for key in states[0]})
    return server


def example():
    return torch.randn(8, 6)
