"""Online calibration: keep the intervals honest while the world drifts, by adaptive conformal inference.

For each level and output the interval is stretched by one more factor, exp(θ). When the truth is known, θ takes a step:
up by η·level if the interval missed it, down by η·(1 - level) if not, so that in the long run it misses 1 - level of
the time whatever the world does (Gibbs & Candès 2021; Angelopoulos, Candès & Tibshirani 2023, quantile tracking; here
in the logarithm, so that it fits every scale). How far to step is not known beforehand, so experts with steps from
0.002 to 0.1 each keep a θ of their own, and weights that follow their losses choose between them (Gibbs & Candès 2024,
DtACI). For u = log(score), the logarithm of the factor at which the interval would just have reached the truth:

    loss_i = (level if u > θ_i, else 1 - level)·min(|u - θ_i|, 6)
    w_i = w_i·exp(-loss_i);  w_i = w_i / Σ w;  w_i = (1 - s)·w_i + s/m          s = 1/500, m experts
    θ_i = clip(θ_i + η_i·([u > θ_i] - (1 - level)), -3, 3)
    factor = exp(Σ w_i·θ_i)

It starts at θ_i = 0, w_i = 1/m. The factor lies between 0.05 and 20, so no interval is ever empty or infinite.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import conformal

Floats = NDArray[np.float64]

STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
SHARE = 1 / 500
BOUND = 3.0
SMALLEST_SCORE = 1e-9


@dataclass(frozen=True, eq=False)
class Forecast:
    """The intervals of one prediction, before they were adapted: what is needed to score them later."""

    median: Floats
    """[B, O]."""
    lower: Floats
    """[K, B, O] at the levels of the state."""
    upper: Floats
    known: int = 0
    """How many of a forecast's steps are known already."""


@dataclass(frozen=True, eq=False)
class OnlineState:
    """What was learnt so far, and the forecasts whose truth is still to come. Replaced, never changed."""

    levels: tuple[float, ...]
    """K levels that are followed, ascending."""
    theta: Floats
    """[experts, K, O] logarithms of factors."""
    weights: Floats
    """[experts, K, O]."""
    pending: tuple[Forecast, ...] = ()
    """The newest last."""
    observed: int = 0
    """How often the truth was told."""

    def factors(self, levels: Floats) -> Floats:
        """Factors [K', O] at any levels [K'], interpolated in the logarithm, constant beyond the followed ones."""
        mean = (self.weights * self.theta).sum(axis=0)
        columns = [np.interp(levels, self.levels, column) for column in mean.T]
        factors: Floats = np.exp(np.stack(columns, axis=-1))
        return factors


def initial(levels: Sequence[float], outputs: int) -> OnlineState:
    shape = len(STEPS), len(levels), outputs
    return OnlineState(tuple(levels), np.zeros(shape), np.full(shape, 1 / len(STEPS)))


def updated(state: OnlineState, scores: Floats) -> OnlineState:
    """The state after scores [K, B, O] of B rows, NaN where the truth is not known: the mean of their steps."""
    level = np.array(state.levels)[:, np.newaxis]
    known = ~np.isnan(scores).all(axis=1)  # [K, O]
    u = np.log(np.maximum(scores, SMALLEST_SCORE))  # [K, B, O]
    theta = state.theta[:, :, np.newaxis]  # [experts, K, 1, O]
    over = np.where(np.isnan(u), np.nan, u > theta)
    off = np.minimum(np.abs(u - theta), 2 * BOUND)  # an infinite score must not take every expert's weight
    sides = np.where(over == 1, level[:, np.newaxis], 1 - level[:, np.newaxis])
    loss, missed = _mean(sides * off), _mean(over)
    weights = state.weights * np.exp(-loss)
    weights = (1 - SHARE) * weights / weights.sum(axis=0) + SHARE / len(STEPS)
    step = np.array(STEPS)[:, np.newaxis, np.newaxis] * (missed - (1 - level))
    return replace(
        state,
        theta=np.where(known, np.clip(state.theta + step, -BOUND, BOUND), state.theta),
        weights=np.where(known, weights, state.weights),
        observed=state.observed + 1,
    )


def with_forecast(state: OnlineState, forecast: Forecast) -> OnlineState:
    return replace(state, pending=(*state.pending, forecast))


def told(state: OnlineState, truth: Floats) -> OnlineState:
    """The state after news of the pending forecasts, NaN where nothing is known.

    `truth` [B, O] settles the latest forecast at once. `truth` [B, 1] is the next value of each series: the first step
    of the latest forecast, the second of the one before, and so on; their scores count together.
    """
    outputs = state.theta.shape[2]
    if truth.shape[1] == outputs:
        scored = conformal.scores(*_geometry(state.pending[-1]), truth)
        return replace(updated(state, scored), pending=())
    scored = np.full((len(state.levels), len(truth), outputs), np.nan)
    left = []
    for forecast in state.pending:
        k = forecast.known
        if len(forecast.median) == len(truth):
            step = slice(k, k + 1)
            median, lower, upper = _geometry(forecast)
            scored[:, :, step] = conformal.scores(median[:, step], lower[..., step], upper[..., step], truth)
            if k + 1 < outputs:
                left.append(replace(forecast, known=k + 1))
    return replace(updated(state, scored), pending=tuple(left))


def _geometry(forecast: Forecast) -> tuple[Floats, Floats, Floats]:
    return forecast.median, forecast.lower, forecast.upper


def _mean(of_rows: NDArray[Any]) -> Floats:
    """[…, K, B, O] -> […, K, O] over the rows that are known; 0 where none is."""
    known = ~np.isnan(of_rows)
    total: Floats = np.where(known, of_rows, 0.0).sum(axis=-2) / np.maximum(known.sum(axis=-2), 1)
    return total
