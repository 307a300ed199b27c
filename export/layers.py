"""Monte-Carlo twins of BLiTZ's layers: same forward pass, but for all draws at once and from given draws.

A twin knows nothing of how it is exported: it calls the kernels that its `Folding` was made with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import Tensor, nn

from ..runtime.errors import ExportError
from .posterior import Posterior


@dataclass(frozen=True)
class Kernels:
    """The functions of kernels.py in one form: plain, scripted, or as custom operators."""

    linear: Callable[..., Tensor]
    lstm: Callable[..., tuple[Tensor, Tensor, Tensor]]
    gru: Callable[..., tuple[Tensor, Tensor]]
    summary: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class SiteRecord:
    """What a trial run learnt of one call of a layer."""

    layer: str
    shared: tuple[bool, ...]
    """For each tensor that the layer was given: whether it is the same for every draw."""


class Folding:
    """The draws of the pass under way, and the count of sites passed.

    A trial run (`sites=None`) records which inputs carry the draws in their batch axis, from their sizes. Later passes
    replay the record, since a tracer must not see a decision taken on sizes.
    """

    def __init__(self, kernels: Kernels, sites: list[SiteRecord] | None = None) -> None:
        self.kernels = kernels
        self.sites: list[SiteRecord] = [] if sites is None else sites
        self._trial = sites is None
        self._passed = 0

    def begin(self, draws: Tensor, seed: Tensor, batch: int) -> None:
        self.draws, self.seed = draws, seed
        self._batch, self._passed = batch, 0

    def enter(self, layer: str, *tensors: Tensor) -> tuple[int, tuple[bool, ...]]:
        """The number of this site, and whether each tensor is shared by all draws."""
        number = self._passed
        self._passed += 1
        if self._trial:
            self.sites.append(SiteRecord(layer, tuple(self._is_shared(layer, tensor) for tensor in tensors)))
        return number, self.sites[number].shared

    def _is_shared(self, layer: str, tensor: Tensor) -> bool:
        rows, folded = tensor.shape[0], self._batch * self.draws.shape[0]
        if rows not in (self._batch, folded):
            raise ExportError(
                f"Layer {layer!r} got {rows} rows for a batch of {self._batch}: the network changes the batch axis "
                "before it. murho folds the draws into that axis, so it must stay the first and keep its length."
            )
        return bool(rows == self._batch)


class MonteCarloLayer(nn.Module):
    """Base of the twins. What else a user's forward asks of the layer (sizes, flags) comes from BLiTZ's own."""

    mu: Tensor
    sigma: Tensor

    def __init__(self, posterior: Posterior, original: Any, folding: Folding) -> None:
        super().__init__()
        self.layer = posterior.layer
        self.register_buffer("mu", posterior.mu)
        self.register_buffer("sigma", posterior.sigma)
        self.folding = folding
        self._aside = (original,)  # in a tuple: not to be registered as a submodule

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_aside":
                raise
            return getattr(self._aside[0], name)


class MonteCarloLinear(MonteCarloLayer):
    def forward(self, x: Tensor) -> Tensor:
        folding, (original,) = self.folding, self._aside
        site, (shared,) = folding.enter(self.layer, x)
        sizes = (site, original.in_features, original.out_features, bool(original.bias), shared)
        return folding.kernels.linear(x, folding.draws, folding.seed, self.mu, self.sigma, *sizes)


class MonteCarloLSTM(MonteCarloLayer):
    def forward(
        self, x: Tensor, hidden_states: tuple[Tensor, Tensor] | None = None, sharpen_loss: None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        _refuse_sharpening(self.layer, sharpen_loss)
        folding, (original,) = self.folding, self._aside
        inputs, hidden = original.in_features, original.out_features
        h, c = hidden_states or (_zeros(x, hidden), _zeros(x, hidden))
        site, (shared, h_shared, c_shared) = folding.enter(self.layer, x, h, c)
        if h_shared != c_shared:
            h, c = (_folded(state, folding) if s else state for state, s in ((h, h_shared), (c, c_shared)))
        sizes = (site, inputs, hidden, shared, h_shared and c_shared)
        sequence, h, c = folding.kernels.lstm(x, h, c, folding.draws, folding.seed, self.mu, self.sigma, *sizes)
        return sequence, (h, c)


class MonteCarloGRU(MonteCarloLayer):
    def forward(
        self, x: Tensor, hidden_states: Tensor | None = None, sharpen_loss: None = None
    ) -> tuple[Tensor, Tensor]:
        _refuse_sharpening(self.layer, sharpen_loss)
        folding, (original,) = self.folding, self._aside
        inputs, hidden = original.in_features, original.out_features
        h = _zeros(x, hidden) if hidden_states is None else hidden_states
        site, (shared, h_shared) = folding.enter(self.layer, x, h)
        sizes = (site, inputs, hidden, shared, h_shared)
        return folding.kernels.gru(x, h, folding.draws, folding.seed, self.mu, self.sigma, *sizes)


class FrozenRecurrent(nn.Module):
    """A frozen BLiTZ LSTM or GRU: torch's own at the posterior mean, with BLiTZ's signature.

    BLiTZ's gates stand in torch's order. Its LSTM has one bias, its GRU a second one for the new gate's state part.
    """

    def __init__(self, posterior: Posterior, original: Any) -> None:
        super().__init__()
        self.lstm = isinstance(original, BayesianLSTM)
        hidden, gates = original.out_features, 4 if self.lstm else 3
        mean = posterior.split(posterior.mu)
        bias_hh = torch.zeros(gates * hidden)
        if not self.lstm:
            bias_hh[2 * hidden :] = mean["bias"][3 * hidden :]
        self.recurrent = (nn.LSTM if self.lstm else nn.GRU)(original.in_features, hidden, batch_first=True)
        self.recurrent.load_state_dict(
            {
                "weight_ih_l0": mean["weight_ih"].T,
                "weight_hh_l0": mean["weight_hh"].T,
                "bias_ih_l0": mean["bias"][: gates * hidden],
                "bias_hh_l0": bias_hh,
            }
        )

    def forward(self, x: Tensor, hidden_states: Any = None, sharpen_loss: None = None) -> tuple[Tensor, Any]:
        if hidden_states is None:
            start = None
        else:
            start = tuple(s.unsqueeze(0) for s in hidden_states) if self.lstm else hidden_states.unsqueeze(0)
        sequence, end = self.recurrent(x, start)
        return sequence, tuple(s.squeeze(0) for s in end) if self.lstm else end.squeeze(0)


def make_twin(posterior: Posterior, original: Any, folding: Folding) -> nn.Module:
    """The twin of a BLiTZ layer: a Monte-Carlo layer, or a deterministic one where the layer is frozen."""
    if getattr(original, "freeze", False):
        if not isinstance(original, BayesianLinear):
            return FrozenRecurrent(posterior, original)
        mean = posterior.split(posterior.mu)
        linear = nn.Linear(original.in_features, original.out_features, bias="bias" in mean)
        linear.load_state_dict(mean)
        return linear
    if isinstance(original, BayesianLinear):
        return MonteCarloLinear(posterior, original, folding)
    if isinstance(original, BayesianLSTM):
        return MonteCarloLSTM(posterior, original, folding)
    return MonteCarloGRU(posterior, original, folding)


def _refuse_sharpening(layer: str, sharpen_loss: object) -> None:
    if sharpen_loss is not None:
        raise ExportError(f"Layer {layer!r} is called with sharpen_loss, which makes its weights depend on a loss.")


def _zeros(x: Tensor, hidden: int) -> Tensor:
    return x.new_zeros(x.shape[0], hidden)


def _folded(shared: Tensor, folding: Folding) -> Tensor:
    """[B, …] -> [S·B, …], the same for every draw."""
    count = folding.draws.shape[0]
    return shared.unsqueeze(0).expand(count, *shared.shape).reshape(-1, *shared.shape[1:])
