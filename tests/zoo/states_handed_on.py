"""States handed from one layer to the next.

An encoder reads the window; its states start a decoder, which is called once for each day ahead and is fed its own
answer.
"""

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 1]",)


class Seq2Seq(nn.Module):
    def __init__(self, hidden, days):
        super().__init__()
        self.days = days
        self.encoder = BayesianLSTM(1, hidden, posterior_rho_init=-3.0)
        self.decoder = BayesianLSTM(1, hidden, posterior_rho_init=-3.0)
        self.out = BayesianLinear(hidden, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        _, (h, c) = self.encoder(x)
        step, predictions = x[:, -1:, :], []
        for _ in range(self.days):
            out, (h, c) = self.decoder(step, (h, c))
            step = self.out(out)
            predictions.append(step)
        return torch.cat(predictions, dim=1).squeeze(-1)


SHOWN = (Seq2Seq.forward,)


def network():
    return Seq2Seq(8, 4)


def example():
    return torch.randn(6, 15, 1)
