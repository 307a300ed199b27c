"""Prediction intervals: what a set of samples says, and how it is handed out."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .errors import InputError, MissingExtra
from .memory import PIECE, row_blocks

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]

UNSURE_PIECE = 2**18
"""Ends that are looked at at once."""

FEWEST_BEYOND = 1.0
"""Draws beyond an end, on average, from which on its error is estimated: below, it comes out a third too small."""


@dataclass(frozen=True, eq=False, repr=False)
class Intervals:
    """Prediction of a batch of B rows, in raw units.

    For one level, `lower` and `upper` are [B, …]; for a sequence of K levels they are [K, B, …]. Two are equal if all
    that they hold is. As lists and arrays, which can change, they are no keys of a dict.
    """

    mean: Floats
    """[B, …] over the draws."""
    std: Floats
    """[B, …] over the draws, with S - 1."""
    lower: Floats
    upper: Floats
    mc_error: Floats
    """Monte-Carlo standard errors of `lower` and of `upper`, [2, …]: how far off other draws, as many, would put them.
    Infinite where less than one draw lies beyond an end on average."""
    samples: Floats
    """[S, B, …], one prediction per draw."""
    level: float | tuple[float, ...]
    """Nominal coverage of the central interval, as asked for."""
    draws: NDArray[np.int64]
    """[S], the draws' names."""
    seed: int
    names: tuple[str, ...] = ()
    """Names along the last axis (steps of a horizon, classes), or empty."""
    epistemic: NDArray[np.float64] | None = None
    """Part of the variance std² [B, …] that comes from the weights being unsure; None unless asked for (`parts`)."""
    aleatoric: NDArray[np.float64] | None = None
    """Part of the variance [B, …] that comes from observation noise; None unless asked for."""

    def __repr__(self) -> str:
        """What it is, without its numbers."""
        shape, level = " × ".join(map(str, self.mean.shape)), self.level
        levels = f"levels {', '.join(f'{one:g}' for one in level)}" if isinstance(level, tuple) else f"level {level:g}"
        return f"<murho.Intervals [{shape}], {levels}, {len(self.draws)} draws, seed {self.seed}>"

    def __eq__(self, other: object) -> bool:
        if type(other) is not Intervals:
            return NotImplemented
        return all(_same(value, getattr(other, name)) for name, value in vars(self).items())

    __hash__ = None  # type: ignore[assignment]

    def coverage(self, truth: ArrayLike) -> Any:
        """Share of the true values [B, …] that lie inside, ends included: a float, or [K] for K levels.

        Where there is one value per row, `truth` may be [B]. Raises InputError for another shape, what is no number,
        and a truth that is not known (NaN): leave such rows out of `truth` and of what was predicted.
        """
        y = as_true_values("truth", truth, self.mean.shape)
        inside = (self.lower <= y) & (y <= self.upper)
        axes = tuple(range(inside.ndim - y.ndim, inside.ndim))
        share = inside.mean(axis=axes)
        return float(share) if share.ndim == 0 else share

    def entropy(self) -> Floats:
        """Predictive entropy [B, …] of class probabilities, in nats: H[mean p], how unsure the answer is in all.

        0 is certain, log(classes) is a guess. Raises InputError where the outputs are not class probabilities.
        """
        self._check_probabilities()
        return _entropy(self.samples.mean(axis=0, dtype=np.float64)).astype(np.float32)

    def mutual_information(self) -> Floats:
        """The part of `entropy` [B, …], in nats, that comes from the weights being unsure: H[mean p] - mean H[p].

        The rest is noise in the data itself (Depeweg et al. 2018, equation 2). Raises InputError as `entropy`.
        """
        self._check_probabilities()
        inside = np.zeros(self.samples.shape[1:-1])
        for draw in self.samples:  # one by one: float64 copies of all samples would double the memory
            inside += _entropy(draw.astype(np.float64))
        return (_entropy(self.samples.mean(axis=0, dtype=np.float64)) - inside / len(self.samples)).astype(np.float32)

    def _check_probabilities(self) -> None:
        some = self.samples[:16].astype(np.float64)
        if some.ndim < 3 or some.min() < 0 or not np.allclose(some.sum(axis=-1), 1, rtol=0, atol=1e-4):
            raise InputError(
                "Entropy needs class probabilities, which sum to 1 along the last axis. "
                'Export the network with task="classification".'
            )

    def to_frame(self, index: Any = None, mc_error: bool = False) -> "pd.DataFrame":
        """One row per row of the batch: mean, std, and the ends of each level as `lower 95%`, `upper 95%`.

        Where the variance was split (`parts`), `epistemic` and `aleatoric` follow std; with `mc_error` the error of
        each end follows it, as `mc_error lower 95%`, `mc_error upper 95%`. An output of several values per row gets a
        column for each, by name or numbered from 1: `mean 1`, `mean 2`, …

        The frame's `attrs` hold `draws` and `seed`, which give the same answer again (draws as their number where they
        are 0, 1, …, else as their names), and `mc_error`, the largest error of an end as a share of its interval's
        width: what `predict` compares with a `tolerance`.

        Raises InputError for an index of another length, MissingExtra without pandas.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtra('to_frame needs pandas: pip install "murho[cli]"') from None
        rows = len(self.mean)
        levels = self.level if isinstance(self.level, tuple) else (self.level,)
        labels = [f"{100 * level:g}%" for level in levels]
        if len(set(labels)) < len(set(levels)):  # they differ in later digits
            labels = [f"{100 * level!r}%" for level in levels]
        columns: dict[str, NDArray[Any]] = {"mean": self.mean, "std": self.std}
        if self.epistemic is not None and self.aleatoric is not None:
            columns |= {"epistemic": self.epistemic, "aleatoric": self.aleatoric}
        single = not isinstance(self.level, tuple)
        ends = {"lower": self.lower, "upper": self.upper}
        for k, label in enumerate(labels):
            for name, end in ends.items():
                columns[f"{name} {label}"] = end if single else end[k]
            for side, name in enumerate(ends) if checks.switch("mc_error", mc_error) else ():
                columns[f"mc_error {name} {label}"] = self.mc_error[side] if single else self.mc_error[side, k]
        flat = {name: values.reshape(rows, -1) for name, values in columns.items()}
        width = flat["mean"].shape[1]
        suffixes = self.names if len(self.names) == width else [str(k + 1) for k in range(width)]
        values = {
            name if width == 1 else f"{name} {suffixes[k]}": of_all[:, k]
            for k in range(width)
            for name, of_all in flat.items()
        }
        try:
            frame = pd.DataFrame(values, index=index)
        except Exception as error:  # pandas', and those of whatever was given for an index
            raise InputError(f"index must have a label for each of {rows} rows: {error}") from None
        counted = np.array_equal(self.draws, np.arange(len(self.draws)))
        frame.attrs = {
            "draws": len(self.draws) if counted else tuple(self.draws.tolist()),
            "seed": self.seed,
            "mc_error": unsureness(self.lower, self.upper, self.mc_error),
        }
        return frame


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other)


def as_true_values(name: str, truth: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """True values of this shape, finite, in float64; [B] where it is [B, 1, …]."""
    values = checks.array(name, truth)
    if values.dtype.kind not in "fiu":
        raise InputError(f"{name} must hold numbers, not {values.dtype}. Convert it first.")
    if values.shape != shape and not (values.shape == shape[:1] and values.size == np.prod(shape, dtype=np.int64)):
        raise InputError(f"{name} must have the shape of the mean, {shape}, but has {values.shape}.")
    with np.errstate(over="ignore"):
        values = values.astype(np.float64).reshape(shape)
    if not np.isfinite(values).all():
        place = tuple(int(k) for k in np.argwhere(~np.isfinite(values))[0])
        raise InputError(
            f"{name} must be finite, but {name}{list(place)} is {values[place]}: nobody can say whether an interval "
            "covers it. Drop such rows first."
        )
    return values


def unsureness(lower: Floats, upper: Floats, error: Floats) -> float:
    """The largest Monte-Carlo error of an end as a share of its interval's width; ends [K, B, …], errors [2, K, B, …].

    0 where an interval has no width and its ends no error.
    """
    low, high, errors = lower.ravel(), upper.ravel(), error.reshape(2, -1)
    largest = 0.0
    for first in range(0, len(low), UNSURE_PIECE):
        piece = slice(first, first + UNSURE_PIECE)
        width = high[piece].astype(np.float64) - low[piece]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            share = np.where(errors[:, piece] > 0, errors[:, piece] / width, 0.0)
        largest = max(largest, float(share.max()))
    return largest


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-Σ p log p along the last axis; 0 log 0 is 0."""
    terms = p * np.log(np.where(p > 0, p, 1))
    total: NDArray[np.float64] = -terms.sum(axis=-1)
    return total


class Ends(NamedTuple):
    """Interval ends of a batch, and their Monte-Carlo errors."""

    lower: Floats
    """[K, B, …]."""
    upper: Floats
    error: Floats
    """[2, K, B, …]."""


class Quantiles:
    """The order of samples [S, B, …]: sorted once, for every level."""

    def __init__(self, samples: Floats) -> None:
        self._shape = samples.shape[1:]
        # Sorting [.., S] rows is several times faster than columns.
        self._ordered = np.array(np.moveaxis(samples, 0, -1), order="C").reshape(-1, len(samples))
        self._ordered.sort(axis=-1)

    def ends(self, levels: NDArray[np.float64]) -> Ends:
        """Lower and upper ends [K, B, …] of central intervals, the quantiles (1 ∓ level) / 2, and their errors.

        Errors [2, K, B, …] are Monte-Carlo standard errors of the lower and the upper ends. The rank of a quantile p in
        S draws is binomial: half the distance between the quantiles p ± √(p (1 - p) / S), one standard error of that
        rank away (David & Nagaraja 2003, section 7.1).
        """
        count, p = self._ordered.shape[-1], (1 - levels) / 2
        spread = np.sqrt(p * (1 - p) / count)
        outer, inner = np.maximum(p - spread, 0), p + spread
        tails = self.at(np.concatenate([p, (1 + levels) / 2, outer, inner, 1 - inner, 1 - outer]))
        lower, upper, a, b, c, d = tails.reshape(6, len(levels), *self._shape)
        share = (spread / (inner - outer)).astype(np.float32)  # 1/2, more where the outer one is the smallest draw
        with np.errstate(over="ignore"):
            distances = np.stack([b - a, d - c])
        errors: Floats = distances * share.reshape(-1, *(1 for _ in self._shape))
        unknown = count * p < FEWEST_BEYOND
        if unknown.any():
            # Draws that all agree leave nothing to be unsure of, however few they are.
            agree = (self._ordered[:, 0] == self._ordered[:, -1]).reshape(self._shape)
            errors[:, unknown] = np.where(agree, np.float32(0), np.float32(np.inf))
        return Ends(lower, upper, errors)

    def median(self) -> Floats:
        """[B, …]."""
        median: Floats = self.at(np.array([0.5]))[0]
        return median

    def at(self, tail: NDArray[np.float64]) -> Floats:
        """Quantiles [len(tail), B, …] with linear interpolation, as numpy.quantile."""
        last = self._ordered.shape[-1] - 1
        position = tail * last
        below = position.astype(np.int64)
        share = (position - below).astype(np.float32)
        low, high = self._ordered[:, below], self._ordered[:, np.minimum(below + 1, last)]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
            return np.ascontiguousarray((low + share * (high - low)).T).reshape(-1, *self._shape)


def ends_by_rows(
    samples: Floats, levels: NDArray[np.float64], of: Callable[[Quantiles, slice], Ends] | None = None
) -> Ends:
    """Ends of samples [S, B, …] at levels [K], one block of rows after the other: their own, or what `of` makes."""
    shape, count = samples.shape[1:], len(levels)
    lower, upper = np.empty((count, *shape), np.float32), np.empty((count, *shape), np.float32)
    error = np.empty((2, count, *shape), np.float32)
    for rows in row_blocks(shape[0], prod(shape[1:]), len(samples), count):
        quantiles = Quantiles(samples[:, rows])
        part = of(quantiles, rows) if of else quantiles.ends(levels)
        lower[:, rows], upper[:, rows], error[:, :, rows] = part
    return Ends(lower, upper, error)


def moments(samples: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance (with S - 1) [B, …] of samples [S, B, …]; their float64 copies are made piece by piece."""
    shape, count = samples.shape[1:], len(samples)
    mean, variance = np.empty(shape), np.zeros(shape)
    for rows in row_blocks(shape[0], prod(shape[1:]), count, 0):
        mean[rows] = samples[:, rows].mean(axis=0, dtype=np.float64)
        for start in range(0, count, PIECE):
            variance[rows] += np.square(samples[start : start + PIECE, rows] - mean[rows]).sum(axis=0)
    return mean, variance / (count - 1)


def check_finite(*values: Floats) -> None:
    """Refuse spreads and ends [K, B, …] that float32 cannot hold, though it holds each sample."""
    for value in values:
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(value.sum(dtype=np.float64))  # if all are, and takes no memory
        if not finite:
            row = int(np.argwhere(~np.isfinite(value))[0][1])
            raise InputError(
                f"The interval of row {row} is beyond float32's largest number, {checks.FLOAT32_MAX:.3g}, though its "
                "samples are not. Predict in a larger unit."
            )


def summarise(
    samples: Floats,
    level: float | tuple[float, ...],
    draws: NDArray[np.int64],
    seed: int,
    names: tuple[str, ...] = (),
    ends: Ends | None = None,
) -> Intervals:
    """The statistics of samples [S, B, …], as the artifact's own outputs define them.

    `ends` are given where they are not the samples' own quantiles.
    """
    if ends is None:
        ends = ends_by_rows(samples, np.atleast_1d(np.asarray(level, dtype=np.float64)))
    lower, upper, error = ends
    mean, variance = moments(samples)
    with np.errstate(over="ignore"):
        std = np.sqrt(variance).astype(np.float32)
    check_finite(std[np.newaxis], lower, upper)
    single = not isinstance(level, tuple)
    return Intervals(
        mean=mean.astype(np.float32),
        std=std,
        lower=lower[0] if single else lower,
        upper=upper[0] if single else upper,
        mc_error=error[:, 0] if single else error,
        samples=samples,
        level=level,
        draws=draws,
        seed=seed,
        names=names,
    )
