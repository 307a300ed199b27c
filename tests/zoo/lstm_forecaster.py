"""An LSTM and a linear layer.

BLiTZ's own example: the last step's output gives the next value. Windows of any length.
"""

import torch
from blitz.modules import BayesianLSTM
from blitz.utils import variational_estimator
from torch import nn

from zoo import fitted

GROUP = "Time series"
INPUTS = ("x [B, T, 1]",)


@variational_estimator
class NN(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm_1 = BayesianLSTM(1, 10, prior_sigma_1=1, prior_pi=1, posterior_rho_init=-3.0)
        self.linear = nn.Linear(10, 1)

    def forward(self, x):
        x_, _ = self.lstm_1(x)
        # gathering only the latent end-of-sequence for the linear layer
        x_ = x_[:, -1, :]
        return self.linear(x_)


SHOWN = (NN.forward,)


def network():
    return fitted(NN(), example(), example()[:, -1], nn.MSELoss())


def example():
    return torch.randn(8, 21, 1)
