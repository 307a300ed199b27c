"""Split conformal calibration: how far the two sides of an interval must be stretched so that it covers what it says.

A row's score is the factor at which its interval, stretched from the median outwards, would just have reached the
truth. The factor of a level is the ⌈(n + 1)·level⌉-th smallest of n scores: on exchangeable data the stretched interval
then covers a new row with a chance of at least `level`, and at most `level` + 1/(n + 1) (Vovk et al. 2005; Lei et al.
2018, theorem 2.2). The sides keep their proportion, so a skewed forecast stays skewed.
"""

import hashlib
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import FLOAT32_MAX
from .contract import CALIBRATION_SLOTS, Calibration
from .errors import InputError

Floats = NDArray[np.float32]

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Levels that are calibrated unless others are asked for."""
ROUNDING = 1e-12


def scores(
    median: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any], truth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scores [K, n, O] of truth [n, O], for medians [n, O] and interval ends [K, n, O].

    A side without length scores 0 where the truth is the median, and infinity elsewhere.
    """
    off = truth - median
    length = np.where(off < 0, np.float64(median) - lower, np.float64(upper) - median)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(off == 0, 0.0, np.abs(off) / length)


def rows_needed(level: float) -> int:
    """The least n for which the rule ⌈(n + 1)·level⌉ names one of n scores."""
    n = max(1, ceil(level / (1 - level)) - 1)
    while ceil(_product(n + 1, level)) > n:
        n += 1
    return n


def weights(rows: int, half_life: float | None) -> NDArray[np.float64]:
    """Of rows, oldest first, that a row to come of weight 1 follows."""
    return np.ones(rows) if half_life is None else 0.5 ** (np.arange(rows, 0, -1) / half_life)


def quantile(values: NDArray[np.float64], level: float, half_life: float | None = None) -> NDArray[np.float64]:
    """The conformal quantile of scores [n, …], oldest first: infinite where there are too few.

    With a `half_life` in rows the weight of a row halves with every so many rows of age, the row to come having weight
    1: the quantile is the smallest score at or below which lies `level` of all weight, its own included (Barber et al.
    2023, equation 10). Equal weights make that the ⌈(n + 1)·level⌉-th smallest.
    """
    n = len(values)
    if half_life is None:
        k = ceil(_product(n + 1, level))
        found: NDArray[np.float64] = np.sort(values, axis=0)[k - 1] if k <= n else np.full(values.shape[1:], np.inf)
        return found
    weight = weights(n, half_life)
    order = np.argsort(values, axis=0, kind="stable")
    reached = np.cumsum(weight[order], axis=0)
    first = (reached < level * (weight.sum() + 1) * (1 - ROUNDING)).sum(axis=0)
    ordered = np.concatenate([np.take_along_axis(values, order, axis=0), np.full((1, *values.shape[1:]), np.inf)])
    found = np.take_along_axis(ordered, first[np.newaxis], axis=0)[0]
    return found


def fit(
    median: Floats,
    lower: Floats,
    upper: Floats,
    truth: NDArray[np.float64],
    levels: tuple[float, ...],
    half_life: float | None = None,
) -> Calibration:
    """The factors of ascending levels from n rows, oldest first: medians, truth [n, O], interval ends [K, n, O].

    Raises InputError where the rows are too few for a level, or the intervals have no length.
    """
    found = scores(median, lower, upper, truth)
    factors = []
    for level, of_level in zip(levels, found, strict=True):
        factor = quantile(of_level, level, half_life)
        if np.isinf(factor).any():
            raise InputError(_too_few(len(truth), level, half_life, of_level))
        with np.errstate(over="ignore"):
            factor = factor.astype(np.float32)
        if not np.isfinite(factor).all():
            raise InputError(
                f"For level {level:g} an interval must become more than {FLOAT32_MAX:.3g} times as wide to cover the "
                "calibration rows. Look for outliers in y, or export the network with observation noise."
            )
        factors.append(tuple(factor.tolist()))
    digest = hashlib.sha256(np.ascontiguousarray(truth).tobytes()).hexdigest()
    return Calibration(levels, tuple(factors), len(truth), half_life, digest)


def factors_at(calibration: Calibration, levels: NDArray[np.float32]) -> Floats:
    """Factors [K, O] at any levels [K]: interpolated between the calibrated ones, constant beyond them.

    In float32 and in the same order of operations as in the artifact.
    """
    slots, table = tables(calibration)
    below = np.maximum((slots <= levels[:, np.newaxis]).sum(axis=1) - 1, 0)
    above = np.minimum(below + 1, len(slots) - 1)
    gap = slots[above] - slots[below]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(gap > 0, np.clip((levels - slots[below]) / gap, 0, 1), np.float32(0))[:, np.newaxis]
    found: Floats = table[below] + share * (table[above] - table[below])
    return found


def stretch(
    median: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any], factors: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ends [K, B, O] moved away from the medians [B, O] by factors [K, B or 1, O]."""
    less = 1 - factors
    with np.errstate(over="ignore", invalid="ignore"):  # who asked looks whether they are finite
        return lower + less * (median - lower), upper - less * (upper - median)


def tables(calibration: Calibration) -> tuple[Floats, Floats]:
    """The artifact's levels [slots] and factors [slots, O]: the last ones repeated to the end."""
    levels, factors = np.array(calibration.levels, np.float32), np.array(calibration.factors, np.float32)
    empty = CALIBRATION_SLOTS - len(levels)
    return np.pad(levels, (0, empty), mode="edge"), np.pad(factors, ((0, empty), (0, 0)), mode="edge")


def _product(n: int, level: float) -> float:
    """n·level without the rounding that may lift it over a whole number."""
    return n * level * (1 - ROUNDING)


def _too_few(rows: int, level: float, half_life: float | None, found: NDArray[np.float64]) -> str:
    if np.isinf(found).any():
        return (
            "Some calibration rows lie off intervals that have no length, so no factor makes them reach. Export the "
            "network with observation noise."
        )
    if half_life is not None and rows >= rows_needed(level):
        return (
            f"{rows} rows with a half-life of {half_life:g} weigh too little for level {level:g}. Give a half-life of "
            f"{ceil(rows_needed(level) * 0.75)} rows or more, or a lower level."
        )
    return (
        f"Level {level:g} needs at least {rows_needed(level)} calibration rows, by the rule ⌈(n + 1)·level⌉ ≤ n; there "
        f"are {rows}. Give more rows, or a lower level."
    )
