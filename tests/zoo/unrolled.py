"""A recurrent network of one's own.

Linear layers called once a step in a Python loop, with a hidden state. Each call draws its weights anew, in BLiTZ too.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, 6, 2]",)
NOTES = ("Axis 1 of x (time) is fixed at 6",)


class OwnRNN(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.i2h = BayesianLinear(2 + hidden, hidden, posterior_rho_init=-3.0)
        self.out = BayesianLinear(hidden, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        h = torch.zeros(x.shape[0], self.hidden)
        for t in range(x.shape[1]):
            h = torch.tanh(self.i2h(torch.cat((x[:, t], h), 1)))
        return self.out(h)


SHOWN = (OwnRNN.forward,)


def network():
    return OwnRNN()


def example():
    return torch.randn(6, 6, 2)
