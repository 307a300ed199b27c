"""Scores against their formulas written out here, and the methods that murho is compared with."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from murho.evaluation import (
    LEVELS,
    Forecasts,
    compare,
    quantile_regression,
    random_walk,
    score,
    seasonal_naive,
    split_conformal,
)
from murho.runtime import conformal
from murho.train import Dataset, Series, prepare


def series(values: np.ndarray, name: str = "made") -> Series:
    return Series(name, "y", (), values.astype(np.float32)[:, None], np.arange(len(values)))


@pytest.fixture(scope="module")
def walk() -> Dataset:
    values = 100 + np.random.default_rng(0).standard_normal(900).cumsum()
    return prepare(series(values), 14, 3, values="differences")


def normal_forecasts(mean: np.ndarray, std: float) -> Forecasts:
    half = stats.norm.ppf([(1 + level) / 2 for level in LEVELS])[:, None, None] * std
    return Forecasts(mean, mean - half, mean + half)


def test_scores_are_their_formulas() -> None:
    random = np.random.default_rng(0)
    mean, truth = random.standard_normal((200, 2)), 2 * random.standard_normal((200, 2))
    forecasts = normal_forecasts(mean, 1.5)
    found = score(forecasts, truth)
    for k, level in enumerate(LEVELS):
        low, high, key = forecasts.lower[k], forecasts.upper[k], f"{level:g}"
        outside = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
        assert found.interval_score[key] == pytest.approx((high - low + 2 / (1 - level) * outside).mean())
        inside = (low <= truth) & (truth <= high)
        assert found.coverage[key] == inside.mean()
        assert found.coverage_per_step[key] == inside.mean(axis=0).tolist()
        assert found.coverage_error[key] == pytest.approx(math.sqrt(inside.mean() * (1 - inside.mean()) / 200))
        assert found.width[key] == pytest.approx((high - low).mean())
        tail = (1 - level) / 2
        ends = ((low, tail), (high, 1 - tail))
        losses = [np.where(truth >= q, p * (truth - q), (1 - p) * (q - truth)) for q, p in ends]
        assert found.pinball[key] == pytest.approx(np.mean(losses))
    quantiles = np.concatenate([forecasts.lower, forecasts.median[None], forecasts.upper])
    orders = np.array([(1 - v) / 2 for v in LEVELS] + [0.5] + [(1 + v) / 2 for v in LEVELS])[:, None, None]
    pinball = np.where(truth >= quantiles, orders * (truth - quantiles), (1 - orders) * (quantiles - truth))
    assert found.crps == pytest.approx(2 * pinball.mean(axis=0).mean())
    assert found.rows == 200


def test_the_crps_is_near_the_integral() -> None:
    """Thirteen quantiles against ∫ (F(x) - [x ≥ y])² dx of the normal law: a coarse sum, within a fifth."""
    found = score(normal_forecasts(np.zeros((1, 1)), 1.0), [[0.7]]).crps
    below = integrate.quad(lambda x: stats.norm.cdf(x) ** 2, -8, 0.7)[0]
    above = integrate.quad(lambda x: stats.norm.sf(x) ** 2, 0.7, 8)[0]
    assert found == pytest.approx(below + above, rel=0.2)


def test_a_random_walk_is_covered(walk: Dataset) -> None:
    before, after = random_walk(walk)
    np.testing.assert_array_equal(after.median, np.repeat(walk.test.x[:, -1:, 0], 3, axis=1))
    split = split_conformal(before, walk.calibration.y, after)
    widths = np.abs(walk.calibration.y - walk.calibration.x[:, -1:, 0])
    for k, level in enumerate(LEVELS):  # the classical split conformal interval: last value ± the conformal quantile
        half = conformal.quantile(widths.astype(np.float64), level)
        np.testing.assert_allclose(split.upper[k] - split.median, np.broadcast_to(half, split.median.shape), rtol=1e-5)


def test_a_season_is_found() -> None:
    values = np.tile(np.arange(12.0), 60) + 0.01 * np.arange(720)  # of 12 and 24 rows, the shorter is nearer
    data = prepare(series(values), 24, 4)
    period, (_, test) = seasonal_naive(data)
    assert period == 12
    np.testing.assert_array_equal(test.median, data.test.x[:, 12:16, 0])


def test_quantile_regression_learns_a_scale() -> None:
    """The noise's size is the window's last value: the intervals follow it."""
    random = np.random.default_rng(0)
    size = random.uniform(0.2, 3, 1500)
    values = np.empty(3000)
    values[0::2], values[1::2] = size, 10 + size * random.standard_normal(1500)
    data = prepare(series(values), 2, 1)
    test = quantile_regression(data)[1]
    last = data.test.x[:, -1, 0]
    noisy = last < 5  # the last value is a size, and noise comes
    width = (test.upper - test.lower)[LEVELS.index(0.9), :, 0]
    assert np.corrcoef(width[noisy], last[noisy])[0, 1] > 0.8
    found = score(test, data.test.y)
    assert (np.diff(test.lower, axis=0) <= 0).all()
    assert (np.diff(test.upper, axis=0) >= 0).all()
    assert found.coverage["0.9"] > 0.75


def test_all_methods_side_by_side(walk: Dataset) -> None:
    values = np.concatenate([walk.train.x[:, 0, 0], walk.calibration.x[:, 0, 0], walk.test.x[:, 0, 0]])
    found = {name: score(f, walk.test.y) for name, f in compare(series(values), walk, quick=True)}
    assert list(found) == [
        f"{method}, {how}" for method in ("random walk", "season of 5 rows") for how in ("split", "online")
    ]
    assert found["random walk, split"].interval_score["0.9"] < found["season of 5 rows, split"].interval_score["0.9"]
    assert max(abs(found["random walk, online"].coverage[f"{v:g}"] - v) for v in LEVELS) < 0.05
