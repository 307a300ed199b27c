"""Monte-Carlo twins of BLiTZ's layers: same forward pass, but for all draws at once and from given draws.

A twin knows nothing of how it is exported: it calls the kernels that its `Folding` was made with. A frozen layer is its
twin with a single draw at σ = 0, which leaves the rows of its input as they are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from blitz.modules import BayesianEmbedding, BayesianGRU, BayesianLinear, BayesianLSTM
from torch import Tensor, nn

from ..runtime.errors import ExportError
from .coding import Coded, CodedPosterior
from .kinds import CONVOLUTIONS
from .posterior import Posterior


@dataclass(frozen=True)
class Kernels:
    """The functions of kernels.py in one form: plain, scripted, or as custom operators."""

    sample_weights: Callable[..., Tensor]
    linear: Callable[..., Tensor]
    linear_local: Callable[..., Tensor]
    convolution: Callable[..., Tensor]
    embedding: Callable[..., Tensor]
    lstm: Callable[..., tuple[Tensor, Tensor, Tensor]]
    gru: Callable[..., tuple[Tensor, Tensor]]
    observation_noise: Callable[..., Tensor]
    summary: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    stretch: Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SiteRecord:
    """What a trial run learnt of one call of a layer."""

    layer: str
    shared: tuple[bool, ...]
    """For each tensor that the layer was given: whether it is the same for every draw."""
    local: bool
    """Whether its outputs are sampled in place of its weights (local reparameterisation)."""
    elements: int
    """Values per row of the batch that the layer reads and writes."""


class Folding:
    """The draws of the pass under way, and the count of sites passed.

    A trial run (`sites=None`) records which inputs carry the draws in their batch axis, from their sizes. Later passes
    replay the record, since a tracer must not see a decision taken on sizes.
    """

    def __init__(self, kernels: Kernels, local: bool = False, sites: Sequence[SiteRecord] | None = None) -> None:
        self.kernels = kernels
        self.local = local
        self.sites: list[SiteRecord] = list(sites or ())
        self.trial = sites is None
        self._passed = 0

    def begin(self, draws: Tensor, seed: Tensor, batch: int) -> None:
        self.draws, self.seed = draws, seed
        self._batch, self._passed = batch, 0

    def enter(self, layer: str, *tensors: Tensor, can_be_local: bool = False) -> tuple[int, SiteRecord]:
        """The number of this site, and what is known of it."""
        number = self._passed
        self._passed += 1
        if self.trial:
            shared = tuple(self._is_shared(layer, tensor) for tensor in tensors)
            self.sites.append(SiteRecord(layer, shared, self.local and can_be_local and self._is_row(tensors[0]), 0))
        return number, self.sites[number]

    def leave(self, number: int, *tensors: Tensor) -> None:
        """Note the sizes of what the layer read and wrote."""
        if self.trial:
            folded = self._batch * self.draws.shape[0]
            elements = sum(t.numel() // (self._batch if t.shape[0] % folded else folded) for t in tensors)
            self.sites[number] = SiteRecord(**{**vars(self.sites[number]), "elements": elements})

    def _is_shared(self, layer: str, tensor: Tensor) -> bool:
        rows, folded = tensor.shape[0], self._batch * self.draws.shape[0]
        if rows % self._batch:
            raise ExportError(
                f"Layer {layer!r} got {rows} rows for a batch of {self._batch}: the network changes the batch axis "
                "before it. murho folds the draws into that axis, so it must stay the first and keep its length."
            )
        return bool(rows % folded)

    def _is_row(self, x: Tensor) -> bool:
        """Whether each row of x belongs to another row of the batch, so that no two of them share a draw's weights."""
        return x.dim() == 2 and x.shape[0] in (self._batch, self._batch * self.draws.shape[0])


class MonteCarloLayer(nn.Module):
    """Base of the twins. What else a user's forward asks of the layer (sizes, flags) comes from BLiTZ's own."""

    mu: Tensor
    sigma: Tensor
    one_draw: Tensor
    no_seed: Tensor

    def __init__(self, posterior: Posterior, folding: Folding) -> None:
        super().__init__()
        self.layer = posterior.layer
        self.frozen = posterior.frozen
        self.register_buffer("mu", posterior.mu)
        self.register_buffer("sigma", torch.zeros_like(posterior.sigma) if self.frozen else posterior.sigma)
        if self.frozen:
            self.register_buffer("one_draw", torch.zeros(1, dtype=torch.int64))
            self.register_buffer("no_seed", torch.zeros((), dtype=torch.int64))
        self.loaded: nn.Module | None = None
        self.folding = folding
        self._aside = (posterior,)  # in a tuple: the user's layer must not be registered as a submodule

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_aside":
                raise
            return getattr(self._aside[0].module, name)

    @property
    def coded(self) -> Coded | None:
        """How the file is to keep μ and σ; None for float32."""
        return self._aside[0].coded

    def expand_when_loaded(self) -> None:
        """Take μ and σ from a scripted module that is saved in their coded form, if they have one."""
        if self.coded is not None:
            self.loaded = torch.jit.script(CodedPosterior(self.coded))
            del self.mu, self.sigma

    def sampled(self, call: Callable[..., Any], *tensors: Tensor, can_be_local: bool = False) -> Any:
        """Pass a site: `call((draws, seed, mu, sigma, number), *shared)`, or `call` with a single draw where frozen."""
        mu, sigma = (self.mu, self.sigma) if self.loaded is None else self.loaded()
        if self.frozen:
            return call((self.one_draw, self.no_seed, mu, sigma, 0), *(True for _ in tensors))
        folding = self.folding
        number, record = folding.enter(self.layer, *tensors, can_be_local=can_be_local)
        arguments = (folding.draws, folding.seed, mu, sigma, number)
        result = call(arguments, *record.shared, **({"local": record.local} if can_be_local else {}))
        folding.leave(number, tensors[0], result if isinstance(result, Tensor) else result[0])
        return result


class MonteCarloLinear(MonteCarloLayer):
    def forward(self, x: Tensor) -> Tensor:
        original, kernels = self._aside[0].module, self.folding.kernels
        sizes = original.in_features, original.out_features, bool(original.bias)

        def call(source: Any, shared: bool, local: bool = False) -> Tensor:
            return (kernels.linear_local if local else kernels.linear)(x, *source, *sizes, shared)

        y: Tensor = self.sampled(call, x, can_be_local=True)
        return y


class MonteCarloConvolution(MonteCarloLayer):
    def forward(self, x: Tensor) -> Tensor:
        posterior, kernels = self._aside[0], self.folding.kernels
        original, shape = posterior.module, list(posterior.shapes["weight"])
        rank = len(shape) - 2
        dilation = _each(original.dilation, rank)
        pads = _pads(original.padding, shape[2:], dilation)
        options = (shape, bool(original.bias), _each(original.stride, rank), pads, dilation, original.groups)
        y: Tensor = self.sampled(lambda source, shared: kernels.convolution(x, *source, *options, shared), x)
        return y


class MonteCarloEmbedding(MonteCarloLayer):
    def forward(self, x: Tensor) -> Tensor:
        original, kernels = self._aside[0].module, self.folding.kernels
        norm = float(original.max_norm or 0), float(original.norm_type)
        if norm[0] and not 0 < norm[1] < math.inf:
            raise ExportError(f"Layer {self.layer!r} has norm_type {norm[1]}; murho exports finite ones above 0.")
        sizes = original.num_embeddings, original.embedding_dim
        y: Tensor = self.sampled(lambda source, shared: kernels.embedding(x, *source, *sizes, *norm, shared), x)
        return y


class MonteCarloLSTM(MonteCarloLayer):
    def forward(
        self, x: Tensor, hidden_states: tuple[Tensor, Tensor] | None = None, sharpen_loss: None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        _refuse_sharpening(self.layer, sharpen_loss)
        original, kernels = self._aside[0].module, self.folding.kernels
        sizes = original.in_features, original.out_features, bool(original.peephole)
        h, c = hidden_states or (_zeros(x, sizes[1]), _zeros(x, sizes[1]))

        def call(source: Any, shared: bool, h_shared: bool, c_shared: bool) -> Any:
            states: tuple[Tensor, ...] = h, c
            if h_shared != c_shared:
                states = tuple(
                    repeated_per_draw(s, source[0].shape[0]) if of else s for s, of in ((h, h_shared), (c, c_shared))
                )
            return kernels.lstm(x, *states, *source, *sizes, shared, h_shared and c_shared)

        sequence, h, c = self.sampled(call, x, h, c)
        return sequence, (h, c)


class MonteCarloGRU(MonteCarloLayer):
    def forward(
        self, x: Tensor, hidden_states: Tensor | None = None, sharpen_loss: None = None
    ) -> tuple[Tensor, Tensor]:
        _refuse_sharpening(self.layer, sharpen_loss)
        original, kernels = self._aside[0].module, self.folding.kernels
        sizes = original.in_features, original.out_features
        h = _zeros(x, sizes[1]) if hidden_states is None else hidden_states
        sequence, h = self.sampled(lambda source, *shared: kernels.gru(x, h, *source, *sizes, *shared), x, h)
        return sequence, h


class MonteCarloRegistered(MonteCarloLayer):
    """A layer of the user's own: its registered function of the weights, for all draws."""

    def forward(self, *inputs: Tensor) -> Tensor:
        posterior, kernels = self._aside[0], self.folding.kernels
        forward = posterior.kind.forward
        assert forward is not None

        def call(source: Any, *shared: bool) -> Tensor:
            draws = source[0]
            weights = posterior.split(kernels.sample_weights(*source))
            unfolded = (
                x.reshape(1 if same else draws.shape[0], -1, *x.shape[1:])
                for x, same in zip(inputs, shared, strict=True)
            )
            y = forward(posterior.module, weights, *unfolded)
            wrong = self.folding.trial and (not isinstance(y, Tensor) or y.dim() < 2 or y.shape[0] != draws.shape[0])
            if wrong:  # looked at in the trial run only: a tracer would follow the comparison of sizes
                got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
                raise ExportError(
                    f"The function registered for {posterior.kind.name} must return a tensor [S, B, …] with S = "
                    f"{draws.shape[0]} draws, but returned {got}. Mend it."
                )
            return y.flatten(0, 1)

        result: Tensor = self.sampled(call, *inputs)
        return result


def make_twin(posterior: Posterior, folding: Folding) -> nn.Module:
    """The Monte-Carlo twin of a BLiTZ layer."""
    cls = posterior.kind.cls
    if posterior.kind.forward is not None:
        return MonteCarloRegistered(posterior, folding)
    if cls in CONVOLUTIONS:
        return MonteCarloConvolution(posterior, folding)
    twins: dict[type, type[MonteCarloLayer]] = {
        BayesianLinear: MonteCarloLinear,
        BayesianEmbedding: MonteCarloEmbedding,
        BayesianLSTM: MonteCarloLSTM,
        BayesianGRU: MonteCarloGRU,
    }
    return twins[cls](posterior, folding)


def _refuse_sharpening(layer: str, sharpen_loss: object) -> None:
    if sharpen_loss is not None:
        raise ExportError(f"Layer {layer!r} is called with sharpen_loss, which makes its weights depend on a loss.")


def _zeros(x: Tensor, hidden: int) -> Tensor:
    return x.new_zeros(x.shape[0], hidden)


def repeated_per_draw(shared: Tensor, count: int) -> Tensor:
    """[B, …] -> [S·B, …], the same for every one of S = `count` draws."""
    return shared.unsqueeze(0).expand(count, *shared.shape).reshape(-1, *shared.shape[1:])


def _each(value: int | Sequence[int], rank: int) -> list[int]:
    """torch takes one number for all axes, or one each."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _pads(padding: int | str | Sequence[int], kernel: list[int], dilation: list[int]) -> list[int]:
    """The begin of each axis, then the end of each. torch's "same" puts an odd row at the end."""
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [t // 2 for t in total] + [t - t // 2 for t in total]
    each = [0] * len(kernel) if padding == "valid" else _each(padding, len(kernel))  # type: ignore[arg-type]
    return each * 2
