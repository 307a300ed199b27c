"""A network for small images: Bayesian convolutions with pooling, then Bayesian linear layers, as in LeNet."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from blitz.modules import BayesianConv2d
from blitz.utils import variational_estimator
from torch import nn

from ..runtime.errors import InputError
from ._parts import MOST, check, check_sizes, checked_beliefs, checked_sizes, dense, scaled


@variational_estimator
class Classifier(nn.Module):
    """An image in, one logit per class out: LeNet (LeCun et al. 1998) with ReLU, largest-value pooling and free sizes.

    float32 `[B, channels, size, size]`, standardised → for each of `filters`: BayesianConv2d → ReLU → 2×2 pooling →
    flattened → BayesianLinear → ReLU → … → BayesianLinear → logits, float32 `[B, classes]`. Call `torch.manual_seed`
    before it to fix the initial weights.

    `filters`: output channels of each convolution. `kernel`, `padding`: of each convolution, in pixels. `hidden`: sizes
    of the hidden linear layers. For 8×8 images take kernel=3, padding=1. Priors, `posterior_rho_init` and the initial
    means are those of `Regressor`; a convolution's inputs per output are channels · kernel². For a few thousand images
    train with a complexity weight of 0.1/N: `fit`'s 1/N lets the prior of so many weights outweigh them.

    `config` holds these settings as plain Python values: `Classifier(**network.config)` has the same architecture.
    Raises InputError for a setting out of range, and where the image becomes too small on its way.
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        classes: int = 10,
        filters: Sequence[int] = (6, 16),
        kernel: int = 5,
        padding: int = 0,
        hidden: Sequence[int] = (120, 84),
        prior_sigma_1: float = 1.0,
        prior_pi: float = 1.0,
        posterior_rho_init: float = -4.0,
        prior_sigma_2: float = 0.002,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, size=size, kernel=kernel)
        check(type(classes) is int and 2 <= classes <= MOST, "classes", "a whole number of at least 2", classes)
        check(type(padding) is int and 0 <= padding <= MOST, "padding", "a whole number of at least 0", padding)
        filters = checked_sizes("filters", filters, least=1)
        hidden = checked_sizes("hidden", hidden)
        beliefs = checked_beliefs(prior_sigma_1, prior_pi, posterior_rho_init, prior_sigma_2)
        image = {"channels": channels, "size": size, "classes": classes}
        layers = {"filters": filters, "kernel": kernel, "padding": padding, "hidden": hidden}
        self.config: dict[str, Any] = {**image, **layers, **beliefs}

        blocks: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise([channels, *filters]):
            convolution = BayesianConv2d(inputs, outputs, kernel_size=(kernel, kernel), padding=padding, **beliefs)
            blocks += [scaled(convolution, gain=2.0), nn.ReLU(), nn.MaxPool2d(2)]
        self.convolutions = nn.Sequential(*blocks)
        pixels = _pixels_left(size, len(filters), kernel, padding) ** 2
        self.layers = dense((filters[-1] * pixels, *hidden, classes), beliefs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolutions(x)  # (B, filters, pixels, pixels)
        logits: torch.Tensor = self.layers(x.flatten(1))
        return logits


def _pixels_left(size: int, blocks: int, kernel: int, padding: int) -> int:
    """Side of the image after all blocks."""
    side = size
    for block in range(1, blocks + 1):
        before, after = side, side + 2 * padding - kernel + 1
        side = after // 2
        if side < 1:
            raise InputError(
                f"The image becomes too small: convolution {block} of {blocks} gets {before} × {before} pixels, and "
                f"with kernel={kernel} and padding={padding} leaves fewer than the 2 × 2 that pooling needs. Give a "
                "larger size or padding, a smaller kernel, or fewer filters."
            )
    return side
