"""First states made in the forward.

`torch.zeros(x.size(0), hidden)` takes the number of rows from the input, and so stays right at any number of them.
"""

import torch
from blitz.modules import BayesianLSTM
from torch import nn
from torch.autograd import Variable

GROUP = "Time series"
INPUTS = ("x [B, T, 2]",)


class WithFirstStates(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.hidden_size = hidden
        self.lstm = BayesianLSTM(2, hidden, posterior_rho_init=-3.0)
        self.fc = nn.Linear(hidden, 1)

    def forward(self, x):
        h_0 = Variable(torch.zeros(x.size(0), self.hidden_size)).to(x.device)
        c_0 = Variable(torch.zeros(x.size(0), self.hidden_size)).to(x.device)
        out, (h_n, c_n) = self.lstm(x, (h_0, c_0))
        return self.fc(h_n.view(-1, self.hidden_size))


SHOWN = (WithFirstStates.forward,)


def network():
    return WithFirstStates(8)


def example():
    return torch.randn(6, 10, 2)
