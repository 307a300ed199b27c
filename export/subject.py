"""What is being exported: a network, its posteriors, and what trial runs learnt of it."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..runtime.contract import Scaling
from ..runtime.errors import ExportError, InputError
from .layers import SiteRecord
from .montecarlo import repeat_rows, trial_run
from .posterior import Posterior, bayesian_layers, read_posterior
from .reference import free_samples


@dataclass(frozen=True)
class Subject:
    """A network and everything that exporting and proving it need to know."""

    network: nn.Module
    posteriors: dict[str, Posterior]
    sites: list[SiteRecord]
    scaling: Scaling
    example: Tensor
    """[B, …], raw units."""
    per_draw: bool
    """Whether x must be repeated for every draw at the start."""
    time_axis: bool
    """Whether the network takes sequences of any length along axis 1."""

    def scaled(self, x: Tensor) -> Tensor:
        """Raw inputs as the network sees them, rounded as the artifact rounds them."""
        if not x.is_floating_point():
            return x
        if self.scaling.relative:
            x = x - x[:, -1:]
        return (x - torch.tensor(self.scaling.input_mean)) / torch.tensor(self.scaling.input_scale)

    def raw(self, y: NDArray[np.float64], x: Tensor) -> NDArray[np.float64]:
        """The network's outputs [S, B, …] for raw inputs x, in raw units."""
        raw: NDArray[np.float64] = y * np.asarray(self.scaling.output_scale) + np.asarray(self.scaling.output_mean)
        return raw + x[:, -1, :1].double().numpy() if self.scaling.relative else raw

    def inputs(self, batch: int, steps: int | None = None) -> Tensor:
        """Rows like the example's, none equal to it: raw units [batch, …], `steps` long where time is free."""
        x = repeat_rows(self.example, batch)
        if steps is not None and self.time_axis:
            x = x[:, torch.arange(steps) % x.shape[1]]
        if not x.is_floating_point():
            return x
        rows = x.reshape(-1, x.shape[-1])
        spread = rows.std(dim=0) if len(rows) > 1 else torch.ones(x.shape[-1])  # columns may differ in size
        generator = torch.Generator().manual_seed(batch)
        return x + 0.1 * spread * torch.randn(x.shape, generator=generator)


def examine(network: nn.Module, x: Tensor, scaling: Scaling) -> Subject:
    """Read a network's posteriors and run it a few times on x [B, …], raw units, to learn its sites and free axes.

    Raises ExportError for a network that cannot be exported, InputError for arguments that are none.
    """
    if scaling.relative and x.dim() != 3:
        raise InputError(
            f"A relative scaling needs windows [batch, time, feature]; example has shape {tuple(x.shape)}."
        )
    layers = bayesian_layers(network)
    if not layers:
        raise ExportError(
            "The network has no BLiTZ layer, so there is nothing to sample. Use torch.onnx for a deterministic network."
        )
    if all(layer.freeze for layer in layers.values()):
        raise ExportError(
            "Every BLiTZ layer of the network is frozen, so all draws would be the same. Call unfreeze_() first."
        )
    posteriors = {name: read_posterior(name, layer) for name, layer in layers.items()}
    untried = Subject(network, posteriors, [], scaling, x, per_draw=False, time_axis=False)
    try:
        free_samples(network, untried.scaled(x), 1, seed=0)
    except ExportError:
        raise
    except Exception as error:  # whatever the user's forward raises
        raise ExportError(
            f"The network fails on the example, of shape {tuple(x.shape)}, before murho touches it "
            f"({type(error).__name__}: {error}). Pass an example that it can read."
        ) from error
    per_draw, sites = trial_run(network, posteriors, scaling, x)
    if not sites:
        raise ExportError("The network's forward never calls one of its sampling BLiTZ layers.")
    return replace(untried, sites=sites, per_draw=per_draw, time_axis=_time_is_free(untried))


def _time_is_free(subject: Subject) -> bool:
    """Whether BLiTZ's network takes a sequence of another length: then the artifact does too."""
    if subject.example.dim() != 3:
        return False
    x = subject.scaled(subject.example)
    try:
        free_samples(subject.network, torch.cat([x, x[:, :1]], dim=1), 1, seed=0)
    except Exception:  # whatever the user's forward raises; it reads sequences of one length only
        return False
    return True
