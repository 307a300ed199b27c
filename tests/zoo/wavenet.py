"""A WaveNet.

Causal convolutions by `F.pad`, gates of tanh and sigmoid, residuals, and skip connections that are summed.
"""

import torch
import torch.nn.functional as F
from blitz.modules import BayesianConv1d
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, T, 1]",)


class WaveNet(nn.Module):
    def __init__(self, channels=5, layers=3):
        super().__init__()
        self.start = nn.Conv1d(1, channels, 1)
        self.dilations = [2**k for k in range(layers)]
        self.gates = nn.ModuleList(
            BayesianConv1d(channels, 2 * channels, 2, dilation=d, posterior_rho_init=-3.0) for d in self.dilations
        )
        self.skips = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in self.dilations)
        self.end = BayesianConv1d(channels, 1, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        x = self.start(x.transpose(1, 2))
        total = 0
        for d, gate, skip in zip(self.dilations, self.gates, self.skips, strict=True):
            a, b = gate(F.pad(x, (d, 0))).chunk(2, dim=1)
            z = torch.tanh(a) * torch.sigmoid(b)
            total = total + skip(z)
            x = x + z
        return self.end(F.relu(total))[:, :, -1]


SHOWN = (WaveNet.forward,)


def network():
    return WaveNet()


def example():
    return torch.randn(5, 24, 1)
