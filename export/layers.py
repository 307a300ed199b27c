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
from .coding import Coded
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
    single: bool = False
    """Whether it reads a single row that all of the batch share: the places of a sequence's steps [1, T], say."""


class RowsChangedError(ExportError):
    """A layer is given another number of rows than the batch has."""


class Folding:
    """The draws of the pass under way, and the count of sites passed.

    A trial run (`sites=None`) records which inputs carry the draws in their batch axis, from their sizes. Later passes
    replay the record, since a tracer must not see a decision taken on sizes.

    With `streaming`, a recurrent layer goes on from the state that it was left in by the call before.
    """

    def __init__(
        self,
        kernels: Kernels,
        local: bool = False,
        sites: Sequence[SiteRecord] | None = None,
        streaming: bool = False,
    ) -> None:
        self.kernels = kernels
        self.local = local
        self.streaming = streaming
        self.sites: list[SiteRecord] = list(sites or ())
        self.trial = sites is None
        self._passed = 0

    def begin(self, draws: Tensor, seed: Tensor, states: Sequence[Tensor] = ()) -> None:
        """New draws. Their weights stay the same for all passes until the next call. States are [S, B, H]."""
        self.draws, self.seed = draws, seed
        self._states = iter(states)
        self.next_states: list[Tensor] = []
        self._weights: dict[int, tuple[Tensor | None, ...]] = {}

    def begin_pass(self, batch: int) -> None:
        self._batch, self._passed, self._single = batch, 0, False

    def enter(self, layer: str, *tensors: Tensor, can_be_local: bool = False) -> tuple[int, SiteRecord]:
        """The number of this site, and what is known of it."""
        number = self._passed
        self._passed += 1
        if self.trial:
            shared = tuple(self._is_shared(layer, tensor) for tensor in tensors)
            local = self.local and can_be_local and self._is_row(tensors[0])
            self.sites.append(SiteRecord(layer, shared, local, 0, self._single))
        return number, self.sites[number]

    def for_every_row(self, x: Tensor) -> Tensor:
        """What the layer that is passed next reads, [B, …] where it is a single row for all of the batch."""
        self._single = len(x) == 1 if self.trial else self.sites[self._passed].single
        return x.expand(self._batch, *x.shape[1:]) if self._single else x

    def weights(self, number: int, twin: "MonteCarloLayer") -> Any:
        """The weights of a site, as its twin arranges them."""
        if number not in self._weights:
            self._weights[number] = twin.weights(self.draws, self.seed, number)
        return self._weights[number]

    def first_state(self, layer: str, given: object, hidden: int) -> Tensor:
        """The state [S·B, H] that a recurrent layer of a stream goes on from."""
        if given is not None:
            raise ExportError(f"Layer {layer!r} is given its first state, but in a stream it goes on from its own.")
        if self.trial:
            return torch.zeros(self.draws.shape[0] * self._batch, hidden)
        return next(self._states).reshape(-1, hidden)

    def keep_states(self, *states: Tensor) -> None:
        """Note what the layer that was passed last leaves for the call after this, each [S·B, H]."""
        self.next_states += [state.reshape(self.draws.shape[0], -1, state.shape[1]) for state in states]

    def leave(self, number: int, *tensors: Tensor) -> None:
        """Note the sizes of what the layer read and wrote."""
        if self.trial:
            folded = self._batch * self.draws.shape[0]
            elements = sum(t.numel() // (self._batch if t.shape[0] % folded else folded) for t in tensors)
            self.sites[number] = SiteRecord(**{**vars(self.sites[number]), "elements": elements})

    def _is_shared(self, layer: str, tensor: Tensor) -> bool:
        rows, folded = tensor.shape[0], self._batch * self.draws.shape[0]
        if rows % self._batch:
            raise RowsChangedError(
                f"Layer {layer!r} got {rows} rows for a batch of {self._batch}: the network changes the batch axis "
                "before it. murho folds the draws into that axis, so it must stay the first and keep its length: give "
                "the layer all rows at once. Of what is no batch give it a single row that all share, as in "
                "layer(torch.arange(steps)[None]), or what each row needs of it, layer(table[ids]) for "
                "layer(table)[ids]."
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
        self.expanding: nn.Module | None = None
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

    def keep_coded(self, form: Callable[[Coded], nn.Module]) -> None:
        """Take μ and σ, if they have a coded form, from a module that is saved in that form."""
        if self.coded is not None:
            self.expanding = form(self.coded)
            del self.mu, self.sigma

    def posterior(self) -> tuple[Tensor, Tensor]:
        """μ and σ [n]."""
        return (self.mu, self.sigma) if self.expanding is None else self.expanding()

    def weights(self, draws: Tensor, seed: Tensor, site: int) -> tuple[Tensor | None, ...]:
        """Each draw's weights, in the form that the layer's kernel reads."""
        return self.arranged(self.folding.kernels.sample_weights(draws, seed, *self.posterior(), site))

    def arranged(self, flat: Tensor) -> tuple[Tensor | None, ...]:
        """weight [S, …] and bias [S, …] from the draws' weights [S, n]."""
        parts = self._aside[0].split(flat)
        return parts["weight"], parts.get("bias")

    def for_every_row(self, x: Tensor) -> Tensor:
        """Of a single row that all of a batch share, BLiTZ's one answer is every row's."""
        return x if self.frozen else self.folding.for_every_row(x)

    def sampled(self, call: Callable[..., Any], *tensors: Tensor, local: Callable[..., Tensor] | None = None) -> Any:
        """Pass a site: `call(weights, *shared)`, with a single draw where frozen.

        A site that samples its outputs in place of its weights is `local((draws, seed, mu, sigma, number), *shared)`.
        """
        folding = self.folding
        if self.frozen:
            return call(self.weights(self.one_draw, self.no_seed, 0), *(True for _ in tensors))
        number, record = folding.enter(self.layer, *tensors, can_be_local=local is not None)
        if local is not None and record.local:
            result = local((folding.draws, folding.seed, *self.posterior(), number), *record.shared)
        else:
            result = call(folding.weights(number, self), *record.shared)
        folding.leave(number, tensors[0], result if isinstance(result, Tensor) else result[0])
        return result


class MonteCarloLinear(MonteCarloLayer):
    def forward(self, x: Tensor) -> Tensor:
        posterior, kernels = self._aside[0], self.folding.kernels
        outputs, inputs = posterior.shapes["weight"]
        sizes = inputs, outputs, "bias" in posterior.shapes
        x = self.for_every_row(x)

        def call(weights: Any, shared: bool) -> Tensor:
            return kernels.linear(x, *weights, shared)

        def local(source: Any, shared: bool) -> Tensor:
            return kernels.linear_local(x, *source, *sizes, shared)

        y: Tensor = self.sampled(call, x, local=local)
        return y


class MonteCarloConvolution(MonteCarloLayer):
    def forward(self, x: Tensor) -> Tensor:
        posterior, kernels = self._aside[0], self.folding.kernels
        original, shape = posterior.module, posterior.shapes["weight"]
        rank = len(shape) - 2
        dilation = each(getattr(original, "dilation", 1), rank)
        pads = _pads(getattr(original, "padding", 0), list(shape[2:]), dilation)
        options = (each(getattr(original, "stride", 1), rank), pads, dilation, getattr(original, "groups", 1))
        x = self.for_every_row(x)
        y: Tensor = self.sampled(lambda weights, shared: kernels.convolution(x, *weights, *options, shared), x)
        return y


class MonteCarloEmbedding(MonteCarloLayer):
    def forward(self, x: Tensor) -> Tensor:
        original, kernels = self._aside[0].module, self.folding.kernels
        norm = float(getattr(original, "max_norm", None) or 0), float(getattr(original, "norm_type", 2))
        if norm[0] and not 0 < norm[1] < math.inf:
            raise ExportError(f"Layer {self.layer!r} has norm_type {norm[1]}; murho exports finite ones above 0.")
        x = self.for_every_row(x)
        y: Tensor = self.sampled(lambda weights, shared: kernels.embedding(x, weights[0], *norm, shared), x)
        return y


class MonteCarloLSTM(MonteCarloLayer):
    def arranged(self, flat: Tensor) -> tuple[Tensor | None, ...]:
        """[S, 4H, F + H + 1]: the posterior, row-major, is its transpose as it stands."""
        gates = 4 * self._aside[0].width
        return (flat.reshape(-1, flat.shape[1] // gates, gates).transpose(1, 2),)

    def forward(
        self, x: Tensor, hidden_states: tuple[Tensor, Tensor] | None = None, sharpen_loss: None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        _refuse_sharpening(self.layer, sharpen_loss)
        original, folding, kernels = self._aside[0].module, self.folding, self.folding.kernels
        width, peephole = self._aside[0].width, bool(getattr(original, "peephole", False))
        if folding.streaming:
            h, c = (folding.first_state(self.layer, hidden_states, width) for _ in "hc")
        else:
            h, c = hidden_states or (_zeros(x, width), _zeros(x, width))

        def call(weights: Any, shared: bool, h_shared: bool, c_shared: bool) -> Any:
            states: tuple[Tensor, ...] = h, c
            if h_shared != c_shared:
                states = tuple(
                    repeated_per_draw(s, weights[0].shape[0]) if of else s for s, of in ((h, h_shared), (c, c_shared))
                )
            return kernels.lstm(x, *states, *weights, peephole, shared, h_shared and c_shared)

        sequence, h, c = self.sampled(call, x, h, c)
        if folding.streaming:
            folding.keep_states(h, c)
        return sequence, (h, c)


class MonteCarloGRU(MonteCarloLayer):
    def arranged(self, flat: Tensor) -> tuple[Tensor | None, ...]:
        """[S, 4H, F + H + 1]: the new gate's parts from x and from h stand apart, each with its bias."""
        parts = self._aside[0].split(flat)
        ih, hh, bias = (parts[name] for name in ("weight_ih", "weight_hh", "bias"))
        hidden = self._aside[0].width
        both, no_x, no_h = 2 * hidden, torch.zeros_like(ih[..., :1]), torch.zeros_like(hh[..., :1])
        x_part = torch.cat([ih, no_x.expand(-1, -1, hidden)], dim=2)
        h_part = torch.cat([hh[..., :both], no_h.expand(-1, -1, hidden), hh[..., both:]], dim=2)
        return (torch.cat([x_part, h_part, bias.unsqueeze(1)], dim=1).transpose(1, 2),)

    def forward(
        self, x: Tensor, hidden_states: Tensor | None = None, sharpen_loss: None = None
    ) -> tuple[Tensor, Tensor]:
        _refuse_sharpening(self.layer, sharpen_loss)
        folding, kernels, width = self.folding, self.folding.kernels, self._aside[0].width
        if folding.streaming:
            h = folding.first_state(self.layer, hidden_states, width)
        else:
            h = _zeros(x, width) if hidden_states is None else hidden_states
        sequence, h = self.sampled(lambda weights, *shared: kernels.gru(x, h, *weights, *shared), x, h)
        if folding.streaming:
            folding.keep_states(h)
        return sequence, h


class MonteCarloRegistered(MonteCarloLayer):
    """A layer of the user's own: its registered function of the weights, for all draws."""

    def arranged(self, flat: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(self._aside[0].split(flat).values())

    def forward(self, *inputs: Tensor) -> Tensor:
        posterior = self._aside[0]
        forward = posterior.kind.forward
        assert forward is not None

        def call(weights: tuple[Tensor, ...], *shared: bool) -> Tensor:
            count = weights[0].shape[0]
            unfolded = (
                x.reshape(1 if same else count, -1, *x.shape[1:]) for x, same in zip(inputs, shared, strict=True)
            )
            y = forward(posterior.module, dict(zip(posterior.shapes, weights, strict=True)), *unfolded)
            wrong = self.folding.trial and (not isinstance(y, Tensor) or y.dim() < 2 or y.shape[0] != count)
            if wrong:  # looked at in the trial run only: a tracer would follow the comparison of sizes
                got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
                raise ExportError(
                    f"The function registered for {posterior.kind.name} must return a tensor [S, B, …] with S = "
                    f"{count} draws, but returned {got}. Mend it."
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
        raise ExportError(
            f"Layer {layer!r} is called with sharpen_loss, which makes its weights depend on a loss. Leave it out of "
            "the call: sharpening belongs to training."
        )


def _zeros(x: Tensor, hidden: int) -> Tensor:
    return x.new_zeros(x.shape[0], hidden)


def repeated_per_draw(shared: Tensor, count: int) -> Tensor:
    """[B, …] -> [S·B, …], the same for every one of S = `count` draws."""
    return shared.unsqueeze(0).expand(count, *shared.shape).reshape(-1, *shared.shape[1:])


def each(value: int | Sequence[int], rank: int) -> list[int]:
    """torch takes one number for all axes, or one each."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _pads(padding: int | str | Sequence[int], kernel: list[int], dilation: list[int]) -> list[int]:
    """The begin of each axis, then the end of each. torch's "same" puts an odd row at the end."""
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [t // 2 for t in total] + [t - t // 2 for t in total]
    sides = [0] * len(kernel) if padding == "valid" else each(padding, len(kernel))  # type: ignore[arg-type]
    return sides * 2
