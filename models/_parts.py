"""What the ready networks share: checked arguments, and stacks of dense layers with means that let them train."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from blitz.modules import BayesianLinear
from torch import nn

from ..runtime.checks import FLOAT32_MAX, FLOAT32_TINY, is_finite, shown
from ..runtime.errors import InputError

MOST = 2**20  # of a size


def check(good: bool, name: str, expected: str, value: object) -> None:
    if not good:
        raise InputError(f"{name} must be {expected}, got {shown(value)}.")


def check_sizes(**sizes: object) -> None:
    for name, size in sizes.items():
        check(_is_size(size), name, "a whole number of at least 1", size)


def checked_sizes(name: str, sizes: Sequence[int], least: int = 0) -> list[int]:
    """A tuple or list of sizes, `least` or more of them, as a list: what comes back from JSON."""
    good = isinstance(sizes, tuple | list) and len(sizes) >= least and all(_is_size(size) for size in sizes)
    check(good, name, "a tuple of whole numbers of at least 1" + (f", {least} or more of them" if least else ""), sizes)
    return list(sizes)


def checked_beliefs(
    prior_sigma_1: float, prior_pi: float, posterior_rho_init: float, prior_sigma_2: float
) -> dict[str, float]:
    """The arguments of that name that every BLiTZ layer takes."""
    for name, sigma in (("prior_sigma_1", prior_sigma_1), ("prior_sigma_2", prior_sigma_2)):
        good = is_finite(sigma) and FLOAT32_TINY <= sigma <= FLOAT32_MAX
        check(good, name, "a finite number above 0", sigma)
    check(is_finite(prior_pi) and 0 <= prior_pi <= 1, "prior_pi", "a number from 0 to 1", prior_pi)
    good = is_finite(posterior_rho_init) and abs(posterior_rho_init) <= FLOAT32_MAX
    check(good, "posterior_rho_init", "a finite number", posterior_rho_init)
    return {
        "prior_sigma_1": float(prior_sigma_1),
        "prior_pi": float(prior_pi),
        "posterior_rho_init": float(posterior_rho_init),
        "prior_sigma_2": float(prior_sigma_2),
    }


def dense(sizes: Sequence[int], beliefs: dict[str, float]) -> nn.Sequential:
    """BayesianLinear layers between `sizes`, with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [scaled(BayesianLinear(inputs, outputs, **beliefs), gain=2.0), nn.ReLU()]
    scaled(layers[-2], gain=1.0)
    return nn.Sequential(*layers[:-1])


def scaled(layer: Any, gain: float) -> Any:
    """The layer, with the means of its weights drawn anew from N(0, gain / fan-in), fan-in being inputs per output.

    With a gain of 2 before a ReLU and of 1 elsewhere the signal keeps its size from layer to layer (He et al. 2015).
    """
    with torch.no_grad():
        mean = layer.weight_sampler.mu  # shares its memory with layer.weight_mu
        mean.normal_(0, math.sqrt(gain / mean[0].numel()))
    return layer


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST
