"""A graph: its adjacency matrix in a buffer.

Where the graph never changes, it can be a part of the network.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Graphs"
INPUTS = ("x [B, 5, 3]",)
NOTES = ("Axis 1 of x (time) is fixed at 5",)


class GraphConvolution(nn.Module):
    def __init__(self, adjacency):
        super().__init__()
        a = adjacency + torch.eye(len(adjacency))
        self.register_buffer("a", a / a.sum(dim=1, keepdim=True))
        self.fc1 = BayesianLinear(3, 6, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(6, 2, posterior_rho_init=-3.0)

    def forward(self, x):
        h = torch.relu(self.a @ self.fc1(x))
        return self.a @ self.fc2(h)


SHOWN = (GraphConvolution.forward,)


def network():
    return GraphConvolution((torch.rand(5, 5) > 0.5).float())


def example():
    return torch.randn(6, 5, 3)
