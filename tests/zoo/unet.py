"""A U-Net.

Down, up, and the two sides concatenated; the output is an image.
"""

import torch
import torch.nn.functional as F
from blitz.modules import BayesianConv2d
from torch import nn

GROUP = "Images"
INPUTS = ("x [B, 1, 16, 16]",)


def double_conv(inputs, outputs):
    return nn.Sequential(
        BayesianConv2d(inputs, outputs, (3, 3), padding=1, posterior_rho_init=-4.0),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = double_conv(1, 4), double_conv(4, 8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.merge = double_conv(8, 4)
        self.out = BayesianConv2d(4, 1, (1, 1), posterior_rho_init=-4.0)

    def forward(self, x):
        wide = self.down1(x)
        deep = self.up(self.down2(F.max_pool2d(wide, 2)))
        if deep.shape[2:] != wide.shape[2:]:
            deep = F.interpolate(deep, size=wide.shape[2:])
        return self.out(self.merge(torch.cat([wide, deep], dim=1)))


def network():
    return UNet()


def example():
    return torch.rand(3, 1, 16, 16)
