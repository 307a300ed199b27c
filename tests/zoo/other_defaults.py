"""A subclass with other defaults.

Its forward is BLiTZ's, so it is that layer.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "How layers are kept"
INPUTS = ("x [B, T, 2]",)


class Linear(BayesianLinear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, prior_sigma_1=1.0, prior_pi=0.5, posterior_rho_init=-3.0)


class LSTM(BayesianLSTM):
    def __init__(self, inputs, hidden, **options):
        super().__init__(inputs, hidden, posterior_rho_init=-3.0, **options)


class OwnDefaults(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = LSTM(2, 6), Linear(6, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


SHOWN = (Linear,)


def network():
    return OwnDefaults()


def example():
    return torch.randn(6, 9, 2)
