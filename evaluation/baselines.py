"""What a user might take instead: the same windows, forecast by other methods.

Each returns forecasts of the calibration and the test part. All but the tutorial's are then calibrated like murho's.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor

from ..export import to_onnx
from ..models import Forecaster
from ..runtime import Scaling, load
from ..runtime.checks import instance
from ..runtime.compare import raw_units
from ..runtime.files import scratch_folder
from ..train import Dataset, Part, Series, fit, prepare, standardise
from .forecasts import LEVELS, Forecasts

Pair = tuple[Forecasts, Forecasts]
PERIODS = (5, 7, 12, 24, 48, 96, 168)  # rows of a season that are tried: weeks, days, years of usual samplings
TUTORIAL_WINDOW, TUTORIAL_DRAWS = 21, 100


def random_walk(data: Dataset) -> Pair:
    """The last value as the median; the ends lie a unit away: 1, or for returns the last value itself."""
    instance("data", data, Dataset)
    return _parts(data, lambda part: _around(part, np.repeat(part.x[:, -1:, 0], data.horizon, axis=1), data))


def seasonal_naive(data: Dataset) -> tuple[int, Pair]:
    """The value one season ago as the median, with the ends of `random_walk`.

    The season is the one of `PERIODS`, as far as they fit the window, with the least mean square on the training part.
    Returns it too.
    """
    instance("data", data, Dataset)
    periods = [period for period in PERIODS if data.horizon <= period <= data.shape[0]] or [data.shape[0]]

    def ago(part: Part, period: int) -> NDArray[Any]:
        first = data.shape[0] - period
        return part.x[:, first : first + data.horizon, 0]

    period = min(periods, key=lambda p: float(np.square(ago(data.train, p) - data.train.y).mean()))
    return period, _parts(data, lambda part: _around(part, ago(part, period), data))


def quantile_regression(data: Dataset) -> Pair:
    """scikit-learn's gradient boosting with the quantile loss, one model for each quantile and step.

    It reads the windows as murho's network does: differences or returns, standardised.
    """
    instance("data", data, Dataset)
    tails = [(1 - level) / 2 for level in LEVELS]
    wanted = [*tails, 0.5, *(1 - tail for tail in tails)]
    x, y = standardise(data.train, data.scaling)
    parts = data.calibration, data.test
    rows = [standardise(part, data.scaling)[0].reshape(len(part), -1) for part in parts]
    found = [np.empty((len(wanted), len(part), data.horizon)) for part in parts]
    for k, quantile in enumerate(wanted):
        for step in range(data.horizon):
            model = HistGradientBoostingRegressor(loss="quantile", quantile=quantile, random_state=0)
            model.fit(x.reshape(len(x), -1), y[:, step])
            for values, seen in zip(found, rows, strict=True):
                values[k, :, step] = model.predict(seen)
    many = len(LEVELS)
    forecasts = []
    for values, part in zip(found, parts, strict=True):
        scale, offset = raw_units(data.scaling, part.x)
        raw = np.sort(values * scale + offset, axis=0)  # quantiles that cross are put in order
        # `tails` fall as the levels rise: of the sorted quantiles the first is the lower end of the widest interval.
        forecasts.append(Forecasts(raw[many], raw[:many][::-1], raw[many + 1 :]))
    return forecasts[0], forecasts[1]


def tutorial(series: Series, data: Dataset, seed: int = 0, epochs: int = 120) -> Pair:
    """BLiTZ's time-series tutorial: its network on levels, each step's mean fed back, mean ± z·std over the weights.

    As there, the scaling is that of the whole series, future included, and windows have 21 rows.
    """
    levels = prepare(series, TUTORIAL_WINDOW, 1, data.splits)
    whole = series.values[:, :1]
    mean, scale = (float(np.float32(v)) for v in (whole.mean(dtype=np.float64), whole.std(dtype=np.float64)))
    scaling = Scaling((mean,), (scale,), (mean,), (scale,))
    alone = replace(levels, scaling=scaling, train=replace(levels.train, x=levels.train.x[..., :1]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Forecaster()
    fit(network, alone, epochs=epochs, seed=seed)
    with scratch_folder() as folder:
        path = folder / "tutorial.onnx"
        to_onnx(network, path, alone.train.x[:32], scaling=scaling)
        model = load(path)

    def forecast(part: Part) -> Forecasts:
        windows = part.x[:, -TUTORIAL_WINDOW:, :1]
        if windows.shape[1] < TUTORIAL_WINDOW:
            raise ValueError(f"the tutorial's windows have {TUTORIAL_WINDOW} rows")
        answers = [model.forecast(windows[k : k + 256], data.horizon, TUTORIAL_DRAWS) for k in range(0, len(part), 256)]
        mean = np.concatenate([answer.mean for answer in answers]).astype(np.float64)
        std = np.concatenate([answer.std for answer in answers]).astype(np.float64)
        half = stats.norm.ppf([(1 + level) / 2 for level in LEVELS])[:, np.newaxis, np.newaxis] * std
        return Forecasts(mean, mean - half, mean + half)

    return forecast(data.calibration), forecast(data.test)


def _parts(data: Dataset, forecast: Callable[[Part], Forecasts]) -> Pair:
    return forecast(data.calibration), forecast(data.test)


def _around(part: Part, median: NDArray[Any], data: Dataset) -> Forecasts:
    unit = np.abs(part.x[:, -1:, 0]) if data.scaling.values == "returns" else np.ones((len(part), 1))
    median = median.astype(np.float64)
    half = np.broadcast_to(unit, (len(LEVELS), *median.shape))
    return Forecasts(median, median - half, median + half)
