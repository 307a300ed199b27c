"""What draws a layer's weights: BLiTZ's TrainableRandomDistribution, or a sampler that people wrote like it."""

from collections.abc import Callable
from typing import Any

import torch
from blitz.modules.weight_sampler import TrainableRandomDistribution
from torch import Tensor, nn

OVERFLOW = 88.0
"""Above it BLiTZ's log1p(exp(ρ)) is infinite."""

_SUFFIX = "_sampler"
_SEEDS = (11, 12, 13)

# How σ is made of ρ (float64), in BLiTZ and in samplers written after it.
_SPREADS: tuple[Callable[[Tensor], Tensor], ...] = (
    nn.functional.softplus,
    torch.exp,
    lambda rho: torch.exp(rho / 2),
    torch.abs,
)


def samplers_of(layer: Any) -> dict[str, Any]:
    """A layer's samplers by the name of the tensor that each draws: its attributes NAME_sampler that are one."""
    held = {**vars(layer), **getattr(layer, "_modules", {})}
    return {name.removesuffix(_SUFFIX): part for name, part in held.items() if name.endswith(_SUFFIX) and _draws(part)}


def is_blitz(sampler: Any) -> bool:
    """Whether it draws by BLiTZ's own code, whose law needs no test."""
    return "sample" not in vars(sampler) and type(sampler).sample is TrainableRandomDistribution.sample


def softplus(rho: Tensor) -> Tensor:
    # In float64 and by softplus: BLiTZ's log1p(exp(ρ)) overflows above ρ = 88.
    return nn.functional.softplus(_values(rho)).to(torch.float32)


def spread(sampler: Any) -> Tensor | None:
    """σ, float32, of a sampler that draws N(μ, σ²), each weight for itself; None for one of another law.

    BLiTZ's is softplus(ρ). Of another it is found out and proven by what the sampler does: with torch's generator at a
    known state ε is known too, and w must be μ + σ ⊙ ε to rounding.
    """
    if is_blitz(sampler):
        return softplus(sampler.rho)
    devices = [sampler.mu.device] if sampler.mu.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        for dtype in dict.fromkeys((sampler.mu.dtype, torch.float32)):
            sigma = _measured(sampler, dtype)
            if sigma is None:
                continue
            for form in _SPREADS:
                known = form(_values(sampler.rho))
                if _agrees(sampler, known, dtype, 0) and _agrees(sampler, known, dtype, 1):
                    return known.abs().to(torch.float32)
            if _agrees(sampler, sigma, dtype, 1):
                return sigma.abs().to(torch.float32)
    return None


def _measured(sampler: Any, dtype: torch.dtype) -> Tensor | None:
    """w ⊘ ε with μ set to zero."""
    pairs = [(_drawn(sampler, seed, 0), _noise(sampler, seed, dtype)) for seed in _SEEDS]
    sigma = torch.zeros_like(pairs[0][1])
    largest = torch.zeros_like(sigma)
    for w, noise in pairs:
        if w is None:
            return None
        sigma = torch.where(noise.abs() > largest, w / noise, sigma)
        largest = torch.maximum(largest, noise.abs())
    rho = _values(sampler.rho)
    sigma = torch.where(rho > OVERFLOW, rho, sigma)
    return sigma if torch.isfinite(sigma).all() else None


def _agrees(sampler: Any, sigma: Tensor, dtype: torch.dtype, mean: int) -> bool:
    """Whether w is mean · μ + σ ⊙ ε for every seed, to the rounding of the sampler's own numbers."""
    for seed in _SEEDS:
        w, mu, noise = _drawn(sampler, seed, mean), mean * _values(sampler.mu), _noise(sampler, seed, dtype)
        if w is None:
            return False
        scatter = sigma * noise
        allowed = 16 * torch.finfo(sampler.mu.dtype).eps * (mu.abs() + scatter.abs()) + torch.finfo(torch.float32).tiny
        fine = ((w - mu - scatter).abs() <= allowed) | (_values(sampler.rho) > OVERFLOW)
        if not fine.all():
            return False
    return True


def _drawn(sampler: Any, seed: int, mean: int) -> Tensor | None:
    """One sample in float64, of μ · mean; None for something that is no tensor of μ's shape."""
    mu = sampler.mu.data
    sampler.mu.data = mu * mean
    try:
        torch.manual_seed(seed)
        w = sampler.sample()
    finally:
        sampler.mu.data = mu
    return _values(w) if isinstance(w, Tensor) and w.shape == mu.shape else None


def _noise(sampler: Any, seed: int, dtype: torch.dtype) -> Tensor:
    torch.manual_seed(seed)
    return _values(torch.empty(sampler.mu.shape, dtype=dtype, device=sampler.mu.device).normal_())


def _values(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _draws(part: Any) -> bool:
    mu, rho = getattr(part, "mu", None), getattr(part, "rho", None)
    tensors = isinstance(mu, Tensor) and isinstance(rho, Tensor) and mu.shape == rho.shape
    return tensors and callable(getattr(part, "sample", None))
