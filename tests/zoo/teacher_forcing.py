"""Teacher forcing in training.

A coin is thrown only `if self.training`, which a file never is.
"""

import random

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

GROUP = "What a forward may do"
INPUTS = ("x [B, T, 1]",)
NOTES = ("The network is in training mode; the artifact has the evaluation mode",)


class WithTeacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = BayesianLSTM(1, 6, posterior_rho_init=-3.0)
        self.decoder = BayesianLSTM(1, 6, posterior_rho_init=-3.0)
        self.out = BayesianLinear(6, 1, posterior_rho_init=-3.0)

    def forward(self, x, target=None):
        _, state = self.encoder(x)
        step, answers = x[:, -1:], []
        for day in range(3):
            out, state = self.decoder(step, state)
            step = self.out(out)
            answers.append(step[:, 0])
            if self.training and target is not None and random.random() < 0.5:
                step = target[:, day : day + 1]
        return torch.cat(answers, dim=1)


SHOWN = (WithTeacher.forward,)


def network():
    return WithTeacher()


def example():
    return torch.randn(6, 9, 1)
