"""An AlexNet.

Strided and padded convolutions, overlapping pools, dropout in front of each linear layer.
"""

import torch
from blitz.modules import BayesianConv2d, BayesianLinear
from torch import nn

GROUP = "Images"
OPTIONS = {"task": "classification"}
INPUTS = ("x [B, 3, 32, 32]",)


class AlexNet(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.features = nn.Sequential(
            BayesianConv2d(3, 8, kernel_size=(5, 5), stride=2, padding=2, posterior_rho_init=-4.0),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            BayesianConv2d(8, 12, kernel_size=(3, 3), padding=1, posterior_rho_init=-4.0),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(),
            BayesianLinear(12 * 3 * 3, 20, posterior_rho_init=-4.0),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            BayesianLinear(20, classes, posterior_rho_init=-4.0),
        )

    def forward(self, x):
        x = self.features(x)
        x = x.view(x.size(0), 12 * 3 * 3)
        return self.classifier(x)


def network():
    return AlexNet().eval()


def example():
    return torch.rand(4, 3, 32, 32)
