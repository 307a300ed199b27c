"""A ResNet.

Blocks with batch norm and a shortcut, which is a 1 × 1 convolution where sizes change, and a mean over the image.
"""

import torch
import torch.nn.functional as F
from blitz.modules import BayesianConv2d, BayesianLinear
from torch import nn

GROUP = "Images"
INPUTS = ("x [B, 3, 12, 12]",)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = BayesianConv2d(inputs, outputs, (3, 3), stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = BayesianConv2d(outputs, outputs, (3, 3), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.Sequential(Block(6, 6, 1), Block(6, 10, 2))
        self.head = BayesianLinear(10, 3, posterior_rho_init=-3.0)

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).mean(dim=(2, 3)))


def network():
    return ResNet().eval()


def example():
    return torch.rand(4, 3, 12, 12)
