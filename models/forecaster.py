"""The network of BLiTZ's time-series tutorial, with free sizes: Bayesian LSTM or GRU layers, then a linear head."""

from typing import Any

import torch
from blitz.modules import BayesianGRU, BayesianLSTM
from blitz.utils import variational_estimator
from torch import nn

from ._parts import check, check_sizes, checked_beliefs

CELLS = {"lstm": BayesianLSTM, "gru": BayesianGRU}


@variational_estimator
class Forecaster(nn.Module):
    """A window of past values in, the next `horizon` values out, all in standardised units.

    float32 `[B, T, features]` → stacked Bayesian recurrent layers → hidden state of the last step →
    `nn.Linear(hidden, horizon)` → float32 `[B, horizon]`. The head gives all steps of the horizon at once. With every
    default this is the tutorial's network. Call `torch.manual_seed` before it to fix the initial weights.

    `features`: values per time step. `hidden`: size of the hidden state. `layers`: recurrent layers on top of each
    other. `cell`: "lstm" or "gru". With `learned_noise` the head gives 2·horizon values: after the predictions as many
    scales of the observation noise, see `murho.Noise`. `prior_pi`, `prior_sigma_1`, `prior_sigma_2`: the prior of every
    weight, prior_pi · N(0, prior_sigma_1²) + (1 - prior_pi) · N(0, prior_sigma_2²) (Blundell et al. 2015, equation 7).
    `posterior_rho_init`: where ρ starts; σ = softplus(ρ), so -3 means σ of about 0.05.

    `config` holds these settings as plain Python values: `Forecaster(**network.config)` has the same architecture.
    Raises InputError for a setting out of range.
    """

    def __init__(
        self,
        features: int = 1,
        hidden: int = 10,
        layers: int = 1,
        cell: str = "lstm",
        horizon: int = 1,
        learned_noise: bool = False,
        prior_sigma_1: float = 1.0,
        prior_pi: float = 1.0,
        posterior_rho_init: float = -3.0,
        prior_sigma_2: float = 0.002,
    ) -> None:
        super().__init__()
        check_sizes(features=features, hidden=hidden, layers=layers, horizon=horizon)
        check(isinstance(cell, str) and cell in CELLS, "cell", "one of " + ", ".join(map(repr, CELLS)), cell)
        beliefs = checked_beliefs(prior_sigma_1, prior_pi, posterior_rho_init, prior_sigma_2)
        check(type(learned_noise) is bool, "learned_noise", "True or False", learned_noise)
        sizes = {"features": features, "hidden": hidden, "layers": layers, "cell": cell, "horizon": horizon}
        self.config: dict[str, Any] = {**sizes, "learned_noise": learned_noise, **beliefs}
        inputs = [features] + [hidden] * (layers - 1)
        self.recurrent = nn.ModuleList(CELLS[cell](size, hidden, **beliefs) for size in inputs)
        self.head = nn.Linear(hidden, 2 * horizon if learned_noise else horizon)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.recurrent:
            x, _ = layer(x)  # (B, T, hidden)
        prediction: torch.Tensor = self.head(x[:, -1, :])
        return prediction
