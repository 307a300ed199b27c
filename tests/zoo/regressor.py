"""A regressor on a table.

Linear layers with an activation between, as in BLiTZ's own introduction.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

from zoo import fitted

GROUP = "Tables"
INPUTS = ("x [B, 13]",)


@variational_estimator
class BayesianRegressor(nn.Module):
    def __init__(self, input_dim, output_dim):
        super().__init__()
        self.blinear1 = BayesianLinear(input_dim, 32)
        self.blinear2 = BayesianLinear(32, output_dim)

    def forward(self, x):
        x_ = self.blinear1(x)
        x_ = torch.nn.functional.relu(x_)
        return self.blinear2(x_)


def network():
    return fitted(BayesianRegressor(13, 1), example(), example()[:, :1], nn.MSELoss())


def example():
    return torch.randn(16, 13)
