"""Days ahead, filled column by column.

The number of days ahead is the network's own, so the window's length stays free.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 1]",)


class DaysAhead(nn.Module):
    def __init__(self, days=5):
        super().__init__()
        self.days = days
        self.lstm = BayesianLSTM(1, 8, posterior_rho_init=-3.0)
        self.heads = nn.ModuleList([BayesianLinear(8, 1, posterior_rho_init=-3.0) for _ in range(days)])

    def forward(self, x):
        out, _ = self.lstm(x)
        last = out[:, -1]
        predictions = torch.zeros(last.size(0), self.days, device=x.device)
        for day, head in enumerate(self.heads):
            predictions[:, day] = head(last)[:, 0]
        return predictions


SHOWN = (DaysAhead.forward,)


def network():
    return DaysAhead()


def example():
    return torch.randn(6, 9, 1)
