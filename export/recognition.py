"""Which layers of a network are Bayesian, and of which kind: by their class, or by what they hold and compute."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from blitz.modules import BayesianEmbedding, BayesianGRU, BayesianLinear, BayesianLSTM
from torch import Tensor, nn

from ..runtime.compare import NETWORK_UNITS, relative_error
from ..runtime.contract import Scaling
from ..runtime.errors import ExportError, InputError
from .arguments import by_place
from .kinds import Kind, candidates, is_layer
from .layers import each
from .montecarlo import PLAIN, MonteCarloNetwork, Plan, trial_run
from .posterior import Posterior, read, rounded
from .reference import Reference, generator_epsilon
from .refusals import raise_all
from .registration import registration
from .samplers import samplers_of
from .signature import Input
from .unregistered import unregistered

_DRAWS = 3
_SEED = 20240229


def read_posteriors(network: nn.Module, flipout: str = "refuse", storage: str = "float32") -> dict[str, Posterior]:
    """The posterior of each Bayesian layer by dotted name, as a file of this storage has it.

    Raises ExportError for layers that cannot be exported, InputError for something that is no network.
    """
    found, refused = read_layers(network, flipout, storage)
    raise_all(refused.values())
    return found


def read_layers(network: nn.Module, flipout: str, storage: str) -> tuple[dict[str, Posterior], dict[str, ExportError]]:
    """As `read_posteriors`, of each layer that can be exported; and why any other cannot be.

    Raises ExportError, with these reasons too, where torch does not know of a layer.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"network must be a torch module with BLiTZ layers, not {type(network).__name__}.")
    found, refused = {}, {}
    for name, module in network.named_modules():
        if is_layer(module):
            try:
                posterior = _recognised(name, module, flipout)
                found[name] = posterior if storage == "float32" else rounded(posterior)
            except ExportError as error:
                refused[name] = error
    hidden = unregistered(network)
    if hidden:  # what they compute is part of no network that could be looked at further
        raise_all([*hidden, *refused.values()])
    return found, refused


def _recognised(name: str, layer: Any, flipout: str) -> Posterior:
    """The posterior of a layer, taken for the kind that computes what it does."""
    inner = [part for part, module in layer.named_modules() if module is not layer and is_layer(module)]
    if inner:
        where = f"Layer {name!r}" if name else "The network"
        raise ExportError(
            f"{where} draws weights itself ({', '.join(samplers_of(layer))}) and "
            f"has Bayesian layers inside it ({', '.join(inner)}). Put what it draws, and what it computes with that, "
            "into a layer of its own."
        )
    kinds = candidates(name, layer, flipout)
    differs = "" if kinds else "No layer of BLiTZ's draws such tensors."
    drawn: Counter[str] = Counter()
    for kind in kinds:
        posterior = read(name, layer, kind)
        certain = kind.forward is not None or (type(layer) is kind.cls and "forward" not in vars(layer))
        found = "" if certain else _difference(posterior, drawn)
        if not found:
            return posterior
        differs = differs or found
    raise ExportError(
        f"Layer {name!r} is a {type(layer).__name__}, which murho does not know. {differs} Teach it to murho by these "
        f"lines, completed and run before the export:\n\n{registration(layer, drawn)}\n"
    )


def _difference(posterior: Posterior, drawn: Counter[str]) -> str:
    """What a layer does otherwise than one of its kind, in words; nothing where it does the same.

    `drawn` counts what it is seen to draw, by tensor.

    Both run alone, on the same numbers with the same weights. That its first call agrees is no proof for all that its
    network may ask of it: the export's own proof is.
    """
    posterior = replace(posterior, frozen=False)
    network = _Alone(posterior.module)
    name = posterior.kind.name
    times = dict.fromkeys(posterior.shapes, _DRAWS)
    for inputs in _inputs(posterior):
        sampled: Counter[str] = Counter()
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        outputs = ("output", "h", "c")[: _outputs(posterior.kind)]
        plan = Plan(Scaling(), arguments=by_place(len(inputs)), outputs=outputs)
        draws = list(range(_DRAWS))
        try:
            with torch.no_grad(), _counted(posterior.module, sampled):
                reference = Reference(network, {"layer": posterior}, plan)
                theirs = reference.given(inputs, draws, generator_epsilon(_SEED), observed=False)
            drawn.update(sampled)
        except Exception as failure:  # whatever the user's forward raises
            return f"Given {shapes}, as {name} takes it, it fails ({type(failure).__name__}: {failure})."
        odd = [tensor for tensor in samplers_of(posterior.module) if sampled[tensor] != times.get(tensor, 0)]
        if odd:
            return (
                f"In evaluation mode it calls {odd[0]}_sampler.sample() {sampled[odd[0]] // _DRAWS} times in a forward "
                f"pass, {name} once."
            )
        signature = [Input(f"x{k}", x) for k, x in enumerate(inputs)]
        plan = trial_run(network, {"layer": posterior}, plan, signature)
        folded = MonteCarloNetwork(network, {"layer": posterior}, plan, PLAIN)
        with torch.no_grad():
            ours = folded.all_samples(*inputs, torch.tensor(draws), torch.tensor(_SEED))
        for got, want in zip(ours, theirs.values(), strict=True):
            error, allowed = relative_error(got.numpy(), want, *NETWORK_UNITS)
            if got.shape != want.shape or error > allowed:
                return f"With the same weights it computes something else than {name}."
    return ""


class _Alone(nn.Module):
    """A network of one layer, whose states are further inputs."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *states: Tensor) -> Any:
        if not states:
            return self.layer(x)
        return self.layer(x, states if len(states) > 1 else states[0])


def _outputs(kind: Kind) -> int:
    return {BayesianLSTM: 3, BayesianGRU: 2}.get(kind.cls, 1)


def _inputs(posterior: Posterior) -> Iterator[tuple[Tensor, ...]]:
    """Inputs [rows, …] for a layer of this kind and size, and the same with states if it takes any."""
    layer, kind, shapes = posterior.module, posterior.kind, posterior.shapes
    generator = torch.Generator().manual_seed(_SEED)
    rows = 4

    def normal(*sizes: int) -> Tensor:
        return torch.randn(rows, *sizes, generator=generator)

    if kind.cls is BayesianEmbedding:
        tokens = torch.randint(shapes["weight"][0], (rows, 5), generator=generator)
        padding = getattr(layer, "padding_idx", None)
        tokens[0, 0] = 0 if padding is None else padding
        yield (tokens,)
    elif kind.cls is BayesianLinear:
        yield (normal(shapes["weight"][1]),)
    elif kind.recurrent:
        x, width = normal(4, shapes["weight_ih"][0]), posterior.width
        yield (x,)
        yield (x, *(normal(width) for _ in range(_outputs(kind) - 1)))
    else:
        _, channels, *kernel = shapes["weight"]
        dilation, stride = (each(getattr(layer, name, 1), len(kernel)) for name in ("dilation", "stride"))
        sizes = (d * (k - 1) + 2 * s + 1 for k, d, s in zip(kernel, dilation, stride, strict=True))
        yield (normal(channels * getattr(layer, "groups", 1), *sizes),)


@contextmanager
def _counted(layer: Any, counts: Counter[str]) -> Iterator[None]:
    """Count by tensor how often each sampler is asked for weights."""
    samplers = samplers_of(layer)
    before = {tensor: vars(sampler).get("sample") for tensor, sampler in samplers.items()}

    def counting(tensor: str, sample: Callable[[], Any]) -> Callable[[], Any]:
        def counted() -> Any:
            counts[tensor] += 1
            return sample()

        return counted

    for tensor, sampler in samplers.items():
        sampler.sample = counting(tensor, sampler.sample)
    try:
        yield
    finally:
        for tensor, sampler in samplers.items():
            if before[tensor] is None:
                del sampler.sample
            else:
                sampler.sample = before[tensor]
