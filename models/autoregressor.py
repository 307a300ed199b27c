"""A network for long windows: a Bayesian linear autoregression, and Bayesian hidden layers for what is not linear."""

from collections.abc import Sequence
from typing import Any

import torch
from blitz.utils import variational_estimator
from torch import nn

from ._parts import check, check_sizes, checked_beliefs, checked_sizes, dense


@variational_estimator
class Autoregressor(nn.Module):
    """A window of past values in, the next `horizon` values out, all in standardised units.

    float32 `[B, window, features]`, flattened → BayesianLinear, plus BayesianLinear → ReLU → … → BayesianLinear →
    float32 `[B, horizon]`. It reads a week of hours at a fraction of a recurrent layer's time. Call `torch.manual_seed`
    before it to fix the initial weights.

    `window`: rows that it reads. `features`: values per row. `hidden`: sizes of the hidden layers. With `learned_noise`
    there are `horizon` more outputs, scales of the observation noise, see `murho.Noise`. Priors and initial means are
    those of `Regressor`, but the last layers start at a tenth of its means: the first forecast is about the last value
    where the values are differences or returns.

    `config` holds these settings as plain Python values: `Autoregressor(**network.config)` has the same architecture.
    Raises InputError for a setting out of range.
    """

    def __init__(
        self,
        window: int = 21,
        features: int = 1,
        hidden: Sequence[int] = (64,),
        horizon: int = 1,
        learned_noise: bool = False,
        prior_sigma_1: float = 1.0,
        prior_pi: float = 1.0,
        posterior_rho_init: float = -5.0,
        prior_sigma_2: float = 0.002,
    ) -> None:
        super().__init__()
        check_sizes(window=window, features=features, horizon=horizon)
        check(type(learned_noise) is bool, "learned_noise", "True or False", learned_noise)
        hidden = checked_sizes("hidden", hidden, least=1)
        beliefs = checked_beliefs(prior_sigma_1, prior_pi, posterior_rho_init, prior_sigma_2)
        sizes = {"window": window, "features": features, "hidden": hidden, "horizon": horizon}
        self.config: dict[str, Any] = {**sizes, "learned_noise": learned_noise, **beliefs}
        values = window * features
        self.horizon = horizon
        self.linear = dense((values, horizon), beliefs)
        self.layers = dense((values, *hidden, 2 * horizon if learned_noise else horizon), beliefs)
        with torch.no_grad():
            for stack in (self.linear, self.layers):
                last: Any = stack[-1]
                last.weight_sampler.mu.mul_(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)  # (B, window · features)
        y = self.layers(x)
        prediction: torch.Tensor = torch.cat([y[:, : self.horizon] + self.linear(x), y[:, self.horizon :]], dim=1)
        return prediction
