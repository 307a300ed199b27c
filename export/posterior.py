"""Read the posterior of a BLiTZ layer: which tensors, in which order, and their μ and σ.

μ and ρ are always taken from the layer's samplers. BLiTZ keeps a second copy (`layer.weight_mu`) that is tied to the
sampler's only by shared storage: `.double()`, deepcopy, MOPED and moving devices untie the two, and training then moves
the sampler's alone.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from blitz.modules import BayesianGRU, BayesianLSTM
from blitz.modules.base_bayesian_module import BayesianModule
from scipy import stats
from torch import Tensor, nn

from ..runtime.errors import ExportError, InputError
from .coding import Coded, coded
from .kinds import Kind, kind_of
from .notes import note
from .refusals import Refusals

RECURRENT = (BayesianLSTM, BayesianGRU)

_START_SPREAD = 0.1  # BLiTZ starts every ρ from N(posterior_rho_init, 0.1²)
_START_LEVEL = 0.01


@dataclass(frozen=True, eq=False)
class Posterior:
    """One layer's posterior. The ε of a draw is laid out as μ is."""

    layer: str
    """Dotted name."""
    module: Any
    """The user's layer itself."""
    kind: Kind
    shapes: dict[str, tuple[int, ...]]
    mu: Tensor
    """Float32 [n], on the CPU."""
    sigma: Tensor
    """Float32 [n], on the CPU: softplus(ρ)."""
    frozen: bool
    """Whether the layer computes with its means only."""
    trained: bool
    """Whether ρ has left the values that BLiTZ starts from."""
    coded: Coded | None = None
    """How the file keeps `mu` and `sigma`, which are then its expansion; None for float32."""

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut vectors [..., n] into this posterior's tensors [..., *shape] by name."""
        parts = torch.split(flat, [_size(shape) for shape in self.shapes.values()], dim=-1)
        lead = flat.shape[:-1]
        named = zip(self.shapes.items(), parts, strict=True)
        return {name: part.reshape(*lead, *shape) for (name, shape), part in named}

    @property
    def relative_sigma(self) -> float:
        """Mean σ over mean |μ|, over all the layer's weights; infinite where μ is zero."""
        mu, sigma = self.mu.abs().double().mean().item(), self.sigma.double().mean().item()
        return sigma / mu if mu else float("inf")


def read_posteriors(network: nn.Module, flipout: str = "refuse", storage: str = "float32") -> dict[str, Posterior]:
    """The posterior of each BLiTZ layer by dotted name, as a file of this storage has it.

    Raises ExportError for layers that cannot be exported, InputError for something that is no network.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"network must be a torch module with BLiTZ layers, not {type(network).__name__}.")
    read, refusals = {}, Refusals()
    for name, module in network.named_modules():
        if isinstance(module, BayesianModule):
            with refusals:
                read[name] = _read(name, module, kind_of(name, module, flipout))
    refusals.raise_all()
    return read if storage == "float32" else {name: _rounded(posterior) for name, posterior in read.items()}


def warn_of_surprises(posteriors: Iterable[Posterior]) -> None:
    """Warn where BLiTZ behaves otherwise than its user may think, or where a posterior says nothing yet."""
    for posterior in posteriors:
        layer, name = posterior.module, f"Layer {posterior.layer!r}"
        for tensor in posterior.shapes:
            copy = getattr(layer, f"{tensor}_mu", None)
            if copy is not None and not torch.equal(_values(copy), _values(_sampler(layer, tensor).mu)):
                note(
                    f"{name}: {tensor}_mu differs from {tensor}_sampler.mu, which training moves and murho exports. "
                    "BLiTZ's frozen forward pass would use the stale one."
                )
        if getattr(layer, "peephole", False):
            note(
                f"{name}: BLiTZ's LSTM with peephole=True is not the textbook's, and its frozen forward pass computes "
                "something else than its sampled one. murho exports the sampled one, for the mean too."
            )
        if getattr(layer, "padding_idx", None) is not None:
            note(f"{name}: BLiTZ samples the padding row {layer.padding_idx} like any other, and so does the artifact.")
        if getattr(type(layer), "sample", None) is not None:
            note(f"{name}: BLiTZ's Radial changes nothing in what the layer computes; exported as the plain layer.")
        if not posterior.trained and not posterior.frozen:
            note(
                f"{name}: σ is still where BLiTZ starts it (mean {posterior.sigma.mean().item():.2g}). Its intervals "
                "say nothing about the data: train longer, or with a larger learning rate for ρ."
            )


def _read(name: str, layer: Any, kind: Kind) -> Posterior:
    """The posterior of one layer.

    A recurrent layer without bias gets one of zeros (μ = σ = 0); any other layer without bias has none. Columns that
    BLiTZ's GRU never uses are left out.
    """
    shapes, mus, sigmas, rhos = {}, [], [], []
    for tensor in kind.tensors:
        absent = tensor == "bias" and lacks_bias(layer)
        if absent and not isinstance(layer, RECURRENT):
            continue
        sampler = _sampler(layer, tensor)
        mu, sigma = _values(sampler.mu), _sigma(sampler.rho)
        if absent:
            mu, sigma = torch.zeros_like(mu), torch.zeros_like(sigma)
        else:
            rhos.append(_values(sampler.rho).flatten())
        mu, sigma = used_part(layer, tensor, mu), used_part(layer, tensor, sigma)
        shapes[tensor] = tuple(mu.shape)
        mus.append(mu.flatten())
        sigmas.append(sigma.flatten())
    flat_mu, flat_sigma = torch.cat(mus), torch.cat(sigmas)
    if not (torch.isfinite(flat_mu).all() and torch.isfinite(flat_sigma).all()):
        raise ExportError(f"Layer {name!r} has a posterior that is not finite. Training diverged: train it again.")
    trained = _has_left_its_start(layer, torch.cat(rhos))
    return Posterior(name, layer, kind, shapes, flat_mu, flat_sigma, bool(getattr(layer, "freeze", False)), trained)


def _rounded(posterior: Posterior) -> Posterior:
    """The posterior that halves and codes give; a frozen one, of which μ alone is used, as it is."""
    if posterior.frozen:
        return posterior
    form = coded(posterior.layer, posterior.mu, posterior.sigma)
    mu, sigma = form.expanded()
    return replace(posterior, mu=mu, sigma=sigma, coded=form)


def lacks_bias(layer: Any) -> bool:
    if isinstance(layer, RECURRENT):
        return not layer.use_bias
    return getattr(layer, "bias", True) is False


def used_part(layer: Any, tensor: str, values: Tensor) -> Tensor:
    """The columns that the layer's forward pass reads (all of them, but for a GRU's weights)."""
    if not isinstance(layer, BayesianGRU) or tensor == "bias":
        return values
    hidden = layer.out_features
    if tensor == "weight_ih":
        return values[:, : 3 * hidden]
    return torch.cat([values[:, : 2 * hidden], values[:, 3 * hidden :]], dim=1)


def placed_back(layer: Any, tensor: str, values: Tensor, whole: Tensor) -> Tensor:
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


def posterior_sha256(posteriors: Iterable[Posterior]) -> str:
    """SHA-256 (hex) over the float32 μ and σ of each, one after another."""
    total = hashlib.sha256()
    for posterior in posteriors:
        total.update(posterior.mu.numpy().tobytes())
        total.update(posterior.sigma.numpy().tobytes())
    return total.hexdigest()


def _has_left_its_start(layer: Any, rho: Tensor) -> bool:
    """Whether ρ looks unlike N(posterior_rho_init, 0.1²), by a Kolmogorov-Smirnov test."""
    start = getattr(layer, "posterior_rho_init", None)
    if start is None:
        return True
    step = max(1, len(rho) // 10_000)
    return bool(stats.kstest(rho[::step].numpy(), stats.norm(start, _START_SPREAD).cdf).pvalue < _START_LEVEL)


def _sampler(layer: Any, tensor: str) -> Any:
    return getattr(layer, f"{tensor}_sampler")


def _values(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32)


def _sigma(rho: Tensor) -> Tensor:
    # In float64 and by softplus: BLiTZ's log1p(exp(ρ)) overflows above ρ = 88.
    return nn.functional.softplus(rho.detach().to("cpu", torch.float64)).to(torch.float32)


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
