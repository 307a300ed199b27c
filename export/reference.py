"""BLiTZ itself as the reference: its own layers and forward pass, draw by draw, with the noise put in or left free."""

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..runtime.compare import raw_units
from ..runtime.contract import NOISE_STREAM, SMALLEST_SCALE, Noise
from .generator import normals
from .kinds import flipped
from .modes import evaluating
from .montecarlo import Plan, outputs_of, unfused_attention
from .posterior import Posterior, lacks_bias, placed_back
from .precision import in_precision
from .samplers import OVERFLOW, is_blitz, samplers_of

_COMPLEXITY = ("log_prior", "log_variational_posterior")

Floats = NDArray[np.float64]
# ε of one draw and stream (a site's number, or NOISE_STREAM): (draw, stream, n) -> [n]
Epsilon = Callable[[int, int, int], NDArray[np.floating[Any]]]
Samples = dict[str, Floats]
Within = AbstractContextManager[Any]
_AS_IT_IS: Within = nullcontext()


def generator_epsilon(seed: int) -> Epsilon:
    """The generator's ε under a seed, from its numpy form."""
    return lambda draw, stream, n: normals([draw], seed, stream, n)[0]


def numpy_epsilon(seed: int) -> Epsilon:
    """ε from numpy's generator, the same whenever a draw and stream come again."""
    return lambda draw, stream, n: np.random.default_rng((seed, draw, stream)).standard_normal(n)


@dataclass(frozen=True, eq=False)
class Reference:
    """BLiTZ's network, called as the artifact will be: raw inputs, and samples [S, B, …] in raw units by output."""

    network: nn.Module
    posteriors: dict[str, Posterior]
    plan: Plan

    def given(
        self,
        inputs: Sequence[Tensor],
        draws: Iterable[int],
        epsilon: Epsilon,
        observed: bool = True,
        precision: torch.dtype | None = None,
    ) -> Samples:
        """BLiTZ's samples with the given ε in place of its own; with observation noise if `observed`.

        Computed in `precision`, or else in float64 if the plan says that the forward can. Where a site samples its
        outputs in place of its weights, its layer is replaced by the formula.
        """
        plan = self.plan
        precision = precision or (torch.float64 if plan.precise else torch.float32)
        with (
            one_thread(),
            in_precision(self.network, precision) as within,
            self._epsilon_given(epsilon) as set_draw,
        ):
            passes = []
            for draw in draws:
                set_draw(int(draw))
                noise = unit_noise(plan.noise, plan.width, int(draw), epsilon) if plan.noise and observed else None
                passes.append(self._forward(inputs, noise, within))
        return _stacked(passes)

    def free(self, inputs: Sequence[Tensor], count: int, seed: int) -> Samples:
        """BLiTZ's samples as its users get them: one forward pass after another, ε from torch's generator.

        BLiTZ cannot sample a recurrent layer without bias, nor a ρ above 88, a frozen layer may use stale means, and a
        path needs the same weights at every step; a sampler with code of its own cannot be given a rounded σ. A network
        with any of these is run as for `given`, with ε from numpy. There is no observation noise, of which BLiTZ knows
        nothing.
        """
        awkward = (
            p.frozen or _lacks_recurrent_bias(p) or p.sigma.max() > OVERFLOW or (p.coded and not _by_blitz(p))
            for p in self.posteriors.values()
        )
        if self.plan.horizon > 1 or any(awkward):
            weights_only = Reference(self.network, self.posteriors, replace(self.plan, local=False, sites=None))
            return weights_only.given(inputs, range(count), numpy_epsilon(seed), False, torch.float32)
        with one_thread(), _as_in_prediction(self.network, self.posteriors):
            torch.manual_seed(seed)
            return _stacked([self._forward(inputs) for _ in range(count)])

    def _forward(self, inputs: Sequence[Tensor], noise: Floats | None = None, within: Within = _AS_IT_IS) -> Samples:
        """One draw's predictions, all steps of its path, with unit noise [O] if given."""
        if self.plan.horizon == 1:
            return self._step(inputs, noise, within)
        (window,) = inputs
        steps = []
        for k in range(self.plan.horizon):
            samples = self._step([window], None if noise is None else noise[k : k + 1], within)
            ((name, y),) = samples.items()
            steps.append(y)
            window = torch.cat([window[:, 1:], torch.from_numpy(y.astype(np.float32)).unsqueeze(1)], dim=1)
        return {name: np.concatenate(steps, axis=-1)}

    def _step(self, inputs: Sequence[Tensor], noise: Floats | None, within: Within) -> Samples:
        own = next((p for p in self.network.parameters() if p.is_floating_point()), inputs[0])
        x, *others = inputs

        def placed(values: Iterable[Tensor]) -> list[Tensor]:
            # Copies, since a forward may write to its inputs.
            return [v.to(own.device, own.dtype if v.is_floating_point() else v.dtype, copy=True) for v in values]

        arguments = self.plan.arguments
        with torch.no_grad(), within:
            returned = arguments.call(self.network, placed((self.scaled(x), *others)), placed(arguments.tensors))
            results = outputs_of(returned, self.plan.outputs)
        samples = {name: y.to("cpu", torch.float64).numpy() for name, y in results.items()}
        first = next(iter(samples))
        samples[first] = self.in_raw_units(samples[first], x, noise)
        return samples

    def scaled(self, x: Tensor) -> Tensor:
        """Raw inputs as the network sees them, rounded as the artifact rounds them."""
        if not x.is_floating_point():
            return x
        scaling = self.plan.scaling
        if scaling.values != "levels":
            last = x[:, -1:]
            x = (x - last) / (1 if scaling.values == "differences" else last)
        return (x - torch.tensor(scaling.input_mean)) / torch.tensor(scaling.input_scale)

    def in_raw_units(self, y: Floats, x: Tensor, noise: Floats | None = None) -> Floats:
        """Samples [..., B, …] in raw units from the network's output for the first raw input x, and unit noise [O]."""
        if self.plan.noise:
            y = with_noise(self.plan.noise, y, noise)
        if self.plan.softmax:
            y = np.exp(y - y.max(axis=-1, keepdims=True))
            y = y / y.sum(axis=-1, keepdims=True)
        scale, offset = raw_units(self.plan.scaling, x.numpy())
        raw: Floats = y * scale + offset
        return raw

    @contextmanager
    def _epsilon_given(self, epsilon: Epsilon) -> Iterator[Callable[[int], None]]:
        """Put ε into every sampler, count sites as they are passed, and undo it all at the end.

        BLiTZ still samples and computes σ (where that overflows, σ = ρ to the last bit); only the last step,
        μ + σ ⊙ ε, is taken with our ε. A frozen layer is run through its sampled forward with ε = 0, so that it uses
        the sampler's μ, which training moves, not the layer's copy.
        """
        state = {"draw": 0, "site": 0, "local": False}
        given: dict[nn.Module, Tensor] = {}
        undo: list[Callable[[], None]] = []
        records = self.plan.sites or ()

        def set_draw(draw: int) -> None:
            state["draw"] = draw

        def next_epsilon(n: int) -> Tensor:
            values = epsilon(state["draw"], state["site"], n)
            state["site"] += 1
            return torch.from_numpy(np.asarray(values))

        def enter(posterior: Posterior) -> None:
            site = state["site"]
            state["local"] = not posterior.frozen and site < len(records) and records[site].local
            if posterior.frozen or state["local"]:  # what a local site computes is replaced when it is done
                flat = torch.zeros(len(posterior.mu))
            else:
                flat = next_epsilon(len(posterior.mu))
            for tensor, sampler, values in _by_sampler(posterior, flat):
                given[sampler] = placed_back(posterior.kind, tensor, values, torch.zeros(sampler.mu.shape)).to(
                    sampler.mu
                )

        def leave(posterior: Posterior, x: Tensor, y: Tensor) -> Tensor | None:
            if not state["local"]:
                return None
            return local_linear(posterior, x, next_epsilon(y.shape[-1])).to(y)

        def replace_forward(posterior: Posterior) -> None:
            # Not by hooks: a network may call layer.forward(x) itself.
            layer = posterior.module
            original, own = layer.forward, vars(layer).get("forward")

            def forward(*inputs: Any, **named: Any) -> Any:
                enter(posterior)
                y = original(*inputs, **named)
                local = leave(posterior, (*inputs, *named.values())[0], y)
                return y if local is None else local

            layer.forward = forward
            undo.append(lambda: delattr(layer, "forward") if own is None else setattr(layer, "forward", own))

        def replace_sample(sampler: Any, spread: Tensor | None, zero: bool) -> None:
            original, own = sampler.sample, vars(sampler).get("sample")

            def sample() -> Tensor:
                original()
                sigma = sampler.sigma if spread is None else spread
                sampler.sigma = torch.where(torch.isinf(sigma), sampler.rho, sigma)
                sampler.w = sampler.mu + sampler.sigma * given[sampler]
                if zero:  # a recurrent layer without bias: BLiTZ cannot sample it, murho gives it a bias of zero
                    sampler.w = torch.zeros_like(sampler.w)
                w: Tensor = sampler.w
                return w

            sampler.sample = sample
            undo.append(lambda: delattr(sampler, "sample") if own is None else setattr(sampler, "sample", own))

        def replace_flag(layer: Any, flag: str, value: bool) -> None:
            before = getattr(layer, flag)
            setattr(layer, flag, value)
            undo.append(lambda: setattr(layer, flag, before))

        with _as_in_prediction(self.network, self.posteriors):
            try:
                start = self.network.register_forward_pre_hook(lambda *_: state.update(site=0))
                undo.append(start.remove)
                for posterior in self.posteriors.values():
                    layer = posterior.module
                    replace_forward(posterior)
                    without_bias = _lacks_recurrent_bias(posterior)
                    for tensor, sampler, sigma in _by_sampler(posterior, posterior.sigma):
                        whole = placed_back(posterior.kind, tensor, sigma, torch.zeros(sampler.mu.shape)).to(sampler.mu)
                        replace_sample(sampler, None if is_blitz(sampler) else whole, without_bias and tensor == "bias")
                    if not callable(getattr(layer, "freeze", print)):
                        replace_flag(layer, "freeze", False)
                    if without_bias and "bias" in samplers_of(layer):
                        replace_flag(layer, "use_bias", True)
                yield set_draw
            finally:
                for step in reversed(undo):
                    step()


def local_linear(posterior: Posterior, x: Tensor, epsilon: Tensor) -> Tensor:
    """A linear layer's output [B, O] for x [B, F], sampled by local reparameterisation from ε [O], in x's precision."""
    x = x.cpu()
    mu, sigma = posterior.split(posterior.mu.to(x)), posterior.split(posterior.sigma.to(x))
    mean, variance = x @ mu["weight"].T, x.square() @ sigma["weight"].square().T
    if "bias" in mu:
        mean, variance = mean + mu["bias"], variance + sigma["bias"].square()
    return mean + variance.sqrt() * epsilon.to(x)


def unit_noise(noise: Noise, width: int, draw: int, epsilon: Epsilon) -> Floats:
    """One draw's unit noise [O] in float64: standard normals, or Student-t numbers made of them."""
    z = np.asarray(epsilon(draw, NOISE_STREAM, width * (noise.degrees + 1)), np.float64).reshape(-1, width)
    unit: Floats = z[0] / np.sqrt(np.square(z[1:]).mean(axis=0)) if noise.degrees else z[0]
    return unit


def with_noise(noise: Noise, y: Floats, unit: Floats | None) -> Floats:
    """Predictions [..., O] from a network's output [..., O], or [..., 2·O] where it says the scale, plus unit noise."""
    scale = np.asarray(noise.scale)
    if noise.learned:
        y, r = np.split(y, 2, axis=-1)
        scale = np.logaddexp(0, r) + SMALLEST_SCALE
    return y if unit is None else y + scale * unit


def _lacks_recurrent_bias(posterior: Posterior) -> bool:
    return posterior.kind.recurrent and lacks_bias(posterior.module, posterior.kind)


def _by_sampler(posterior: Posterior, flat: Tensor) -> list[tuple[str, Any, Tensor]]:
    """(tensor, its sampler, its part of a vector [n]) of each tensor with a sampler: a bias of zeros may have none."""
    samplers = samplers_of(posterior.module)
    parts = posterior.split(flat).items()
    return [(tensor, samplers[tensor], part) for tensor, part in parts if tensor in samplers]


def _by_blitz(posterior: Posterior) -> bool:
    return all(is_blitz(sampler) for sampler in samplers_of(posterior.module).values())


def _stacked(passes: list[Samples]) -> Samples:
    return {name: np.stack([samples[name] for samples in passes]) for name in passes[0]}


@contextmanager
def _as_in_prediction(network: nn.Module, posteriors: dict[str, Posterior]) -> Iterator[None]:
    with (
        evaluating(network),
        forgetting(network),
        unfused_attention(),
        _plain(posteriors),
        _without_complexity(posteriors),
        _rounded(posteriors),
        torch.random.fork_rng(devices=[]),
    ):
        yield


@contextmanager
def _rounded(posteriors: dict[str, Posterior]) -> Iterator[None]:
    """Give BLiTZ's samplers the μ and σ that the file has, where it keeps them rounded."""
    kept: list[tuple[Tensor, Tensor]] = []

    def give(parameter: Tensor, posterior: Posterior, tensor: str, values: Tensor) -> None:
        kept.append((parameter, parameter.data))
        # Another tensor, since BLiTZ's copy of the parameter shares the old one.
        parameter.data = placed_back(posterior.kind, tensor, values.to(parameter), parameter.data)

    try:
        for posterior in posteriors.values():
            if posterior.coded is None:
                continue
            sigma = posterior.sigma.double()
            rho = sigma + torch.log(-torch.expm1(-sigma))  # the inverse of softplus
            for tensor, sampler, values in _by_sampler(posterior, posterior.mu):
                give(sampler.mu, posterior, tensor, values)
                give(sampler.rho, posterior, tensor, posterior.split(rho)[tensor])
        yield
    finally:
        for parameter, data in reversed(kept):
            parameter.data = data


@contextmanager
def _without_complexity(posteriors: dict[str, Posterior]) -> Iterator[None]:
    """Leave out the densities that BLiTZ computes for its loss with every sample: half of its time, never looked at."""
    layers = [posterior.module for posterior in posteriors.values()]
    silenced = [
        (part, name)
        for layer in layers
        for part in layer.modules()
        for name in ("log_posterior", "log_prior")
        if callable(getattr(part, name, None)) and name not in vars(part)
    ]
    kept = [(layer, name, getattr(layer, name, None)) for layer in layers for name in _COMPLEXITY]
    for part, name in silenced:
        setattr(part, name, lambda *_, **__: torch.zeros(()))
    try:
        yield
    finally:
        for part, name in silenced:
            delattr(part, name)
        for layer, name, value in kept:
            if hasattr(layer, name):
                setattr(layer, name, value)


@contextmanager
def _plain(posteriors: dict[str, Posterior]) -> Iterator[None]:
    """Run every layer by the forward pass of its kind: not by that of a Flipout around it."""
    wrapped = [(p.module, cls) for p in posteriors.values() if (cls := flipped(p.module)) is not None]
    for layer, cls in wrapped:
        layer.forward = types.MethodType(cls.forward, layer)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for layer, _ in wrapped:
            del layer.forward


@contextmanager
def forgetting(network: nn.Module) -> Iterator[None]:
    """Give the user's modules back the attributes and buffers that their forward replaces."""
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in network.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: BLiTZ's operations are too small to share, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
