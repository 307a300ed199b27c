"""Scores of interval forecasts. Those of whole distributions come from the package scoringrules."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scoringrules
from numpy.typing import ArrayLike

from ..runtime.checks import instance
from ..runtime.intervals import as_true_values
from .forecasts import LEVELS, Forecasts


@dataclass(frozen=True)
class Scores:
    """Of N rows and O steps or outputs; widths and scores in raw units, smaller is better."""

    coverage: dict[str, float]
    """Per level: share of true values inside the interval."""
    coverage_error: dict[str, float]
    """Standard error of that share, binomial, for N rows; a lower bound where forecasts overlap."""
    coverage_per_step: dict[str, list[float]]
    width: dict[str, float]
    interval_score: dict[str, float]
    """Width plus 2/(1 - level) times the distance of a true value outside (Winkler 1972; Gneiting & Raftery 2007)."""
    pinball: dict[str, float]
    """Mean pinball loss of the interval's two ends, as quantiles."""
    crps: float
    """Continuous ranked probability score, from the quantiles at all levels and the median."""
    rows: int

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def score(forecasts: Forecasts, truth: ArrayLike) -> Scores:
    """Compare forecasts of N rows with the truth [N, O]. Raises InputError for another shape, or a NaN."""
    instance("forecasts", forecasts, Forecasts)
    y = as_true_values("truth", truth, forecasts.median.shape)
    inside = (forecasts.lower <= y) & (y <= forecasts.upper)
    names = [f"{level:g}" for level in LEVELS]

    def by_level(values: Any) -> dict[str, Any]:
        return dict(zip(names, values, strict=True))

    tails = [(1 - level) / 2 for level in LEVELS]
    ends = list(zip(tails, forecasts.lower, forecasts.upper, strict=True))
    quantiles = np.stack([*forecasts.lower, forecasts.median, *forecasts.upper], axis=-1)
    order = np.array([*tails, 0.5, *(1 - tail for tail in tails)])
    coverage = inside.mean(axis=(1, 2))
    return Scores(
        coverage=by_level(coverage.tolist()),
        coverage_error=by_level(np.sqrt(coverage * (1 - coverage) / len(y)).tolist()),
        coverage_per_step=by_level(inside.mean(axis=1).tolist()),
        width=by_level((forecasts.upper - forecasts.lower).mean(axis=(1, 2)).tolist()),
        interval_score=by_level(float(scoringrules.interval_score(y, low, up, 2 * t).mean()) for t, low, up in ends),
        pinball=by_level(
            float((scoringrules.quantile_score(y, low, t) + scoringrules.quantile_score(y, up, 1 - t)).mean() / 2)
            for t, low, up in ends
        ),
        crps=float(scoringrules.crps_quantile(y, quantiles, order).mean()),
        rows=len(y),
    )
