"""A list over the steps, concatenated.

A loop over time that appends to a list. Its length is that of the example's window.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, 8, 3]",)
NOTES = ("Axis 1 of x (time) is fixed at 8",)


class StepByStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = BayesianLinear(3, 6, posterior_rho_init=-3.0)
        self.out = BayesianLinear(6, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        outputs = []
        for t in range(x.size(1)):
            outputs.append(self.out(torch.tanh(self.fc(x[:, t, :]))).unsqueeze(1))
        return torch.cat(outputs, dim=1)


SHOWN = (StepByStep.forward,)


def network():
    return StepByStep()


def example():
    return torch.randn(6, 8, 3)
