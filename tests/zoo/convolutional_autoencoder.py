"""A convolutional autoencoder.

Strided convolutions down, `Upsample` and convolutions up, `reshape` and `Unflatten` around a narrow code.
"""

import torch
from blitz.modules import BayesianConv2d, BayesianLinear
from torch import nn

GROUP = "Images"
INPUTS = ("x [B, 1, 12, 12]",)


class ConvolutionalAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            BayesianConv2d(1, 4, (3, 3), stride=2, padding=1, posterior_rho_init=-4.0),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            BayesianLinear(4 * 6 * 6, 5, posterior_rho_init=-4.0),
        )
        self.decoder = nn.Sequential(
            BayesianLinear(5, 4 * 6 * 6, posterior_rho_init=-4.0),
            nn.Unflatten(1, (4, 6, 6)),
            nn.Upsample(scale_factor=2),
            BayesianConv2d(4, 1, (3, 3), padding=1, posterior_rho_init=-4.0),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.decoder(self.encoder(x))


def network():
    return ConvolutionalAutoencoder()


def example():
    return torch.rand(5, 1, 12, 12)
