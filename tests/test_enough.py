"""The Monte-Carlo error of interval ends, and answers that take as many draws as they need."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

import murho
from murho.runtime import InputError, enough
from murho.runtime.enough import FEWEST, FIRST, Goal, Pace
from murho.runtime.intervals import summarise

REPEATS = 400
LAWS = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "Student-t": lambda random, shape: random.standard_t(5, shape),
    "skewed": lambda random, shape: random.exponential(size=shape),
    "two peaks": lambda random, shape: random.standard_normal(shape) + 4 * (random.random(shape) < 0.5),
}


def answer(samples: np.ndarray, level: Any) -> murho.Intervals:
    return summarise(samples.astype(np.float32), level, np.arange(len(samples)), 0)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("draws", [250, 1000])
def test_error_is_the_spread_of_the_ends(law: str, draws: int) -> None:
    """Each column is an answer of its own, so the ends' standard deviation over columns is what the error estimates.

    The estimate's own bias is below a tenth (benchmarks/mc_error.py); the standard deviation of 400 ends is off by
    1/√800 = 3.5 %.
    """
    samples = LAWS[law](np.random.default_rng(0), (draws, REPEATS))
    levels = (0.5, 0.8, 0.95)
    got = answer(samples, levels)
    assert got.mc_error.shape == (2, 3, REPEATS)
    for k in range(len(levels)):
        for end, error in zip((got.lower[k], got.upper[k]), got.mc_error[:, k], strict=True):
            assert error.mean() / end.std(ddof=1) == pytest.approx(1, abs=0.1 + 4 * 0.035)


def test_error_in_closed_form() -> None:
    """The asymptotic standard error √(p (1 - p) / S) / density, for a normal law with many draws."""
    draws, level = 100_000, 0.8
    got = answer(np.random.default_rng(1).standard_normal((draws, 50)), level)
    p = (1 - level) / 2
    want = np.sqrt(p * (1 - p) / draws) / stats.norm.pdf(stats.norm.ppf(p))
    # Each is the distance over some 2 · √(p (1 - p) S) = 190 draws, so off by 1/√190 = 7 %; the mean of 50 by 1 %.
    np.testing.assert_allclose(got.mc_error.mean(axis=1), [want, want], rtol=0.04)


def test_error_of_too_few_draws_is_not_known() -> None:
    samples = np.random.default_rng(2).standard_normal((11, 3))
    got = answer(samples, (0.8, 0.95))
    assert np.isfinite(got.mc_error[:, 0]).all()  # 1.1 draws beyond each end
    assert np.isinf(got.mc_error[:, 1]).all()  # 0.3


def test_error_is_zero_where_all_draws_agree() -> None:
    for draws in (5, 500):
        np.testing.assert_array_equal(answer(np.ones((draws, 2)), (0.5, 0.99)).mc_error, np.zeros((2, 2, 2)))


def test_error_through_an_artifact(exported) -> None:
    """Over seeds, the ends of the same window spread as the error says."""
    case = exported("demo")
    model = murho.load(case.onnx)
    answers = [model.predict(case.example[:1], 200, 0.8, seed) for seed in range(200)]
    for end, k in (("lower", 0), ("upper", 1)):
        spread = np.std([getattr(got, end).item() for got in answers], ddof=1)
        error = np.mean([got.mc_error[k].item() for got in answers])
        assert error / spread == pytest.approx(1, abs=0.1 + 4 / np.sqrt(400))


def test_error_grows_with_a_calibrated_interval(tmp_path) -> None:
    """One factor stretches both sides from the median on, and their errors with them."""
    import torch

    from murho.export import to_onnx
    from murho.models import Regressor

    random = np.random.default_rng(3)
    x, path = random.standard_normal((60, 2), dtype=np.float32), tmp_path / "regressor.onnx"
    torch.manual_seed(0)
    to_onnx(Regressor(2), path, x)
    model = murho.load(path)
    calibration = model.calibrate(x, 10 * random.standard_normal((60, 1)), levels=[0.8])
    plain, stretched = (model.predict(x, 300, 0.8, calibrated=calibrated) for calibrated in (False, True))
    np.testing.assert_allclose(stretched.mc_error, calibration.factors[0][0] * plain.mc_error, rtol=1e-5)


def test_as_many_draws_as_the_tolerance_needs(exported, format: str) -> None:
    case = exported("demo")
    model = murho.load(case.path(format), trusted=True)
    counts = []
    for tolerance in (0.1, 0.04, 0.02):
        got = model.predict(case.example[:2], level=[0.5, 0.9], tolerance=tolerance)
        assert (got.mc_error / (got.upper - got.lower)).max() <= tolerance
        want = model.predict(case.example[:2], got.draws, [0.5, 0.9])
        for name in ("samples", "lower", "upper", "mean", "mc_error"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        counts.append(len(got.draws))
    assert counts[0] < counts[1] < counts[2] < 20_000


def test_no_draw_is_evaluated_twice(exported, monkeypatch) -> None:
    case = exported("demo")
    model, evaluated = murho.load(case.onnx), []
    samples = model._engine.samples
    monkeypatch.setattr(
        model._engine, "samples", lambda *a: (evaluated.extend(a[1].tolist()), samples(*a))[1], raising=True
    )
    got = model.predict(case.example[:2], tolerance=0.03)
    assert sorted(evaluated) == got.draws.tolist()


def test_no_more_draws_than_are_given(exported) -> None:
    case = exported("demo")
    model = murho.load(case.onnx)
    got = model.predict(case.example[:1], draws=500, tolerance=1e-4)
    assert len(got.draws) == 500
    assert (got.mc_error > 1e-4 * (got.upper - got.lower)).all()  # and the answer says so
    names = np.arange(1000, 4000)
    got = model.predict(case.example[:1], draws=names, tolerance=0.05)
    np.testing.assert_array_equal(got.draws, names[: len(got.draws)])
    assert len(got.draws) < len(names)


def test_a_frame_and_parts(exported) -> None:
    import pandas as pd

    case = exported("mlp")
    model = murho.load(case.onnx)
    x = case.example[:4]
    got = model.predict(x, tolerance=0.1, parts=True)
    assert got.epistemic is not None
    frame = model.predict(pd.DataFrame(x), tolerance=0.1)
    assert list(frame.columns) == list(model.predict(pd.DataFrame(x), 100).columns)


@pytest.fixture
def clock(monkeypatch) -> Any:
    """Time that passes only where a test lets it."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(enough, "perf_counter", lambda: Clock.now)
    return Clock


def drawn(
    clock: Any,
    goal: Goal,
    seconds_per_draw: float,
    pace: Pace,
    most: int = 100_000,
    ordering: float = 0.0,
    again: int = 1,
) -> int:
    """How many draws a call takes: `ordering` seconds a draw for the statistics, and `again` evaluations of each."""

    def evaluate(start: int, stop: int) -> None:
        clock.now += seconds_per_draw * (stop - start)
        counts.append(stop)

    def settle(whole: bool) -> tuple[float, float]:
        rows = 1.0 if whole else 0.01
        clock.now += rows * ordering * counts[-1]
        return 1 / np.sqrt(counts[-1]), rows

    counts: list[int] = []
    count = pace.draw((1,), most, goal, evaluate, settle, again)
    assert count == counts[-1]
    clock.now += (0 if goal.tolerance else ordering * count) + (again - 1) * seconds_per_draw * count
    return count


@pytest.mark.parametrize("seconds_per_draw", [1e-6, 1e-5, 1e-4])
def test_time_is_used_and_kept(clock, seconds_per_draw: float) -> None:
    pace = Pace()
    for _ in range(3):
        start = clock.now
        count = drawn(clock, Goal(None, 0.01), seconds_per_draw, pace)
        assert clock.now - start <= 0.01
        assert count >= 0.5 * 0.01 / seconds_per_draw


@pytest.mark.parametrize("tolerance", [None, 1e-9])
@pytest.mark.parametrize("again", [1, 2])
@pytest.mark.parametrize("ordering", [1e-6, 1e-5, 1e-4])
def test_the_time_of_statistics_and_parts_is_in_the_budget(clock, ordering, again, tolerance) -> None:
    """Though the first call knows nothing; a later one may, and both use more than a quarter of the time."""
    pace = Pace()
    for _ in range(3):
        start = clock.now
        drawn(clock, Goal(tolerance, 1.0), 1e-5, pace, 10**9, ordering, again)
        assert 0.25 < clock.now - start <= 1


def test_too_little_time_for_anything(clock) -> None:
    assert drawn(clock, Goal(None, 1e-9), 1.0, Pace()) == FEWEST


def test_whichever_comes_first(clock) -> None:
    sure = drawn(clock, Goal(0.05, 10.0), 1e-5, Pace())
    assert 400 <= sure <= 600  # 1 / 0.05² = 400, and a tenth to spare
    hasty = drawn(clock, Goal(0.001, 0.005), 1e-5, Pace())
    assert hasty < 500


def test_first_batch_is_enough(clock) -> None:
    assert drawn(clock, Goal(0.5, None), 1e-5, Pace()) == FIRST


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "fast", True])
@pytest.mark.parametrize("name", ["tolerance", "budget_ms"])
def test_wrong_goals(exported, name: str, value: Any) -> None:
    case = exported("mlp")
    with pytest.raises(InputError, match=f"{name} must be a number above 0"):
        murho.load(case.onnx).predict(case.example, **{name: value})
