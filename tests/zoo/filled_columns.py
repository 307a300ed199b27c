"""An answer that is filled column by column.

`zeros(rows, days)` is made first, and each day is written into its column.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, 10, 2]",)
NOTES = ("Axis 1 of x (time) is fixed at 10, the example's length",)


class FilledColumns(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = BayesianLSTM(2, 8, posterior_rho_init=-3.0)
        self.head = BayesianLinear(8, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        rows, days, _ = x.shape
        out, _ = self.lstm(x)
        predictions = torch.zeros(rows, days)
        for day in range(days):
            predictions[:, day] = self.head(out[:, day]).squeeze(-1)
        return predictions


SHOWN = (FilledColumns.forward,)


def network():
    return FilledColumns()


def example():
    return torch.randn(6, 10, 2)
