"""Observation noise in training: the likelihood of a network that says its own, the residuals of one that does not."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats
from torch import Tensor, nn

from ..data.dataset import Dataset, standardise, with_validation
from ..runtime.contract import SMALLEST_SCALE, Noise
from ..runtime.errors import InputError
from .elbo import predict

SAMPLES = 64  # weight samples for the residuals


def negative_log_likelihood(noise: Noise) -> Callable[[Tensor, Tensor], Tensor]:
    """Criterion for outputs [B, 2·O], predictions and then scales as `Noise` says, and truth [B, O].

    Mean over the rows of the sum over the values, in nats, so that the complexity weighs as in the ELBO.
    """
    nu = noise.degrees
    constant = 0.5 * math.log(2 * math.pi)
    if nu:
        constant = math.lgamma(nu / 2) - math.lgamma((nu + 1) / 2) + 0.5 * math.log(nu * math.pi)

    def criterion(output: Tensor, truth: Tensor) -> Tensor:
        mean, r = torch.chunk(output, 2, dim=-1)
        scale = nn.functional.softplus(r) + SMALLEST_SCALE
        squares = torch.square((truth - mean) / scale)
        off = (nu + 1) / 2 * torch.log1p(squares / nu) if nu else squares / 2
        return (off + torch.log(scale) + constant).sum(dim=-1).mean()

    return criterion


def residual_noise(
    network: nn.Module, data: Dataset, distribution: str = "gaussian", degrees: int = 0, seed: int = 0
) -> Noise:
    """Constant noise for each value that a trained network predicts, from its residuals on the validation examples.

    Those are the last 15 % of the training part, which `fit` kept out. A residual is the truth minus the mean of 64
    sampled predictions; how unsure the weights are is in it too, so their variance is taken off: of the mean square for
    a Gaussian, and in proportion from the scale of greatest likelihood for a Student-t with so many `degrees`.

    Raises InputError for a network whose output is not [B, O], for O values.
    """
    Noise(distribution, degrees)  # checks them
    x, y = standardise(with_validation(data)[1], data.scaling)
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        rows = torch.from_numpy(x).to(device)
        samples = np.stack([predict(network.eval(), rows).double().cpu().numpy() for _ in range(SAMPLES)])
    if samples.shape[1:] != y.shape:
        raise InputError(f"The network gives shape {samples.shape[1:]} for truth of {y.shape}. Build it for that.")
    residuals = y - samples.mean(axis=0)
    total = np.square(residuals).mean(axis=0)
    own = np.clip(1 - samples.var(axis=0, ddof=1).mean(axis=0) * (1 + 1 / SAMPLES) / total, 0.01, 1)
    scale = np.sqrt(total)
    if degrees:
        scale = np.array([_student_scale(column, degrees) for column in residuals.T])
    return Noise(distribution, degrees, tuple((scale * np.sqrt(own)).astype(np.float32).tolist()))


def _student_scale(residuals: NDArray[np.float64], degrees: int) -> float:
    """The scale of greatest likelihood for residuals around 0."""
    size = float(np.sqrt(np.square(residuals).mean()))

    def loss(log_scale: float) -> float:
        return -float(stats.t.logpdf(residuals, degrees, scale=size * math.exp(log_scale)).sum())

    return size * math.exp(float(optimize.minimize_scalar(loss, bounds=(-7, 1), method="bounded").x))
