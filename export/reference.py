"""BLiTZ itself as the reference: its own layers and forward pass, draw by draw, with the noise put in or left free."""

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from blitz.modules.weight_sampler import PriorWeightDistribution, TrainableRandomDistribution
from numpy.typing import NDArray
from torch import Tensor, nn

from .generator import normals
from .montecarlo import Plan, call, outputs_of
from .posterior import RECURRENT, Posterior, lacks_bias, placed_back

OVERFLOW = 88.0  # above it BLiTZ's log1p(exp(ρ)) is infinite
_COMPLEXITY = ("log_prior", "log_variational_posterior")

# ε of one site and draw: (draw, site, n) -> [n]
Noise = Callable[[int, int, int], NDArray[np.floating[Any]]]
Samples = dict[str, NDArray[np.float64]]


def generator_noise(seed: int) -> Noise:
    """The generator's ε under a seed, from its numpy form."""
    return lambda draw, site, n: normals([draw], seed, site, n)[0]


@dataclass(frozen=True, eq=False)
class Reference:
    """BLiTZ's network, called as the artifact will be: raw inputs, and samples [S, B, …] in raw units by output."""

    network: nn.Module
    posteriors: dict[str, Posterior]
    plan: Plan

    def given(self, inputs: Sequence[Tensor], draws: Iterable[int], noise: Noise) -> Samples:
        """BLiTZ's samples with the given ε in place of its own.

        Where a site samples its outputs in place of its weights, its layer is replaced by the formula in float64.
        """
        with one_thread(), self._noise_given(noise) as set_draw:
            passes = []
            for draw in draws:
                set_draw(int(draw))
                passes.append(self._forward(inputs))
        return _stacked(passes)

    def free(self, inputs: Sequence[Tensor], count: int, seed: int) -> Samples:
        """BLiTZ's samples as its users get them: one forward pass after another, ε from torch's generator.

        BLiTZ cannot sample a recurrent layer without bias, nor a ρ above 88, and a frozen layer may use stale means. A
        network with any of these is run as for `given`, with ε from numpy.
        """
        if any(p.frozen or _lacks_recurrent_bias(p) or p.sigma.max() > OVERFLOW for p in self.posteriors.values()):
            generator = np.random.default_rng(seed)
            weights_only = Reference(self.network, self.posteriors, _without_sites(self.plan))
            return weights_only.given(inputs, range(count), lambda _draw, _site, n: generator.standard_normal(n))
        with one_thread(), _as_in_prediction(self.network, self.posteriors):
            torch.manual_seed(seed)
            return _stacked([self._forward(inputs) for _ in range(count)])

    def _forward(self, inputs: Sequence[Tensor]) -> Samples:
        own = next((p for p in self.network.parameters() if p.is_floating_point()), inputs[0])
        x, *others = inputs
        placed = [v.to(own.device, own.dtype if v.is_floating_point() else v.dtype) for v in (self.scaled(x), *others)]
        with torch.no_grad():
            results = outputs_of(call(self.network, placed, self.plan.keywords), self.plan.outputs)
        samples = {name: y.to("cpu", torch.float64).numpy() for name, y in results.items()}
        first = next(iter(samples))
        samples[first] = self.in_raw_units(samples[first], x)
        return samples

    def scaled(self, x: Tensor) -> Tensor:
        """Raw inputs as the network sees them, rounded as the artifact rounds them."""
        if not x.is_floating_point():
            return x
        scaling = self.plan.scaling
        if scaling.relative:
            x = x - x[:, -1:]
        return (x - torch.tensor(scaling.input_mean)) / torch.tensor(scaling.input_scale)

    def in_raw_units(self, y: NDArray[np.float64], x: Tensor) -> NDArray[np.float64]:
        """The network's output [..., B, …] for the first raw input x, in raw units."""
        scaling = self.plan.scaling
        if self.plan.softmax:
            y = np.exp(y - y.max(axis=-1, keepdims=True))
            y = y / y.sum(axis=-1, keepdims=True)
        raw: NDArray[np.float64] = y * np.asarray(scaling.output_scale) + np.asarray(scaling.output_mean)
        return raw + x[:, -1, :1].double().numpy() if scaling.relative else raw

    @contextmanager
    def _noise_given(self, noise: Noise) -> Iterator[Callable[[int], None]]:
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
            state.update(draw=draw, site=0)

        def next_noise(n: int) -> Tensor:
            epsilon = noise(state["draw"], state["site"], n)
            state["site"] += 1
            return torch.from_numpy(np.asarray(epsilon, np.float32))

        def enter(posterior: Posterior) -> None:
            site = state["site"]
            state["local"] = not posterior.frozen and site < len(records) and records[site].local
            if posterior.frozen or state["local"]:  # what a local site computes is replaced when it is done
                epsilon = torch.zeros(len(posterior.mu))
            else:
                epsilon = next_noise(len(posterior.mu))
            for tensor, values in posterior.split(epsilon).items():
                sampler = getattr(posterior.module, f"{tensor}_sampler")
                given[sampler] = placed_back(posterior.module, tensor, values, torch.zeros(sampler.mu.shape)).to(
                    sampler.mu
                )

        def leave(posterior: Posterior, x: Tensor, y: Tensor) -> Tensor | None:
            if not state["local"]:
                return None
            return local_linear(posterior, x, next_noise(y.shape[-1])).to(y)

        def replace_sample(sampler: Any, zero: bool) -> None:
            original = sampler.sample

            def sample() -> Tensor:
                original()
                sampler.sigma = torch.where(torch.isinf(sampler.sigma), sampler.rho, sampler.sigma)
                sampler.w = sampler.mu + sampler.sigma * given[sampler]
                if zero:  # a recurrent layer without bias: BLiTZ cannot sample it, murho gives it a bias of zero
                    sampler.w = torch.zeros_like(sampler.w)
                w: Tensor = sampler.w
                return w

            sampler.sample = sample
            undo.append(lambda: delattr(sampler, "sample"))

        def replace_flag(layer: Any, flag: str, value: bool) -> None:
            before = getattr(layer, flag)
            setattr(layer, flag, value)
            undo.append(lambda: setattr(layer, flag, before))

        with _as_in_prediction(self.network, self.posteriors):
            try:
                for posterior in self.posteriors.values():
                    layer = posterior.module
                    handles = (
                        layer.register_forward_pre_hook(lambda _m, _x, posterior=posterior: enter(posterior)),
                        layer.register_forward_hook(lambda _m, x, y, posterior=posterior: leave(posterior, x[0], y)),
                    )
                    undo += [handle.remove for handle in handles]
                    without_bias = _lacks_recurrent_bias(posterior)
                    for tensor in posterior.shapes:
                        replace_sample(getattr(layer, f"{tensor}_sampler"), without_bias and tensor == "bias")
                    if hasattr(layer, "freeze"):
                        replace_flag(layer, "freeze", False)
                    if without_bias:
                        replace_flag(layer, "use_bias", True)
                yield set_draw
            finally:
                for step in reversed(undo):
                    step()


def local_linear(posterior: Posterior, x: Tensor, epsilon: Tensor) -> Tensor:
    """A linear layer's output [B, O] for x [B, F], sampled by local reparameterisation from ε [O], in float64."""
    mu, sigma = posterior.split(posterior.mu.double()), posterior.split(posterior.sigma.double())
    x = x.double().cpu()
    mean, variance = x @ mu["weight"].T, x.square() @ sigma["weight"].square().T
    if "bias" in mu:
        mean, variance = mean + mu["bias"], variance + sigma["bias"].square()
    return mean + variance.sqrt() * epsilon


def _without_sites(plan: Plan) -> Plan:
    return Plan(plan.scaling, keywords=plan.keywords, outputs=plan.outputs, softmax=plan.softmax)


def _lacks_recurrent_bias(posterior: Posterior) -> bool:
    return isinstance(posterior.module, RECURRENT) and lacks_bias(posterior.module)


def _stacked(passes: list[Samples]) -> Samples:
    return {name: np.stack([samples[name] for samples in passes]) for name in passes[0]}


@contextmanager
def _as_in_prediction(network: nn.Module, posteriors: dict[str, Posterior]) -> Iterator[None]:
    with _evaluating(network), _plain(posteriors), _without_complexity(posteriors), torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def _without_complexity(posteriors: dict[str, Posterior]) -> Iterator[None]:
    """Leave out the densities that BLiTZ computes for its loss with every sample: half of its time, never looked at."""
    layers = [posterior.module for posterior in posteriors.values()]
    densities = {TrainableRandomDistribution: "log_posterior", PriorWeightDistribution: "log_prior"}
    silenced = [
        (part, name)
        for layer in layers
        for part in layer.modules()
        for cls, name in densities.items()
        if type(part) is cls
    ]
    kept = [(layer, name, getattr(layer, name, None)) for layer in layers for name in _COMPLEXITY]
    for part, name in silenced:
        setattr(part, name, lambda w=None: 0.0)
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
    wrapped = [p for p in posteriors.values() if type(p.module) is not p.kind.cls]
    for posterior in wrapped:
        posterior.module.forward = types.MethodType(posterior.kind.cls.forward, posterior.module)
    try:
        yield
    finally:
        for posterior in wrapped:
            del posterior.module.forward


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: BLiTZ's operations are too small to share, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
