"""Interval forecasts of many rows, from any method, and the two ways to make them honest that all methods share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..runtime import InputError, Model, conformal, online
from ..runtime.checks import instance
from ..runtime.inputs import as_inputs
from ..runtime.intervals import as_true_values

Floats = NDArray[np.float64]

LEVELS = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
ROWS = 256  # of a call, so that a long test part needs little memory


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Medians and central intervals of N rows at `LEVELS`, in raw units."""

    median: Floats
    """[N, O]."""
    lower: Floats
    """[K, N, O]."""
    upper: Floats


def of_model(
    model: Model,
    x: NDArray[np.float32],
    draws: int = 256,
    calibrated: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Forecasts:
    """An artifact's forecasts of windows x [N, …]; `advance` is told how many rows are done."""
    instance("model", model, Model)
    (x,) = as_inputs(model.card, x)[:1]  # all of it, before work: an error then names the row
    parts = []
    for start in range(0, len(x), ROWS):
        try:
            answer = model.predict(x[start : start + ROWS], draws, LEVELS, calibrated=calibrated)
        except InputError as error:
            raise InputError(f"Of the rows from {start} on: {error}" if start else str(error)) from None
        parts.append((np.median(answer.samples, axis=0)[np.newaxis], answer.lower, answer.upper))
        advance(len(x[start : start + ROWS]))
    median, lower, upper = (np.concatenate(part, axis=1).astype(np.float64) for part in zip(*parts, strict=True))
    return Forecasts(median[0], lower, upper)


def split_conformal(calibration: Forecasts, truth: ArrayLike, test: Forecasts) -> Forecasts:
    """The test part's intervals, stretched by what the calibration part needed; as `Model.calibrate` does."""
    for name, value in (("calibration", calibration), ("test", test)):
        instance(name, value, Forecasts)
    y = as_true_values("truth", truth, calibration.median.shape)
    scores = conformal.scores(calibration.median, calibration.lower, calibration.upper, y)
    factors = np.stack([conformal.quantile(s, level) for s, level in zip(scores, LEVELS, strict=True)])
    return _stretched(test, factors[:, np.newaxis])


def followed(test: Forecasts, truth: ArrayLike) -> Forecasts:
    """The same intervals, row by row adapted to the truth as it becomes known; as `Model.observe` does.

    Row t forecasts the O values from row t on, so its step k is known when row t + k + 1 is forecast.
    """
    instance("test", test, Forecasts)
    y = as_true_values("truth", truth, test.median.shape)
    state = online.initial(LEVELS, y.shape[1])
    factors = np.empty_like(test.lower)
    for row in range(len(y)):
        factors[:, row] = state.factors(np.array(LEVELS))
        own = slice(row, row + 1)
        forecast = online.Forecast(test.median[own], test.lower[:, own], test.upper[:, own])
        state = online.told(online.with_forecast(state, forecast), y[own, :1])
    return _stretched(test, factors)


def _stretched(test: Forecasts, factors: Floats) -> Forecasts:
    return Forecasts(test.median, *conformal.stretch(test.median, test.lower, test.upper, factors))
