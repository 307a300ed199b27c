"""A temporal convolutional network.

Dilated convolutions padded on both sides, of which the right one is cut off again, with residuals. Time comes last.
"""

import torch
from blitz.modules import BayesianConv1d, BayesianLinear
from torch import nn

GROUP = "Time series"
INPUTS = ("x [B, 2, 20]",)
NOTES = ("Axis 1 of x (time) is fixed at 2",)


class TemporalBlock(nn.Module):
    def __init__(self, inputs, outputs, dilation):
        super().__init__()
        self.padding = 2 * dilation
        self.conv = BayesianConv1d(inputs, outputs, 3, padding=self.padding, dilation=dilation, posterior_rho_init=-3.0)
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        out = self.dropout(torch.relu(self.conv(x)[:, :, : -self.padding].contiguous()))
        res = x if self.downsample is None else self.downsample(x)
        return torch.relu(out + res)


class TCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(*[TemporalBlock(2 if k == 0 else 6, 6, 2**k) for k in range(3)])
        self.linear = BayesianLinear(6, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        return self.linear(self.network(x)[:, :, -1])


SHOWN = (TemporalBlock.forward,)


def network():
    return TCN().eval()


def example():
    return torch.randn(5, 2, 20)
