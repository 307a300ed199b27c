"""Continual learning: the old posterior is the new prior, and each task has a head.

The prior serves the loss alone and is no part of the file. The task's number is a plain number, a constant.
"""

import torch
from blitz.modules import BayesianLinear
from blitz.utils import variational_estimator
from torch import nn

from zoo import fitted

GROUP = "Training"
INPUTS = ("x [B, 5]",)
NOTES = ("task_id = 1: constant in the file",)


@variational_estimator
class Continual(nn.Module):
    def __init__(self, prior_dist=None):
        super().__init__()
        self.shared = BayesianLinear(5, 10, posterior_rho_init=-3.0, prior_dist=prior_dist)
        self.heads = nn.ModuleDict({f"task{n}": BayesianLinear(10, 2, posterior_rho_init=-3.0) for n in range(2)})

    def forward(self, x, task_id=0):
        return self.heads[f"task{task_id}"](torch.relu(self.shared(x)))


def network():
    first = fitted(Continual(), example()["x"], torch.arange(8) % 2, nn.CrossEntropyLoss())
    sampler = first.shared.weight_sampler
    prior = torch.distributions.Normal(sampler.mu.detach(), torch.log1p(torch.exp(sampler.rho.detach())))
    second = Continual()
    second.load_state_dict(first.state_dict())
    second.shared.weight_prior_dist.dist1 = prior
    return fitted(second, example()["x"], torch.arange(8) % 2, nn.CrossEntropyLoss())


def example():
    return {"x": torch.randn(8, 5), "task_id": 1}
