"""torch's own LSTM below a Bayesian head.

The recurrent layer has ordinary weights, and only the head is drawn. Time comes first, as it does in torch.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 3]",)


class TorchLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 8, num_layers=2, dropout=0.1)
        self.head = BayesianLinear(8, 1, posterior_rho_init=-2.0)

    def forward(self, x):
        out, _ = self.lstm(x.permute(1, 0, 2))
        return self.head(out[-1])


def network():
    return TorchLSTM().eval()


def example():
    return torch.randn(6, 12, 3)
