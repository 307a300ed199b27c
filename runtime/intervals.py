"""Prediction intervals: what a set of samples says, and how it is handed out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]

FEWEST_BEYOND = 1.0
"""Draws beyond an end, on average, from which on its error is estimated: below, it comes out a third too small."""


@dataclass(frozen=True)
class Intervals:
    """Prediction of a batch of B rows, in raw units.

    For one level, `lower` and `upper` are [B, …]; for a sequence of K levels they are [K, B, …].
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
    epistemic: Floats | None = None
    """Part of the variance std² [B, …] that comes from the weights being unsure; None unless asked for (`parts`)."""
    aleatoric: Floats | None = None
    """Part of the variance [B, …] that comes from observation noise; None unless asked for."""

    def coverage(self, truth: ArrayLike) -> Any:
        """Share of the true values [B, …] that lie inside, ends included: a float, or [K] for K levels."""
        y = np.asarray(truth, dtype=np.float64).reshape(self.mean.shape)
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

    def to_frame(self, index: Any = None) -> "pd.DataFrame":
        """One row per row of the batch: mean, std, and the ends of each level as `lower 95%`, `upper 95%`.

        An output of several values per row gets a column for each, by name or numbered from 1: `mean 1`, `mean 2`, …
        """
        import pandas as pd

        rows = len(self.mean)
        levels = self.level if isinstance(self.level, tuple) else (self.level,)
        columns = {"mean": self.mean, "std": self.std}
        for level, low, high in zip(levels, _stacked(self.lower, self), _stacked(self.upper, self), strict=True):
            columns[f"lower {100 * level:g}%"] = low
            columns[f"upper {100 * level:g}%"] = high
        flat = {name: values.reshape(rows, -1) for name, values in columns.items()}
        width = flat["mean"].shape[1]
        suffixes = self.names if len(self.names) == width else [str(k + 1) for k in range(width)]
        return pd.DataFrame(
            {
                name if width == 1 else f"{name} {suffixes[k]}": values[:, k]
                for k in range(width)
                for name, values in flat.items()
            },
            index=index,
        )


def _stacked(ends: Floats, intervals: Intervals) -> Floats:
    return ends if isinstance(intervals.level, tuple) else ends[np.newaxis]


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-Σ p log p along the last axis; 0 log 0 is 0."""
    terms = p * np.log(np.where(p > 0, p, 1))
    total: NDArray[np.float64] = -terms.sum(axis=-1)
    return total


class Quantiles:
    """The order of samples [S, B, …]: sorted once, for every level."""

    def __init__(self, samples: Floats) -> None:
        self._shape = samples.shape[1:]
        # Sorting [.., S] rows is several times faster than columns.
        self._ordered = np.sort(samples.reshape(len(samples), -1).T, axis=-1)

    def ends(self, levels: NDArray[np.float64]) -> tuple[Floats, Floats, Floats]:
        """Lower and upper ends [K, B, …] of central intervals, the quantiles (1 ∓ level) / 2, and their errors.

        Errors [2, K, B, …] are Monte-Carlo standard errors of the lower and the upper ends. The rank of a quantile p in
        S draws is binomial: half the distance between the quantiles p ± √(p (1 - p) / S), one standard error of that
        rank away (David & Nagaraja 2003, section 7.1).
        """
        count, p = self._ordered.shape[-1], (1 - levels) / 2
        spread = np.sqrt(p * (1 - p) / count)
        outer, inner = np.maximum(p - spread, 0), p + spread
        tails = self._at(np.concatenate([p, (1 + levels) / 2, outer, inner, 1 - inner, 1 - outer]))
        lower, upper, a, b, c, d = tails.reshape(6, len(levels), *self._shape)
        share = (spread / (inner - outer)).astype(np.float32)  # 1/2, more where the outer one is the smallest draw
        errors: Floats = np.stack([b - a, d - c]) * share.reshape(-1, *(1 for _ in self._shape))
        unknown = count * p < FEWEST_BEYOND
        if unknown.any():
            errors[:, unknown] = np.where(errors[:, unknown] > 0, np.float32(np.inf), np.float32(0))
        return lower, upper, errors

    def median(self) -> Floats:
        """[B, …]."""
        median: Floats = self._at(np.array([0.5]))[0]
        return median

    def _at(self, tail: NDArray[np.float64]) -> Floats:
        """With linear interpolation, as numpy.quantile."""
        last = self._ordered.shape[-1] - 1
        position = tail * last
        below = position.astype(np.int64)
        share = (position - below).astype(np.float32)
        low, high = self._ordered[:, below], self._ordered[:, np.minimum(below + 1, last)]
        return np.ascontiguousarray((low + share * (high - low)).T).reshape(-1, *self._shape)


def moments(samples: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance (with S - 1) [B, …] of samples [S, B, …]."""
    mean = samples.mean(axis=0, dtype=np.float64)
    variance = np.zeros_like(mean)
    for start in range(0, len(samples), 4096):  # in pieces: float64 copies of all samples would double the memory
        variance += np.square(samples[start : start + 4096] - mean).sum(axis=0)
    return mean, variance / (len(samples) - 1)


def summarise(
    samples: Floats,
    level: float | tuple[float, ...],
    draws: NDArray[np.int64],
    seed: int,
    names: tuple[str, ...] = (),
    ends: tuple[Floats, Floats, Floats] | None = None,
) -> Intervals:
    """The statistics of samples [S, B, …], as the artifact's own outputs define them.

    `ends` are lower, upper [K, B, …] and their errors [2, K, B, …], where they are not the samples' own quantiles.
    """
    if ends is None:
        quantiles, levels = Quantiles(samples), np.atleast_1d(np.asarray(level, dtype=np.float64))
        ends = quantiles.ends(levels)
    lower, upper, error = ends
    mean, variance = moments(samples)
    single = not isinstance(level, tuple)
    return Intervals(
        mean=mean.astype(np.float32),
        std=np.sqrt(variance).astype(np.float32),
        lower=lower[0] if single else lower,
        upper=upper[0] if single else upper,
        mc_error=error[:, 0] if single else error,
        samples=samples,
        level=level,
        draws=draws,
        seed=seed,
        names=names,
    )
