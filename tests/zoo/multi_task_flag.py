"""Several tasks, and a number that says which.

`task` is no tensor but a plain number: it becomes a constant of the file. One file for each task.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
INPUTS = ("x [B, 5]",)
NOTES = ("task = 1: constant in the file",)


class MultiTask(nn.Module):
    def __init__(self, tasks):
        super().__init__()
        self.trunk = BayesianLinear(5, 12, posterior_rho_init=-3.0)
        self.heads = nn.ModuleList([BayesianLinear(12, n, posterior_rho_init=-3.0) for n in tasks])

    def forward(self, x, task=0):
        return self.heads[task](torch.relu(self.trunk(x)))


SHOWN = (MultiTask.forward,)


def network():
    return MultiTask([1, 3])


def example():
    return torch.randn(8, 5), 1
