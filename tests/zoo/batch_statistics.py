"""Statistics of the batch.

`x - x.mean(0)` makes the answer to a row depend on the rows beside it. Take them from the training data, once.
"""

import torch
from blitz.modules import BayesianLinear
from torch import nn

GROUP = "What a forward may do"
REFUSED = "mixes the rows of a batch, so that the answer to a row depends on the rows beside it"
INPUTS = ("x [B, 5]",)


class ByTheBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = BayesianLinear(5, 12, posterior_rho_init=-3.0)
        self.fc2 = BayesianLinear(12, 1, posterior_rho_init=-3.0)

    def forward(self, x):
        x = (x - x.mean(dim=0)) / x.std(dim=0, unbiased=False).clamp_min(1e-3)
        return self.fc2(torch.relu(self.fc1(x)))


class ByTheTrainingData(ByTheBatch):
    def __init__(self, training_data):
        super().__init__()
        self.register_buffer("mean", training_data.mean(dim=0))
        self.register_buffer("std", training_data.std(dim=0))

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1((x - self.mean) / self.std)))


SHOWN = (ByTheBatch.forward,)
SHOWN_MENDED = (ByTheTrainingData.__init__, ByTheTrainingData.forward)


def network():
    return ByTheBatch()


def mended():
    return ByTheTrainingData(example())


def example():
    return torch.randn(9, 5)
