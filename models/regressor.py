"""A network for tables: Bayesian linear layers with ReLU between them."""

from collections.abc import Sequence
from typing import Any

import torch
from blitz.utils import variational_estimator
from torch import nn

from ._parts import check, check_sizes, checked_beliefs, checked_sizes, dense


@variational_estimator
class Regressor(nn.Module):
    """A row of values in, `outputs` values out, all in standardised units.

    float32 `[B, features]` → BayesianLinear → ReLU → … → BayesianLinear → float32 `[B, outputs]`. Call
    `torch.manual_seed` before it to fix the initial weights.

    `features`: values per row. `hidden`: sizes of the hidden layers, none for a linear model. `outputs`: values that
    are predicted. With `learned_noise` there are as many again, scales of the observation noise, see `murho.Noise`.
    `prior_pi`, `prior_sigma_1`, `prior_sigma_2`: the prior of every weight,
    prior_pi · N(0, prior_sigma_1²) + (1 - prior_pi) · N(0, prior_sigma_2²) (Blundell et al. 2015, equation 7).
    `posterior_rho_init`: where ρ starts; σ = softplus(ρ), so -4 means σ of about 0.02.

    The means of the weights do not start as in BLiTZ, which draws every μ from N(0, 0.1²): a layer with 512 inputs then
    makes its signal 1.6 times as large, one with 50 half as large, and so on with every further layer. Here they come
    from N(0, 2 / inputs), in the last layer from N(0, 1 / inputs), which keeps the size of the signal through any
    number of layers (He et al. 2015). Biases and ρ start as in BLiTZ. σ has to start well below √(2 / inputs), or noise
    drowns the signal: for (512, 512, 512) that is 0.06, so take posterior_rho_init=-5.

    With few rows and many weights the complexity outweighs the data at `fit`'s default weight of 1/N; a tenth of that
    is then worth a try.

    `config` holds these settings as plain Python values: `Regressor(**network.config)` has the same architecture.
    Raises InputError for a setting out of range.
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (50,),
        outputs: int = 1,
        learned_noise: bool = False,
        prior_sigma_1: float = 1.0,
        prior_pi: float = 1.0,
        posterior_rho_init: float = -4.0,
        prior_sigma_2: float = 0.002,
    ) -> None:
        super().__init__()
        check_sizes(features=features, outputs=outputs)
        hidden = checked_sizes("hidden", hidden)
        beliefs = checked_beliefs(prior_sigma_1, prior_pi, posterior_rho_init, prior_sigma_2)
        check(type(learned_noise) is bool, "learned_noise", "True or False", learned_noise)
        sizes = {"features": features, "hidden": hidden, "outputs": outputs, "learned_noise": learned_noise}
        self.config: dict[str, Any] = {**sizes, **beliefs}
        self.layers = dense((features, *hidden, 2 * outputs if learned_noise else outputs), beliefs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        prediction: torch.Tensor = self.layers(x)
        return prediction
