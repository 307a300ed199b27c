"""The benchmark's networks in PyTorch without murho and without a loop over draws, as an engineer would write them by
hand: all draws' weights from torch.randn, then batched products with the draws as the first axis.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from murho.export.posterior import Posterior
from murho.models import Classifier, Forecaster, Regressor

Weights = dict[str, Tensor]
"""One layer's tensors [S, …] by BLiTZ's names."""


class HandBatched:
    """A Forecaster, Regressor or Classifier, called with x [B, …] in the network's units."""

    def __init__(self, network: nn.Module, posteriors: Iterable[Posterior]) -> None:
        self._network = network
        self._posteriors = list(posteriors)
        self._tensors = [(p.split(p.mu), p.split(p.sigma)) for p in self._posteriors]

    def __call__(self, x: Tensor, draws: int) -> Tensor:
        """Outputs [S, B, O] of so many new draws."""
        return self.given(x, [self._drawn(mu, sigma, draws) for mu, sigma in self._tensors])

    def given(self, x: Tensor, weights: Sequence[Weights]) -> Tensor:
        """Outputs [S, B, O] with the weights of each layer."""
        if isinstance(self._network, Forecaster):
            return self._forecast(x, weights)
        if isinstance(self._network, Classifier):
            *convolutions, first, second, third = weights
            return dense(convolved(x, convolutions), [first, second, third])
        assert isinstance(self._network, Regressor)
        return dense(x, weights)

    def weights(self, epsilon: Sequence[Tensor]) -> list[Weights]:
        """Weights from ε [S, n] of each layer."""
        return [p.split(p.mu + p.sigma * e) for p, e in zip(self._posteriors, epsilon, strict=True)]

    def _forecast(self, x: Tensor, weights: Sequence[Weights]) -> Tensor:
        (layer,) = weights
        hidden = (gru if self._network.config["cell"] == "gru" else lstm)(x, layer)
        return self._network.head(hidden)

    def _drawn(self, mu: Weights, sigma: Weights, draws: int) -> Weights:
        return {name: torch.randn(draws, *mu[name].shape).mul_(sigma[name]).add_(mu[name]) for name in mu}


def lstm(x: Tensor, weights: Weights) -> Tensor:
    """Last hidden states [S, B, H] of sequences x [B, T, F]."""
    from_x, recurrent, bias = weights["weight_ih"], weights["weight_hh"], weights["bias"].unsqueeze(1)
    h = c = x.new_zeros(len(from_x), len(x), recurrent.shape[1])
    for t in range(x.shape[1]):
        gates = torch.baddbmm(torch.matmul(x[:, t], from_x).add_(bias), h, recurrent)
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
        h = o.sigmoid() * c.tanh()
    return h


def gru(x: Tensor, weights: Weights) -> Tensor:
    """Last hidden states [S, B, H] of sequences x [B, T, F]. The new gate's bias comes twice, as in BLiTZ."""
    from_x, recurrent, bias = weights["weight_ih"], weights["weight_hh"], weights["bias"].unsqueeze(1)
    size = recurrent.shape[1]
    h = x.new_zeros(len(from_x), len(x), size)
    for t in range(x.shape[1]):
        one = torch.matmul(x[:, t], from_x).add_(bias[..., : 3 * size])
        other = torch.bmm(h, recurrent)
        r, z = (one[..., : 2 * size] + other[..., : 2 * size]).sigmoid_().chunk(2, dim=-1)
        n = torch.addcmul(one[..., 2 * size :], r, other[..., 2 * size :] + bias[..., 3 * size :]).tanh_()
        h = torch.lerp(n, h, z)
    return h


def dense(x: Tensor, weights: Sequence[Weights]) -> Tensor:
    """Linear layers with ReLU between them, of rows [B, F] that all draws share, or [S, B, F] of each draw."""
    for k, layer in enumerate(weights):
        weight, bias = layer["weight"], layer["bias"].unsqueeze(1)
        x = torch.baddbmm(bias, (relu(x) if k else x).expand(len(weight), -1, -1), weight.transpose(1, 2))
    return x


def convolved(x: Tensor, weights: Sequence[Weights]) -> Tensor:
    """Convolutions with ReLU and pooling, flattened: [S, B, F] of images [B, C, H, W], the draws as channels."""
    draws, rows = len(weights[0]["bias"]), len(x)
    for k, layer in enumerate(weights):
        y = conv2d(x, layer["weight"].flatten(0, 1), layer["bias"].flatten(), groups=draws if k else 1)
        x = max_pool2d(relu(y), 2)
    return x.reshape(rows, draws, -1).transpose(0, 1)
