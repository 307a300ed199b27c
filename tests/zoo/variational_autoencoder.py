"""A variational autoencoder.

Its code is drawn with `torch.randn_like`, a second source of randomness that a file could not repeat. After training
the mean of the code is what is wanted.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "Tables"
REFUSED = "it draws random numbers beside BLiTZ's layers"
INPUTS = ("x [B, 12]",)


class VariationalAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = BayesianLinear(12, 8, posterior_rho_init=-3.0)
        self.mu, self.log_variance = nn.Linear(8, 2), nn.Linear(8, 2)
        self.decoder = BayesianLinear(2, 12, posterior_rho_init=-3.0)

    def code(self, mu, log_variance):
        return mu + torch.randn_like(mu) * torch.exp(0.5 * log_variance)

    def forward(self, x):
        h = torch.relu(self.encoder(x))
        return torch.sigmoid(self.decoder(self.code(self.mu(h), self.log_variance(h))))


class MeanOfTheCode(VariationalAutoencoder):
    def code(self, mu, log_variance):
        return mu


SHOWN = (VariationalAutoencoder.code,)
SHOWN_MENDED = (MeanOfTheCode.code,)


def network():
    return VariationalAutoencoder()


def mended():
    return MeanOfTheCode()


def example():
    return torch.rand(6, 12)
