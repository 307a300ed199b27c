"""A graph: one edge list for all rows.

Each row holds the nodes' features [N, F]; the edges [2, E], source and target of each, are the same for every row.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Graphs"
INPUTS = ("x [B, 6, 3]", "edge_index [2, T] for all rows")
NOTES = ("All rows share the input edge_index", "Axis 1 of x (time) is fixed at 6")


class GraphNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.message = BayesianLinear(3, 8, posterior_rho_init=-3.0)
        self.out = BayesianLinear(8, 1, posterior_rho_init=-3.0)

    def forward(self, x, edge_index):
        source, target = edge_index
        h = torch.relu(self.message(x))
        gathered = torch.zeros_like(h).index_add(1, target, h[:, source])
        return self.out(h + gathered).squeeze(-1)


SHOWN = (GraphNetwork.forward,)


def network():
    return GraphNetwork()


def example():
    return torch.randn(5, 6, 3), torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 0, 3]])
