"""An LSTM called step by step.

`chunk` cuts the window into its steps, and the states go from call to call.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, 5, 2]",)
NOTES = ("Axis 1 of x (time) is fixed at 5",)


class InALoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = BayesianLSTM(2, 6, posterior_rho_init=-3.0)
        self.linear = BayesianLinear(6, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        state, outputs = None, []
        for step in x.chunk(x.size(1), dim=1):
            out, state = self.lstm(step, state)
            outputs.append(self.linear(out[:, -1]))
        return torch.stack(outputs, 1).squeeze(2)


SHOWN = (InALoop.forward,)


def network():
    return InALoop()


def example():
    return torch.randn(6, 5, 2)
