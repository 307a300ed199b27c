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
from blitz.modules import BayesianGRU
from scipy import stats
from torch import Tensor

from ..runtime.errors import ExportError
from .coding import Coded, coded
from .kinds import Kind
from .notes import note
from .samplers import samplers_of, spread

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
    def width(self) -> int:
        """Values in the state of a recurrent layer; of any other with a matrix for its weights, in its output."""
        return self.shapes["weight_hh" if self.kind.recurrent else "weight"][0]

    @property
    def relative_sigma(self) -> float:
        """Mean σ over mean |μ|, over all the layer's weights; infinite where μ is zero."""
        mu, sigma = self.mu.abs().double().mean().item(), self.sigma.double().mean().item()
        return sigma / mu if mu else float("inf")


def warn_of_surprises(posteriors: Iterable[Posterior]) -> None:
    """Warn where BLiTZ behaves otherwise than its user may think, or where a posterior says nothing yet."""
    for posterior in posteriors:
        layer, name = posterior.module, f"Layer {posterior.layer!r}"
        for tensor, sampler in samplers_of(layer).items():
            moved = [
                what for what in ("mu", "rho") if _differs(getattr(layer, f"{tensor}_{what}", None), sampler, what)
            ]
            if moved:
                each = ", and ".join(
                    f"{tensor}_{what}{'' if k else ' differs'} from {tensor}_sampler.{what}"
                    for k, what in enumerate(moved)
                )
                own = " and ".join(f"{tensor}_{what}" for what in moved)
                note(
                    f"{name}: {each}: the network draws its weights from the sampler's, which training moves and murho "
                    f"exports. What was done to {own} alone, such as pruning, changes nothing but BLiTZ's frozen "
                    "forward pass."
                )
            kept = getattr(sampler, "rho_mask", None)
            if isinstance(kept, Tensor) and (sampler.rho[kept == 0] == 0).any():
                note(
                    f"{name}: {tensor}_sampler.rho was pruned to 0, and there σ is softplus(0) = 0.69, more than most "
                    "weights have. For σ = 0 set ρ to -torch.inf in place of pruning it."
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


def read(name: str, layer: Any, kind: Kind) -> Posterior:
    """The posterior of the layer with this dotted name, taken for one of this kind.

    A recurrent layer without bias gets one of zeros (μ = σ = 0); any other layer without bias has none. Columns that
    BLiTZ's GRU never uses are left out. Raises ExportError for weights that are not drawn from N(μ, σ²), and for
    numbers that are not finite.
    """
    shapes, mus, sigmas, rhos = {}, [], [], []
    samplers = samplers_of(layer)
    for tensor in kind.tensors:
        if tensor == "bias" and lacks_bias(layer, kind):
            if not kind.recurrent:
                continue
            mu = torch.zeros(samplers["weight_hh"].mu.shape[1])
            sigma = torch.zeros_like(mu)
        else:
            sampler = samplers[tensor]
            drawn = spread(sampler)
            if drawn is None:
                raise ExportError(
                    f"Layer {name!r} draws its {tensor} by a sample() of its own instead of BLiTZ's, and not as "
                    "μ + σ ⊙ ε, ε being one standard normal of torch's for each weight: its law is not N(μ, σ²). "
                    "murho exports that law only."
                )
            mu, sigma = _values(sampler.mu), drawn
            rhos.append(_values(sampler.rho).flatten())
        mu, sigma = used_part(kind, tensor, mu), used_part(kind, tensor, sigma)
        shapes[tensor] = tuple(mu.shape)
        mus.append(mu.flatten())
        sigmas.append(sigma.flatten())
    flat_mu, flat_sigma = torch.cat(mus), torch.cat(sigmas)
    if not (torch.isfinite(flat_mu).all() and torch.isfinite(flat_sigma).all()):
        raise ExportError(f"Layer {name!r} has a posterior that is not finite. Training diverged: train it again.")
    trained = _has_left_its_start(layer, torch.cat(rhos))
    return Posterior(name, layer, kind, shapes, flat_mu, flat_sigma, is_frozen(layer), trained)


def rounded(posterior: Posterior) -> Posterior:
    """The posterior that halves and codes give; a frozen one, of which μ alone is used, as it is."""
    if posterior.frozen:
        return posterior
    form = coded(posterior.layer, posterior.mu, posterior.sigma)
    mu, sigma = form.expanded()
    return replace(posterior, mu=mu, sigma=sigma, coded=form)


def is_frozen(layer: Any) -> bool:
    """Whether it computes with its means: BLiTZ's flag, which layers copied from it may lack, or have as a method."""
    flag = getattr(layer, "freeze", False)
    return not callable(flag) and bool(flag)


def lacks_bias(layer: Any, kind: Kind) -> bool:
    if "bias" not in samplers_of(layer):
        return True
    if kind.forward is not None:
        return getattr(layer, "bias", True) is False
    flag = getattr(layer, "use_bias", True if kind.recurrent else getattr(layer, "bias", True))
    return not isinstance(flag, Tensor) and not flag


def used_part(kind: Kind, tensor: str, values: Tensor) -> Tensor:
    """The columns that the layer's forward pass reads (all of them, but for a GRU's weights)."""
    if kind.cls is not BayesianGRU or tensor == "bias":
        return values
    hidden = values.shape[1] // 4
    if tensor == "weight_ih":
        return values[:, : 3 * hidden]
    return torch.cat([values[:, : 2 * hidden], values[:, 3 * hidden :]], dim=1)


def placed_back(kind: Kind, tensor: str, values: Tensor, whole: Tensor) -> Tensor:
    """The inverse of `used_part`: the values in BLiTZ's own shape, `whole` where BLiTZ never looks."""
    if kind.cls is not BayesianGRU or tensor == "bias":
        return values
    hidden = whole.shape[1] // 4
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
    rho = rho[torch.isfinite(rho)]  # -∞ is a pruned weight's
    if not isinstance(start, int | float) or not len(rho):
        return True
    step = max(1, len(rho) // 10_000)
    return bool(stats.kstest(rho[::step].numpy(), stats.norm(start, _START_SPREAD).cdf).pvalue < _START_LEVEL)


def _differs(copy: Any, sampler: Any, what: str) -> bool:
    return isinstance(copy, Tensor) and not torch.equal(_values(copy), _values(getattr(sampler, what)))


def _values(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32)


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
