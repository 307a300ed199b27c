"""Online calibration: the documented arithmetic, the bookkeeping of a horizon, and coverage when the world drifts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from online_vectors import factors

import murho
from murho import ArtifactError, InputError, Noise
from murho.evaluation import LEVELS, Forecasts, followed
from murho.export import to_onnx
from murho.models import Forecaster, Regressor
from murho.runtime import online


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x [B, 6, 1] -> three steps ahead."""
    path = tmp_path_factory.mktemp("online") / "forecaster.onnx"
    torch.manual_seed(0)
    network = Forecaster(hidden=4, horizon=3, posterior_rho_init=-2.0)
    x = np.random.default_rng(0).standard_normal((16, 6, 1)).astype(np.float32)
    to_onnx(network, path, x, task="forecast", noise=Noise(scale=(0.5, 0.7, 0.9)), levels=(0.8, 0.95))
    return path


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    return np.random.default_rng(3).standard_normal(80).astype(np.float32)


def window(series: np.ndarray, t: int) -> np.ndarray:
    return series[t - 6 : t].reshape(1, 6, 1)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_documented_arithmetic(level: float) -> None:
    """Against plain Python, written from the documentation, over many scores."""
    scores = np.exp(np.random.default_rng(0).normal(0.2, 1.5, 300)).tolist()
    state = online.initial([level], 1)
    for score, factor in zip(scores, factors(scores, level), strict=True):
        state = online.updated(state, np.array([[[score]]]))
        np.testing.assert_allclose(state.factors(np.array([level]))[0, 0], factor, rtol=1e-12)


def test_the_vectors_in_the_documentation() -> None:
    """docs/online.json: what a host in another language can check itself against."""
    vectors = json.loads((Path(__file__).parents[1] / "docs" / "online.json").read_text())
    for case in vectors["cases"]:
        state = online.initial([case["level"]], 1)
        for score, factor in zip(case["scores"], case["factors"], strict=True):
            state = online.updated(state, np.array([[[score]]]))
            np.testing.assert_allclose(state.factors(np.array([case["level"]]))[0, 0], factor, rtol=1e-9)


def test_what_is_not_known_changes_nothing() -> None:
    state = online.updated(online.initial([0.8, 0.9], 2), np.array([[[2.0, np.nan]], [[2.0, np.nan]]]))
    assert (state.theta[:, :, 0] != 0).all()
    assert (state.theta[:, :, 1] == 0).all()
    np.testing.assert_array_equal(state.weights[:, :, 1], np.full((6, 2), 1 / 6))


@pytest.mark.parametrize("score", [0.0, 1e300, math.inf])
def test_factors_are_bounded(score: float) -> None:
    state = online.initial([0.95], 1)
    for _ in range(3000):
        state = online.updated(state, np.array([[[score]]]))
    factor = state.factors(np.array([0.95]))[0, 0]
    assert math.exp(-3) <= factor <= math.exp(3)
    assert np.isfinite(state.weights).all()


def test_observe_settles_every_step(forecaster: Path, series: np.ndarray) -> None:
    """Against bookkeeping by hand: value t settles step 1 of the forecast made at t, step 2 of the one before, …"""
    model = murho.load(forecaster)
    state, plain = online.initial((0.8, 0.95), 3), []
    for t in range(6, 40):
        answer = model.predict(window(series, t), 64, [0.8, 0.95])
        raw = model.predict(window(series, t), 64, [0.8, 0.95], calibrated=False)
        median = np.median(raw.samples, axis=0).astype(np.float64)
        factors = state.factors(np.array([0.8, 0.95]))[:, None]
        np.testing.assert_allclose(answer.lower, median - factors * (median - raw.lower), rtol=1e-4, atol=1e-5)
        plain.append((median, raw.lower, raw.upper))
        model.predict(window(series, t), 64, [0.8, 0.95])  # asked again before the truth came: the same forecast
        model.observe([series[t]])
        scores = np.full((2, 1, 3), np.nan)
        for step in range(min(3, len(plain))):
            m, low, high = plain[-1 - step]
            off = series[t] - m[0, step]
            length = (m - low)[:, 0, step] if off < 0 else (high - m)[:, 0, step]
            scores[:, 0, step] = abs(off) / length
        state = online.updated(state, scores)
    assert abs(np.log(state.factors(np.array([0.8])))).max() > 0.01


def test_followed_is_observe(forecaster: Path) -> None:
    """The vectorised form that evaluations use, against predict and observe in turn."""
    random = np.random.default_rng(4)
    rows = 60
    series = random.standard_normal(rows + 10).astype(np.float32)
    model = murho.load(forecaster)
    model.calibrate(random.standard_normal((200, 6, 1)), random.standard_normal((200, 3)), LEVELS, draws=64)
    answers = []
    x = np.stack([series[t : t + 6].reshape(6, 1) for t in range(rows)])
    y = np.stack([series[t + 6 : t + 9] for t in range(rows)])
    whole = model.predict(x, 64, LEVELS)
    for t in range(rows):
        answers.append(model.predict(x[t : t + 1], 64, LEVELS))
        model.observe(y[t, :1])
    median = np.median(whole.samples, axis=0).astype(np.float64)
    found = followed(Forecasts(median, whole.lower.astype(float), whole.upper.astype(float)), y)
    np.testing.assert_allclose(np.concatenate([a.lower for a in answers], axis=1), found.lower, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.concatenate([a.upper for a in answers], axis=1), found.upper, rtol=1e-4, atol=1e-4)


def test_coverage_in_a_world_that_drifts() -> None:
    """The noise doubles, then falls to a third: split intervals miss, followed ones hold two points at every level."""
    random = np.random.default_rng(0)
    rows = 3000
    size = np.repeat([1.0, 2.0, 0.33], rows // 3)
    truth = (size * random.standard_normal(rows))[:, None]
    from scipy import stats

    half = stats.norm.ppf([(1 + level) / 2 for level in LEVELS])[:, None, None] * np.ones((1, rows, 1))
    test = Forecasts(np.zeros((rows, 1)), -half, half)
    adapted = followed(test, truth)
    level = np.array(LEVELS)

    def coverage(forecasts: Forecasts) -> np.ndarray:
        return ((forecasts.lower <= truth) & (truth <= forecasts.upper)).mean(axis=(1, 2))

    assert np.abs(coverage(adapted) - level).max() < 0.02
    assert np.abs(coverage(test) - level).max() > 0.05


def test_a_state_goes_on_where_it_stopped(forecaster: Path, series: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    one, other = murho.load(forecaster), murho.load(forecaster)
    for t in range(6, 20):
        one.predict(window(series, t))
        one.observe([5 * series[t]])
    one.save_state(path)
    other.load_state(path)
    for t in range(20, 30):
        a, b = one.predict(window(series, t)), other.predict(window(series, t))
        np.testing.assert_array_equal(a.upper, b.upper)
        one.observe([series[t]])
        other.observe([series[t]])
    fresh = murho.load(forecaster).predict(window(series, 30))
    assert (one.predict(window(series, 30)).upper > fresh.upper).all()
    one.calibrate(np.random.default_rng(0).standard_normal((99, 6, 1)), np.zeros((99, 3)) + series[:99][0])
    assert one.save_state(path) is None
    assert json.loads(path.read_text())["observed"] == 0  # a calibration starts anew


def test_rows_of_a_table_are_settled_at_once(tmp_path: Path) -> None:
    path = tmp_path / "table.onnx"
    to_onnx(Regressor(2, outputs=2), path, np.ones((4, 2), np.float32), noise=Noise(scale=(1.0, 1.0)))
    model, x = murho.load(path), np.random.default_rng(0).standard_normal((5, 2))
    before = model.predict(x)
    model.observe(before.mean + 100)
    assert ((model.predict(x).upper - before.upper) > 0).all()
    with pytest.raises(InputError, match=r"y must be \[rows = 5, output = 2\]"):
        model.observe([1.0])


def test_what_observe_refuses(forecaster: Path, series: np.ndarray, tmp_path: Path) -> None:
    model = murho.load(forecaster)
    with pytest.raises(InputError, match="Nothing was predicted yet"):
        model.observe([1.0])
    model.predict(window(series, 10))
    with pytest.raises(InputError, match=r"y must be \[rows = 1, output = 1\], as was predicted, but is \(2, 1\)"):
        model.observe([1.0, 2.0])
    with pytest.raises(InputError, match="holds infinity"):
        model.observe([math.inf])
    model.observe([math.nan])  # nobody knows
    with pytest.raises(ArtifactError, match="Cannot read the state"):
        model.load_state(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text('{"format": "murho.state", "schema": 1}')
    with pytest.raises(ArtifactError, match="not a state that save_state wrote, or it is damaged"):
        model.load_state(tmp_path / "bad.json")
    model.save_state(tmp_path / "state.json")
    data = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({**data, "artifact": "another"}))
    with pytest.raises(ArtifactError, match="belongs to another artifact"):
        model.load_state(tmp_path / "other.json")
