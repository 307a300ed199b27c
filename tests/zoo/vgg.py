"""A VGG made from a list of sizes.

Convolutions, batch norm and pooling in one Sequential, then dropout and linear layers; in training mode still.
"""

import torch
from blitz.modules import BayesianConv2d, BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

from zoo import fitted

GROUP = "Images"
OPTIONS = {"task": "classification"}
INPUTS = ("x [B, 3, 16, 16]",)
NOTES = ("The network is in training mode; the artifact has the evaluation mode",)


def make_layers(config):
    layers, channels = [], 3
    for size in config:
        if size == "M":
            layers += [nn.MaxPool2d(kernel_size=2, stride=2)]
        else:
            layers += [BayesianConv2d(channels, size, kernel_size=(3, 3), padding=1), nn.BatchNorm2d(size), nn.ReLU()]
            channels = size
    return nn.Sequential(*layers)


@variational_estimator
class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = make_layers([6, "M", 8, 8, "M", 8, "M"])
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            BayesianLinear(8 * 2 * 2, 16), nn.ReLU(True), nn.Dropout(), BayesianLinear(16, 4)
        )

    def forward(self, x):
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


def network():
    return fitted(VGG(), example(), torch.arange(4), nn.CrossEntropyLoss(), steps=2)


def example():
    return torch.rand(4, 3, 16, 16)
