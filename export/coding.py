"""A posterior at three bytes a weight in place of eight: μ in float16, log σ in 8 bits, with scales for each layer.

    μ = unit · half,    σ = exp(base + step · code),    σ = 0 for code 0

The unit is a power of two that puts the largest |μ| between 2^14 and 2^15, so that μ of any size fits and the rounding
to float16 is the only one.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..runtime.errors import ExportError

COARSEST = 0.05  # of σ, by which its rounding may change it
_CODES = 255  # from 1 on
_TOP = 15  # the halves stay below 2^15: float16 ends at 65504
_SMALLEST = -126  # exponent of float32's smallest normal number


@dataclass(frozen=True, eq=False)
class Coded:
    """One layer's μ and σ as its file keeps them. The scales are exact in float32 (unit) and float64."""

    halves: Tensor
    """Float16 [n]."""
    unit: float
    codes: Tensor
    """Uint8 [n]."""
    base: float
    step: float

    def expanded(self) -> tuple[Tensor, Tensor]:
        """μ and σ, float32 [n]."""
        return expanded(self.halves, self.unit, self.codes, self.base, self.step)


def coded(layer: str, mu: Tensor, sigma: Tensor) -> Coded:
    """Round μ and σ, float32 [n] and finite, of a layer with this dotted name.

    Raises ExportError where σ spans so many sizes that 8 bits would change one by more than 5 %.
    """
    exponent = math.frexp(mu.abs().max().item())[1]
    unit = 2.0 ** max(exponent - _TOP, _SMALLEST)
    positive = sigma > 0
    logs = torch.log(sigma[positive].double())
    low, high = (logs.min().item(), logs.max().item()) if len(logs) else (0.0, 0.0)
    step = (high - low) / (_CODES - 1)
    error = math.expm1(step / 2)
    if error > COARSEST:
        raise ExportError(
            f"Layer {layer!r} has σ from {math.exp(low):.2g} to {math.exp(high):.2g}: 8 bits would change it by up to "
            f'{error:.0%}, and {COARSEST:.0%} is allowed. Export with storage="float32".'
        )
    codes = torch.zeros(len(sigma), dtype=torch.uint8)
    codes[positive] = (1 + torch.round((logs - low) / step) if step else torch.ones_like(logs)).to(torch.uint8)
    return Coded((mu / unit).to(torch.float16), unit, codes, low - step, step)


def expanded(halves: Tensor, unit: float, codes: Tensor, base: float, step: float) -> tuple[Tensor, Tensor]:
    """μ and σ, float32 [n], from what the file keeps. TorchScript compiles it.

    The exponential is taken in float64, so that σ is the same to the last bit on every host.
    """
    spread = torch.exp(codes.to(torch.float64) * step + base).to(torch.float32)
    return halves.to(torch.float32) * unit, torch.where(codes > 0, spread, torch.zeros_like(spread))


class CodedPosterior(nn.Module):
    """Gives a layer's μ and σ, and is saved by TorchScript as their coded form: they are expanded when it is loaded."""

    halves: Tensor
    codes: Tensor
    mu: Tensor
    sigma: Tensor

    def __init__(self, coded: Coded) -> None:
        super().__init__()
        self.unit, self.base, self.step = coded.unit, coded.base, coded.step
        mu, sigma = coded.expanded()
        # As buffers they follow the module from one device to another.
        for name, values in (("halves", coded.halves), ("codes", coded.codes), ("mu", mu), ("sigma", sigma)):
            self.register_buffer(name, values)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.mu, self.sigma

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, float, Tensor, float, float, bool]:
        return self.halves, self.unit, self.codes, self.base, self.step, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, float, Tensor, float, float, bool]) -> None:
        self.halves, self.unit, self.codes, self.base, self.step, self.training = state
        self.mu, self.sigma = expanded(self.halves, self.unit, self.codes, self.base, self.step)


class ExpandedPosterior(nn.Module):
    """Gives a layer's μ and σ from their coded form at each call, for a file that can compute nothing when loaded."""

    halves: Tensor
    codes: Tensor

    def __init__(self, coded: Coded) -> None:
        super().__init__()
        self.unit, self.base, self.step = coded.unit, coded.base, coded.step
        self.register_buffer("halves", coded.halves)
        self.register_buffer("codes", coded.codes)

    def forward(self) -> tuple[Tensor, Tensor]:
        return expanded(self.halves, self.unit, self.codes, self.base, self.step)
