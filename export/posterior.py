"""Read the posterior of a BLiTZ layer: which tensors, in which order, and their μ and σ.

μ and ρ are always taken from the layer's samplers. BLiTZ keeps a second copy (`layer.weight_mu`) that is tied to the
sampler's only by shared storage: `.double()`, deepcopy, MOPED and moving devices untie the two, and training then moves
the sampler's alone.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from blitz.modules import BayesianGRU, BayesianLinear, BayesianLSTM
from blitz.modules.base_bayesian_module import BayesianModule
from torch import Tensor, nn

from ..runtime.errors import ExportError, InputError

SUPPORTED: tuple[type[nn.Module], ...] = (BayesianLinear, BayesianLSTM, BayesianGRU)


@dataclass(frozen=True)
class Posterior:
    """One layer's posterior. The ε of a draw is laid out as μ is."""

    layer: str
    kind: str
    shapes: dict[str, tuple[int, ...]]
    mu: Tensor
    """Float32 [n], on the CPU."""
    sigma: Tensor
    """Float32 [n], on the CPU: softplus(ρ)."""

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut a vector [n] into this posterior's tensors by name."""
        parts = torch.split(flat, [_size(shape) for shape in self.shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def tensor_names(layer: nn.Module) -> tuple[str, ...]:
    """The layer's random tensors in the posterior's order; `NAME_sampler` draws each of them."""
    return ("weight", "bias") if isinstance(layer, BayesianLinear) else ("weight_ih", "weight_hh", "bias")


def has_bias(layer: nn.Module) -> bool:
    return bool(layer.bias if isinstance(layer, BayesianLinear) else layer.use_bias)


def read_posterior(name: str, layer: nn.Module) -> Posterior:
    """The posterior of one supported BLiTZ layer.

    A recurrent layer without bias gets one of zeros (μ = σ = 0); a linear layer without bias has none. Columns that
    BLiTZ's GRU never uses are left out.
    """
    shapes, mus, sigmas = {}, [], []
    for tensor in tensor_names(layer):
        sampler = getattr(layer, f"{tensor}_sampler")
        mu, sigma = _values(sampler.mu), _sigma(sampler.rho)
        if tensor == "bias" and not has_bias(layer):
            if isinstance(layer, BayesianLinear):
                continue
            mu, sigma = torch.zeros_like(mu), torch.zeros_like(sigma)
        else:
            _warn_if_untied(name, tensor, layer, mu)
        mu, sigma = used_part(layer, tensor, mu), used_part(layer, tensor, sigma)
        shapes[tensor] = tuple(mu.shape)
        mus.append(mu.flatten())
        sigmas.append(sigma.flatten())
    flat_mu, flat_sigma = torch.cat(mus), torch.cat(sigmas)
    if not (torch.isfinite(flat_mu).all() and torch.isfinite(flat_sigma).all()):
        raise ExportError(f"Layer {name!r} has a posterior that is not finite. Training diverged: train it again.")
    return Posterior(name, type(layer).__name__, shapes, flat_mu, flat_sigma)


def used_part(layer: nn.Module, tensor: str, values: Tensor) -> Tensor:
    """The columns that the layer's forward pass reads (all of them, but for a GRU's weights)."""
    if not isinstance(layer, BayesianGRU) or tensor == "bias":
        return values
    hidden = layer.out_features
    if tensor == "weight_ih":
        return values[:, : 3 * hidden]
    return torch.cat([values[:, : 2 * hidden], values[:, 3 * hidden :]], dim=1)


def placed_back(layer: nn.Module, tensor: str, values: Tensor, whole: Tensor) -> Tensor:
    """The inverse of `used_part`: the values in BLiTZ's own shape, `whole` where BLiTZ never looks."""
    if not isinstance(layer, BayesianGRU) or tensor == "bias":
        return values
    hidden = layer.out_features
    full = whole.clone()
    if tensor == "weight_ih":
        full[:, : 3 * hidden] = values
    else:
        full[:, : 2 * hidden] = values[:, : 2 * hidden]
        full[:, 3 * hidden :] = values[:, 2 * hidden :]
    return full


def bayesian_layers(network: nn.Module) -> dict[str, nn.Module]:
    """BLiTZ's layers by dotted name. Raises ExportError for one that this version cannot export."""
    if not isinstance(network, nn.Module):
        raise InputError(f"network must be a torch module with BLiTZ layers, not {type(network).__name__}.")
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, BayesianModule):
            _check_supported(name, module)
            found[name] = module
    return found


def posterior_sha256(posteriors: Sequence[Posterior]) -> str:
    """SHA-256 (hex) over the float32 μ and σ of each, one after another."""
    total = hashlib.sha256()
    for posterior in posteriors:
        total.update(posterior.mu.numpy().tobytes())
        total.update(posterior.sigma.numpy().tobytes())
    return total.hexdigest()


def _check_supported(name: str, layer: Any) -> None:
    known = ", ".join(kind.__name__ for kind in SUPPORTED)
    if type(layer) not in SUPPORTED:
        raise ExportError(
            f"Layer {name!r} is a {type(layer).__name__}, which murho cannot export yet. It exports {known} "
            "and torch's deterministic layers."
        )
    if getattr(layer, "peephole", False):
        raise ExportError(f"Layer {name!r} is a BayesianLSTM with peephole=True, which murho cannot export yet.")
    if getattr(layer, "loss_to_sharpen", None) is not None:
        raise ExportError(
            f"Layer {name!r} has loss_to_sharpen set, so its weights depend on a loss. "
            "Call set_loss_to_sharpen(None) first."
        )
    for tensor in tensor_names(layer):
        sampler = getattr(layer, f"{tensor}_sampler")
        if "sample" in vars(sampler) or type(sampler).sample.__module__ != "blitz.modules.weight_sampler":
            raise ExportError(
                f"Layer {name!r} draws its {tensor} by a sample() of its own instead of BLiTZ's, so its law is not "
                "N(μ, σ²). murho exports plain BLiTZ samplers only."
            )


def _warn_if_untied(name: str, tensor: str, layer: nn.Module, mu: Tensor) -> None:
    copy = getattr(layer, f"{tensor}_mu", None)
    if copy is not None and not torch.equal(_values(copy), mu):
        warnings.warn(
            f"Layer {name!r}: {tensor}_mu differs from {tensor}_sampler.mu, which training moves and murho exports. "
            "BLiTZ's frozen forward pass would use the stale one.",
            stacklevel=2,
        )


def _values(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32)


def _sigma(rho: Tensor) -> Tensor:
    # In float64 and by softplus: BLiTZ's log1p(exp(ρ)) overflows above ρ = 88.
    return nn.functional.softplus(rho.detach().to("cpu", torch.float64)).to(torch.float32)


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
