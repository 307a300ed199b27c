"""Whether two systems have one law, and how many draws an interval needs: from samples, with Monte-Carlo errors."""

import numpy as np
from numpy.typing import NDArray
from studies import jackknife

from murho.cli.bench import LEVEL
from murho.runtime.compare import TOLERANCE

Floats = NDArray[np.float64]


class Pool:
    """Moments over the draws of all samples [S, B, …] that were added, without keeping these."""

    def __init__(self) -> None:
        self.count = 0
        self._shift: Floats | None = None
        self._powers: list[Floats] = []

    def add(self, samples: NDArray[np.float32]) -> None:
        if self._shift is None:
            self._shift = samples.mean(axis=0, dtype=np.float64)
            self._powers = [np.zeros_like(self._shift) for _ in range(4)]
        self.count += len(samples)
        from_shift = samples - self._shift
        power = np.ones_like(from_shift)
        for total in self._powers:
            power *= from_shift
            total += power.sum(axis=0)

    def moments(self) -> tuple[Floats, Floats, Floats]:
        """Mean, variance and fourth central moment [B, …], all with 1/S."""
        assert self._shift is not None
        a, b, c, d = (total / self.count for total in self._powers)  # raw moments about the shift
        return self._shift + a, b - a**2, d - 4 * a * c + 6 * a**2 * b - 3 * a**4


def apart(pool: Pool, reference: Pool) -> float:
    """How many standard errors the means and standard deviations of two pools are apart, at most over all elements.

    If both have one law, of variance v and fourth central moment m, their means differ with variance v (1/S + 1/S'),
    and their standard deviations with (m - v²) / (4 v) · (1/S + 1/S') (the delta method on the sample variance, whose
    own is (m - v²) / S). v and m come from the reference, which has more draws. Differences within float32 arithmetic
    do not count.
    """
    (mean, variance, _), (mean0, variance0, fourth0) = pool.moments(), reference.moments()
    share = 1 / pool.count + 1 / reference.count
    error = np.sqrt(variance0 * share)
    error_std = np.sqrt(np.maximum(fourth0 - variance0**2, 0) / np.maximum(4 * variance0, 1e-300) * share)
    rounding = TOLERANCE * (np.abs(mean0) + np.sqrt(variance0)).max()
    off = np.abs(mean - mean0), np.abs(np.sqrt(np.maximum(variance, 0)) - np.sqrt(variance0))
    found = [np.maximum(o - rounding, 0) / np.maximum(e, 1e-300) for o, e in zip(off, (error, error_std), strict=True)]
    return float(np.max(found))


def draws_needed(samples: NDArray[np.float32], share: float) -> tuple[float, float]:
    """Draws for a standard error of an interval's ends of `share` of its width, and the error of that number.

    An end is the sample quantile p of S draws. Between the order statistics at p ∓ 2 √(p (1 - p) / S) lies the true
    quantile with 95 % (David & Nagaraja, Order Statistics, 2003, section 7.1), so a quarter of their distance is the
    standard error; it falls as 1/√S. Root mean square over both ends and all elements of samples [S, B, …].
    """

    def needed(part: NDArray[np.float32]) -> float:
        p = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        reach = 2 * np.sqrt(p * (1 - p) / len(part))
        low, high, ends = (np.quantile(part, at, axis=0) for at in (p - reach, p + reach, p))
        errors = (high - low) / 4 / (ends[1] - ends[0])
        return float(len(part) * np.mean(errors**2) / share**2)

    return jackknife(needed, samples)
