"""BLiTZ itself as the reference: its own layers and forward pass, draw by draw, with the noise put in or left free."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from blitz.modules import BayesianLinear
from numpy.typing import NDArray
from torch import Tensor, nn

from .generator import normals
from .montecarlo import first_output
from .posterior import Posterior, bayesian_layers, has_bias, placed_back, read_posterior, tensor_names

# ε of one site and draw: (draw, site, n) -> [n]
Noise = Callable[[int, int, int], NDArray[np.floating[Any]]]


def generator_noise(seed: int) -> Noise:
    """The generator's ε under a seed, from its numpy form."""
    return lambda draw, site, n: normals([draw], seed, site, n)[0]


def given_samples(
    network: nn.Module, posteriors: dict[str, Posterior], x: Tensor, draws: Iterable[int], noise: Noise
) -> NDArray[np.float64]:
    """BLiTZ's predictions [S, B, …] of scaled inputs x, with the given ε in place of its own."""
    with _noise_given(network, posteriors, noise) as set_draw:
        results = []
        for draw in draws:
            set_draw(int(draw))
            results.append(_forward(network, x))
    return np.stack(results)


def free_samples(network: nn.Module, x: Tensor, count: int, seed: int) -> NDArray[np.float64]:
    """BLiTZ's predictions [S, B, …] as its users get them: one forward pass after another, ε from torch's generator.

    BLiTZ cannot sample a recurrent layer without bias, and a frozen layer may use stale means. A network with either is
    run as for `given_samples`, with ε from numpy.
    """
    layers = bayesian_layers(network)
    if any(layer.freeze or _lacks_bias(layer) for layer in layers.values()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of untied copies the caller has warned
            posteriors = {name: read_posterior(name, layer) for name, layer in layers.items()}
        generator = np.random.default_rng(seed)
        return given_samples(network, posteriors, x, range(count), lambda _draw, _site, n: generator.standard_normal(n))
    with _evaluating(network), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return np.stack([_forward(network, x) for _ in range(count)])


def _lacks_bias(layer: nn.Module) -> bool:
    return not isinstance(layer, BayesianLinear) and not has_bias(layer)


def _forward(network: nn.Module, x: Tensor) -> NDArray[np.float64]:
    own = next((p for p in network.parameters() if p.is_floating_point()), x)
    with torch.no_grad():
        result = first_output(network(x.to(own.device, own.dtype if x.is_floating_point() else x.dtype)))
    return result.to("cpu", torch.float64).numpy()


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
def _noise_given(network: nn.Module, posteriors: dict[str, Posterior], noise: Noise) -> Iterator[Callable[[int], None]]:
    """Put ε into every sampler, count sites as they are passed, and undo it all at the end.

    BLiTZ still samples and computes σ; only the last step, μ + σ ⊙ ε, is taken with our ε. A frozen layer is run
    through its sampled forward with ε = 0, so that it uses the sampler's μ, which training moves, not the
    layer's copy.
    """
    layers = bayesian_layers(network)
    state = {"draw": 0, "site": 0}
    given: dict[nn.Module, Tensor] = {}
    undo: list[Callable[[], None]] = []

    def set_draw(draw: int) -> None:
        state.update(draw=draw, site=0)

    def enter(name: str, layer: Any, frozen: bool) -> None:
        posterior = posteriors[name]
        if frozen:
            epsilon = torch.zeros(len(posterior.mu))
        else:
            epsilon = torch.from_numpy(np.asarray(noise(state["draw"], state["site"], len(posterior.mu)), np.float32))
            state["site"] += 1
        for tensor, values in posterior.split(epsilon).items():
            sampler = getattr(layer, f"{tensor}_sampler")
            given[sampler] = placed_back(layer, tensor, values, torch.zeros(sampler.mu.shape)).to(sampler.mu)

    def replace_sample(sampler: Any, zero: bool) -> None:
        original = sampler.sample

        def sample() -> Tensor:
            original()
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

    with _evaluating(network), torch.random.fork_rng(devices=[]):
        try:
            for name, layer in layers.items():
                handle = layer.register_forward_pre_hook(
                    lambda layer, _, name=name, frozen=bool(layer.freeze): enter(name, layer, frozen)
                )
                undo.append(handle.remove)
                without_bias = _lacks_bias(layer)
                for tensor in tensor_names(layer):
                    replace_sample(getattr(layer, f"{tensor}_sampler"), without_bias and tensor == "bias")
                replace_flag(layer, "freeze", False)
                if without_bias:
                    replace_flag(layer, "use_bias", True)
            yield set_draw
        finally:
            for step in reversed(undo):
                step()
