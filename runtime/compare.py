"""How far two answers are apart, in the network's units: raw ones may lie so far from 0 that they hide any error."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .contract import Card, Scaling

Floats = NDArray[np.float64]
Units = tuple[ArrayLike, ArrayLike]
"""Scale and offset, so that raw values are the network's times the scale plus the offset."""

TOLERANCE = 1e-5  # of the largest value: float32 arithmetic in another order
MULTIPLE = 8.0  # of what BLiTZ's own float32 is off, where that is more: see "The yardstick" in docs/design.md
NETWORK_UNITS: Units = ((1.0,), (0.0,))
"""Of what no scaling applies to: further outputs, recurrent states."""


def raw_units(scaling: Scaling, x: NDArray[Any]) -> tuple[Floats, Floats]:
    """Scale and offset, for first inputs x [B, …], that turn the network's units into raw ones."""
    scale, offset = np.asarray(scaling.output_scale, np.float64), np.asarray(scaling.output_mean, np.float64)
    if scaling.values == "levels":
        return scale, offset
    last = np.asarray(x[:, -1, :1], np.float64)
    return (scale, offset + last) if scaling.values == "differences" else (scale * last, (offset + 1) * last)


def tolerance_of(card: Card, forms: int = 1) -> float:
    """What the proof of an artifact allowed its samples to be off the truth, or `forms` of them off each other."""
    exact = card.verification.get("exact", {})
    off = float(exact.get("multiple", MULTIPLE)) * float(exact.get("float32_error") or 0.0)
    return max(TOLERANCE, forms * off)


def largest_value(raw: NDArray[Any], scale: ArrayLike = (1.0,), offset: ArrayLike = (0.0,)) -> float:
    """The largest value, in the network's units, of samples in raw units."""
    return float(np.abs((raw - np.asarray(offset)) / np.asarray(scale)).max(initial=np.finfo(np.float32).tiny))


def relative_error(
    got: NDArray[Any],
    raw: NDArray[Any],
    scale: ArrayLike = (1.0,),
    offset: ArrayLike = (0.0,),
    largest: float | None = None,
    roundings: int | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[float, float]:
    """(error, allowed) of values `got` against `raw`, relative to the largest network output.

    Both are in raw units: network units times `scale` plus `offset`. `largest` is taken from `raw` if not given.
    Allowed are the `tolerance`, and what float32 must lose by storing a value in raw units: half a spacing at each of
    two steps, so one for each of the two that is float32, or as many `roundings` as are given. The error is infinite
    where shapes differ or a value is not finite.
    """
    scale = np.abs(np.asarray(scale, np.float64))
    largest = largest_value(raw, scale, offset) if largest is None else largest
    if roundings is None:
        roundings = sum(values.dtype == np.float32 for values in (got, raw))
    highest = np.abs(raw).max(initial=0)
    spacing = float(np.spacing(np.float32(highest))) / float(scale.min()) / largest if roundings else 0.0
    allowed = tolerance + roundings * spacing
    if got.shape != raw.shape:
        return float("inf"), allowed
    with np.errstate(invalid="ignore"):
        error = float((np.abs(got.astype(np.float64) - raw) / scale).max(initial=0) / largest)
    return (error if np.isfinite(error) else float("inf")), allowed
