"""The loss of Bayes by Backprop, likelihood + KL · weight, and its gradient over several weight samples."""

from collections.abc import Callable
from typing import Any

import torch
from blitz.modules.base_bayesian_module import BayesianModule
from torch import nn

Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def sampled_layers(network: nn.Module) -> list[Any]:
    """BLiTZ's layers in the network, and those written like them, that are not frozen."""
    return [layer for layer in network.modules() if _has_cost(layer) and not _is_frozen(layer)]


def _has_cost(module: Any) -> bool:
    """Whether it leaves its two densities with every sample, as BLiTZ's layers do and copies of their classes."""
    blitz = isinstance(module, BayesianModule) and hasattr(module, "freeze")
    return blitz or all(hasattr(module, name) for name in ("log_variational_posterior", "log_prior"))


def _is_frozen(layer: Any) -> bool:
    flag = getattr(layer, "freeze", False)
    return not callable(flag) and bool(flag)


def predict(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """One sampled forward pass; of an (output, state) pair the output."""
    output = network(x)
    prediction: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return prediction


def elbo_backward(
    network: nn.Module, x: torch.Tensor, y: torch.Tensor, criterion: Criterion, samples: int, complexity_weight: float
) -> tuple[float, float]:
    """Add the gradient of (1/K) Σ_k [criterion(network_k(x), y) + KL_k · complexity_weight] to the parameters' `.grad`.

    K = `samples`; KL_k = log q(w_k) - log p(w_k) at the sampled weights (Blundell et al. 2015, equation 2). Returns the
    two parts of that loss, the likelihood's and the complexity's, as floats.

    The loss is the one of BLiTZ's `sample_elbo`, its gradient is not: BLiTZ overwrites ε in place with every sample, so
    one backward pass after K of them uses the last ε for all, and the part of σ's gradient that comes through the
    weights shrinks to a K-th. Here each sample has its backward pass before the next one is drawn.
    """
    likelihood = complexity = 0.0
    layers = sampled_layers(network)
    for _ in range(samples):
        for layer in layers:  # a layer that this pass leaves out must not bring the KL of an earlier one
            layer.log_variational_posterior = layer.log_prior = torch.zeros((), device=x.device)
        fit = criterion(predict(network, x), y)
        divergence = torch.stack([layer.log_variational_posterior - layer.log_prior for layer in layers]).sum()
        loss = (fit + divergence * complexity_weight) / samples
        loss.backward()  # type: ignore[no-untyped-call]
        likelihood += fit.item() / samples
        complexity += divergence.item() * complexity_weight / samples
    return likelihood, complexity


def sampled_loss(
    network: nn.Module, x: torch.Tensor, y: torch.Tensor, criterion: Criterion, samples: int, batch_size: int
) -> float:
    """Mean of the criterion over `samples` weight samples for each batch of rows, without gradient."""
    total = 0.0
    with torch.no_grad():
        for _ in range(samples):
            for rows, wanted in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
                total += criterion(predict(network, rows), wanted).item() * len(rows)
    return total / (samples * len(x))
