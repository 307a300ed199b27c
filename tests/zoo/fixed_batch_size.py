"""A batch size that was typed in.

`torch.zeros(self.batch_size, hidden)` answers that many rows at a time and no others. Take the number from the input.
"""

import torch
from blitz.modules import BayesianLSTM
from torch import nn

GROUP = "Time series"
REFUSED = "batch"
INPUTS = ("x [B, T, 2]",)


class FixedBatch(nn.Module):
    def __init__(self, hidden=8, batch_size=16):
        super().__init__()
        self.hidden_size, self.batch_size = hidden, batch_size
        self.lstm = BayesianLSTM(2, hidden, posterior_rho_init=-3.0)
        self.fc = nn.Linear(hidden, 1)

    def forward(self, x):
        h_0 = torch.zeros(self.batch_size, self.hidden_size)
        c_0 = torch.zeros(self.batch_size, self.hidden_size)
        out, _ = self.lstm(x, (h_0, c_0))
        return self.fc(out[:, -1])


class AnyBatch(FixedBatch):
    def forward(self, x):
        h_0 = torch.zeros(x.size(0), self.hidden_size)
        c_0 = torch.zeros(x.size(0), self.hidden_size)
        out, _ = self.lstm(x, (h_0, c_0))
        return self.fc(out[:, -1])


SHOWN = (FixedBatch.forward,)
SHOWN_MENDED = (AnyBatch.forward,)


def network():
    return FixedBatch()


def mended():
    return AnyBatch()


def example():
    return torch.randn(16, 10, 2)
