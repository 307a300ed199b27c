"""Observation noise in training: the likelihood of a network that says its own, the residuals of one that does not."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from torch import Tensor, nn

from ..data.dataset import Dataset, Part, standardise, with_validation
from ..runtime import checks
from ..runtime.contract import SMALLEST_SCALE, Noise, Scaling
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
    network: nn.Module,
    data: Dataset | tuple[ArrayLike, ArrayLike],
    distribution: str = "gaussian",
    degrees: int = 0,
    seed: int = 0,
    *,
    scaling: Scaling | None = None,
) -> Noise:
    """Constant noise for each value that a trained network predicts, from its residuals on rows it was not trained on.

    Of a `Dataset` those are the validation examples, the last 15 % of the training part, which `fit` kept out. Else
    `data` are such rows, x [N, …] and y [N, O], in raw units with the `scaling` that the export gets, or without one in
    the network's units. A residual is the truth minus the mean of 64 sampled predictions; how unsure the weights are is
    in it too, so their variance is taken off: of the mean square for a Gaussian, and in proportion from the scale of
    greatest likelihood for a Student-t with so many `degrees`. The network is not changed.

    Raises InputError for a network whose output is not [B, O], for O values, and for rows that do not fit it.
    """
    checks.instance("network", network, nn.Module)
    seed = checks.whole("seed", seed, 0, 2**63 - 1)
    Noise(distribution, degrees)  # checks them
    if scaling is not None:
        checks.instance("scaling", scaling, Scaling)
    if isinstance(data, Dataset):
        if scaling is not None:
            raise InputError("A Dataset has a scaling of its own. Leave scaling out.")
        x, y = standardise(with_validation(data)[1], data.scaling)
    else:
        x, y = standardise(_rows(data), scaling or Scaling())
    samples = _sampled(network, x, seed)
    if samples.shape[1:] != y.shape:
        raise InputError(f"The network gives shape {samples.shape[1:]} for truth of {y.shape}. Build it for that.")
    residuals = y - samples.mean(axis=0)
    total = np.square(residuals).mean(axis=0)
    if not (np.isfinite(total) & (total > 0)).all():
        raise InputError("The network's residuals are zero or not finite, so they tell no noise. Give more rows.")
    own = np.clip(1 - samples.var(axis=0, ddof=1).mean(axis=0) * (1 + 1 / SAMPLES) / total, 0.01, 1)
    scale = np.sqrt(total)
    if degrees:
        scale = np.array([_student_scale(column, degrees) for column in residuals.T])
    return Noise(distribution, degrees, tuple((scale * np.sqrt(own)).astype(np.float32).tolist()))


def _rows(data: tuple[ArrayLike, ArrayLike]) -> Part:
    """Rows in raw units, checked."""
    if not isinstance(data, tuple) or len(data) != 2:
        raise InputError("data must be a Dataset, or a tuple (x, y) of rows that training did not see.")
    x, y = (checks.array(name, part) for name, part in zip("xy", data, strict=True))
    for name, values in (("x", x), ("y", y)):
        if values.dtype.kind not in "fiu" or not (np.abs(values, dtype=np.float64) <= checks.FLOAT32_MAX).all():
            raise InputError(f"{name} must hold finite numbers, not {values.dtype} with others. Drop such rows first.")
    y = y.reshape(-1, 1) if y.ndim == 1 else y
    if x.ndim < 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise InputError(
            f"x must be [rows, …] and y [rows, values], of the same 2 rows or more, but they are {x.shape} and "
            f"{y.shape}."
        )
    return Part(x.astype(np.float32), y.astype(np.float32), np.arange(len(x)))


def _sampled(network: nn.Module, x: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Predictions [64, N, O] in the network's units."""
    own = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            rows = torch.from_numpy(x).to(own.device, own.dtype)
            network.eval()
            return np.stack([predict(network, rows).double().cpu().numpy() for _ in range(SAMPLES)])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:  # whatever the user's forward raises
        raise InputError(f"The network cannot take an input of shape {list(x.shape)} ({error}).") from None
    finally:
        for module, mode in modes.items():
            module.training = mode


def _student_scale(residuals: NDArray[np.float64], degrees: int) -> float:
    """The scale of greatest likelihood for residuals around 0."""
    size = float(np.sqrt(np.square(residuals).mean()))

    def loss(log_scale: float) -> float:
        return -float(stats.t.logpdf(residuals, degrees, scale=size * math.exp(log_scale)).sum())

    return size * math.exp(float(optimize.minimize_scalar(loss, bounds=(-7, 1), method="bounded").x))
