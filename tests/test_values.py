"""No wrong number without a word: what a caller passes is taken rightly or refused, and every answer is finite."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

import murho
from murho import ExportError, InputError, Noise, Scaling
from murho.export import to_onnx, to_pt2, to_torchscript, verify
from murho.runtime.intervals import summarise

MAX, TINY = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


class Windows(nn.Module):
    """x [B, 4, F] -> [B, 2]."""

    def __init__(self, features: int = 1) -> None:
        super().__init__()
        self.head = BayesianLinear(4 * features, 2, posterior_rho_init=-2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


class Steps(nn.Module):
    """x [B, T, 1] -> [B, 1], with a state to carry on."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = BayesianLSTM(1, 3), BayesianLinear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1]) + 2 * x[:, -1]


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def rows(features: int) -> nn.Module:
    return nn.Sequential(BayesianLinear(features, 2, posterior_rho_init=-2.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("values")


@pytest.fixture(scope="module")
def prices() -> np.ndarray:
    """[40, 4, 1]"""
    return np.random.default_rng(0).uniform(90, 110, (40, 4, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def returns(folder: Path, prices: np.ndarray) -> Path:
    """An artifact that reads windows [B, 4, 1] relative to their last row and answers [B, 2]."""
    path = folder / "returns.onnx"
    to_onnx(
        seeded(Windows), path, prices, scaling=Scaling(0.0, 0.1, 0.0, 0.1, "returns"), task="forecast",
        noise=Noise(scale=0.5), input_names=["close"], draws=64,
    )  # fmt: skip
    return path


@pytest.fixture
def model(returns: Path) -> murho.Model:
    return murho.load(returns)


@pytest.fixture(scope="module")
def table(folder: Path) -> Path:
    """An artifact x [B, 3] -> [B, 2] without names for its features."""
    path = folder / "table.onnx"
    to_onnx(seeded(lambda: rows(3)), path, np.random.default_rng(0).standard_normal((8, 3)), draws=64)
    return path


@pytest.fixture(scope="module")
def loud(folder: Path) -> Path:
    """The same in a small unit."""
    path = folder / "loud.onnx"
    x = np.random.default_rng(0).standard_normal((8, 3))
    to_onnx(seeded(lambda: rows(3)), path, x, scaling=Scaling(output_scale=1e6), draws=64)
    return path


@pytest.fixture(scope="module")
def named(folder: Path) -> Path:
    """The same with names."""
    path = folder / "named.onnx"
    x = np.random.default_rng(0).standard_normal((8, 3))
    to_onnx(seeded(lambda: rows(3)), path, x, input_names=["a", "b", "c"], output_names=["up", "down"], draws=64)
    return path


@pytest.fixture(scope="module")
def stream(folder: Path) -> Path:
    path = folder / "stream.onnx"
    to_onnx(seeded(Steps), path, np.random.default_rng(0).standard_normal((8, 5, 1)), streaming=True, draws=32)
    return path


# Windows that end in 0, or too near to it, where returns are read


DOORS: dict[str, Callable[[murho.Model, np.ndarray], object]] = {
    "predict": lambda model, x: model.predict(x),
    "predict with a tolerance": lambda model, x: model.predict(x, tolerance=0.01),
    "predict with a budget": lambda model, x: model.predict(x, budget_ms=1),
    "predict_all": lambda model, x: model.predict_all(x),
    "samples": lambda model, x: model.samples(x),
    "calibrate": lambda model, x: model.calibrate(x, np.full((len(x), 2), 100.0), [0.5]),
}


@pytest.mark.parametrize("last", [0.0, -0.0, 1e-45, TINY / 2], ids=["0", "-0", "smallest", "subnormal"])
@pytest.mark.parametrize("door", DOORS)
def test_a_window_that_ends_in_0_has_no_returns(model, prices, door: str, last: float, monkeypatch) -> None:
    x = prices.copy()
    x[7, -1] = last
    monkeypatch.setattr(model, "_samples", lambda *_: pytest.fail("work was done"))
    with pytest.raises(InputError, match=r"Row 7 of x has a last value of .*, of which there are no returns"):
        DOORS[door](model, x)
    assert model.card.calibration is None


def test_a_frame_whose_window_ends_in_0_has_no_returns(model) -> None:
    with pytest.raises(InputError, match="Row 3 of x has a last value of 0"):
        model.predict(pd.DataFrame({"close": [9.0, 8, 7, 6, 5, 4, 0, 3]}))


def test_the_smallest_normal_number_has_returns(model, prices) -> None:
    x = prices.copy()
    x[3] = TINY
    assert np.isfinite(model.predict(x).mean).all()


def test_a_row_beyond_float32_in_the_networks_units_is_refused(model, prices) -> None:
    x = prices.copy()
    x[5] = [[1e30], [1], [1], [1e-30]]
    with pytest.raises(InputError, match=r"Row 5 of x is beyond float32 once it is scaled for the network, at x\[5, 0"):
        model.predict(x)


@pytest.mark.parametrize("values", ["levels", "differences"])
def test_a_row_near_float32s_largest_is_refused_with_its_number(folder: Path, prices, values: str) -> None:
    path = folder / f"{values}.onnx"
    to_onnx(seeded(Windows), path, prices, scaling=Scaling(0.0, 0.5, 0.0, 1.0, values))
    x = prices.copy()
    x[9, 0], x[9, 1] = MAX, -MAX
    with pytest.raises(InputError, match="Row 9 of x is beyond float32"):
        murho.load(path).predict(x)


@pytest.mark.parametrize("door", DOORS)
def test_an_answer_that_is_not_finite_is_an_error_with_its_row(loud, door: str) -> None:
    """Finite in the network's units, and its weighted sums are, in raw units, not."""
    model = murho.load(loud)
    x = np.ones((40, 3), np.float32)
    x[11] = MAX
    with pytest.raises(InputError, match="answer output for row 11 is not finite, although the input is"):
        DOORS[door](model, x)


@pytest.mark.parametrize("sign", [1, -1])
def test_statistics_beyond_float32_of_finite_samples_are_an_error(sign: int) -> None:
    samples = np.array([MAX, -MAX] * 8, np.float32).reshape(16, 1, 1) * sign
    with pytest.raises(InputError, match=r"The interval of row 0 is beyond float32's largest number, 3\.4e\+38"):
        summarise(samples, 0.9, np.arange(16), 0)


def test_numbers_near_float32s_ends_have_right_statistics() -> None:
    for unit in (1e37, 1e-37):
        samples = (np.random.default_rng(0).uniform(1, 3, (400, 2, 1)) * unit).astype(np.float32)
        got, wide = summarise(samples, 0.9, np.arange(400), 0), samples.astype(np.float64)
        np.testing.assert_allclose(got.std, wide.std(0, ddof=1), rtol=1e-6)
        np.testing.assert_allclose(got.lower, np.quantile(wide, 0.05, axis=0), rtol=1e-6)


def test_parts_of_the_variance_neither_overflow_nor_vanish(folder: Path) -> None:
    for name, unit in (("large", 1e30), ("small", 1e-30)):
        path = folder / f"{name}.onnx"
        x = np.random.default_rng(0).standard_normal((8, 3))
        to_onnx(seeded(lambda: rows(3)), path, x, scaling=Scaling(output_scale=unit), noise=Noise(scale=1.0))
        got = murho.load(path).predict(x, 200, parts=True)
        np.testing.assert_allclose(got.epistemic + got.aleatoric, got.std.astype(np.float64) ** 2, rtol=1e-5)
        assert (got.aleatoric > 0.1 * unit**2).all()


def test_a_row_that_makes_a_stream_infinite_leaves_it_where_it_was(stream) -> None:
    model = murho.load(stream)
    followed, other = model.stream(), model.stream()
    for row in (0.1, 0.2):
        followed.step([[row]])
        other.step([[row]])
    with pytest.raises(InputError, match="must be finite"):
        followed.step([[np.inf]])
    with pytest.raises(InputError, match="x must be an array"):
        followed.step([[0.1], [0.2, 0.3]])
    with pytest.raises(
        InputError, match=r"The network's (answer output for row 0 is|states after this row are) not fin"
    ):
        followed.step([[MAX]])
    assert followed.rows == 2
    np.testing.assert_array_equal(followed.step([[0.3]]).samples, other.step([[0.3]]).samples)


def test_a_forecast_that_grows_beyond_float32_is_an_error(folder: Path) -> None:
    class Grows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = BayesianLinear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 10 * x[:, -1] + self.head(x[:, :, 0])

    to_onnx(seeded(Grows), folder / "grows.onnx", np.ones((4, 2, 1)))
    with pytest.raises(InputError, match="row 1 is not finite"):
        murho.load(folder / "grows.onnx").forecast(np.array([[[0.0], [0.0]], [[1.0], [1.0]]]), 60)


# The truth


def test_coverage_of_a_truth_that_is_not_known_is_an_error(model, prices) -> None:
    answer = model.predict(prices[:3])
    truth = np.full((3, 2), 100.0)
    truth[1, 0] = np.nan
    with pytest.raises(InputError, match=r"truth must be finite, but truth\[1, 0\] is nan: nobody can say"):
        answer.coverage(truth)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (np.ones((2, 3)), r"shape of the mean, \(3, 2\), but has \(2, 3\)"),
        (np.ones(6), r"shape of the mean, \(3, 2\), but has \(6,\)"),
        (np.ones(3), r"but has \(3,\)"),
        (1.0, r"but has \(\)"),
        ([[1.0, 2.0]], r"but has \(1, 2\)"),
        ([[1.0], [1.0, 2.0], [3.0]], "truth must be an array"),
        (None, "truth must hold numbers, not object"),
        ([["1", "2"]] * 3, "truth must hold numbers"),
        (np.ones((3, 2), complex), "truth must hold numbers"),
        (np.ones((3, 2), bool), "truth must hold numbers"),
        (np.ma.masked_greater(np.ones((3, 2)), 0), "truth holds masked values"),
        (np.full((3, 2), np.inf), "truth must be finite"),
    ],
    ids=str,
)
def test_coverage_refuses_another_shape_and_what_is_no_number(model, prices, truth: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.predict(prices[:3]).coverage(truth)


def test_calibration_rows_that_would_make_factors_infinite_are_refused(table, tmp_path: Path) -> None:
    model = murho.load(table)
    x = np.random.default_rng(0).standard_normal((40, 3))
    before = table.read_bytes()
    with pytest.raises(InputError, match=r"For level 0\.5 an interval must become more than 3\.4e\+38 times as wide"):
        model.calibrate(x, np.full((40, 2), 1e300), [0.5])
    assert model.card.calibration is None
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == before


def test_a_factor_of_0_keeps_the_error_a_number(table) -> None:
    """Where the truth was always the median, the calibrated interval has no width, and an end no error."""
    model = murho.load(table)
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    model.calibrate(x, np.median(model.samples(x), axis=0), [0.5])
    got = model.predict(x, 8, 0.4)
    assert not np.isnan(got.mc_error).any()


# Monte-Carlo errors, draws


@pytest.mark.parametrize("level", [0.999, 0.999999, 1 - 1e-12])
def test_the_error_of_an_end_beyond_the_samples_is_not_known(level: float) -> None:
    samples = np.linspace(0, 1, 64, dtype=np.float32).reshape(64, 1)
    assert np.isinf(summarise(samples, level, np.arange(64), 0).mc_error).all()


def test_repeated_draws_are_refused(model, prices) -> None:
    for call in (model.predict, model.samples, model.predict_all):
        with pytest.raises(
            InputError, match="draws must differ, since a repeated draw adds nothing; 3 comes more than"
        ):
            call(prices, draws=[3, 3])


@pytest.mark.parametrize(
    "goal", [{"tolerance": 1e-300}, {"tolerance": 1e-300, "budget_ms": 1e308}, {"budget_ms": 1e308}]
)
def test_a_tolerance_that_cannot_be_reached_and_a_budget_without_end(model, prices, goal: dict[str, float]) -> None:
    for _ in range(2):  # the second call knows what a draw costs
        assert len(model.predict(prices[:1], 3000, 0.5, **goal).draws) == 3000


# Masks, tables


@pytest.mark.parametrize(
    "make", [np.asanyarray, list, lambda x: [list(row) for row in x]], ids=["array", "rows", "lists"]
)
def test_masked_values_are_refused(named, make: Callable[[Any], Any]) -> None:
    model = murho.load(named)
    x = np.ma.masked_array(np.ones((4, 3)), mask=np.eye(4, 3))
    with pytest.raises(InputError, match=r"x holds masked values\. Fill or drop such rows first"):
        model.predict(make(x))
    whole = np.ma.masked_array(np.ones((4, 3)), mask=False)
    np.testing.assert_array_equal(model.predict(whole).mean, model.predict(np.ones((4, 3))).mean)


def test_masked_truth_is_refused(named) -> None:
    model = murho.load(named)
    x, y = np.random.default_rng(0).standard_normal((40, 3)), np.ma.masked_array(np.zeros((40, 2)), mask=False)
    y[3, 1] = np.ma.masked
    with pytest.raises(InputError, match="y holds masked values"):
        model.calibrate(x, y)
    model.predict(x)
    with pytest.raises(InputError, match="y holds masked values"):
        model.observe(y)


def test_named_columns_without_names_in_the_artifact_are_refused(table) -> None:
    frame = pd.DataFrame(np.ones((2, 3)), columns=["b", "c", "a"])
    with pytest.raises(InputError, match=r"no names for the columns of x, so it cannot tell which of b, c, a is which"):
        murho.load(table).predict(frame)
    model = murho.load(table)
    unnamed = model.predict(pd.DataFrame(np.ones((2, 3))))["mean 1"]
    np.testing.assert_array_equal(unnamed, model.predict(np.ones((2, 3))).mean[:, 0])


def test_columns_are_taken_by_name_at_every_door(named) -> None:
    model = murho.load(named)
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((40, 3)), columns=["b", "c", "a"], index=range(5, 45))
    x = frame[["a", "b", "c"]].to_numpy()
    np.testing.assert_array_equal(model.samples(frame), model.samples(x))
    np.testing.assert_array_equal(model.predict_all(frame)["output"].mean, model.predict(x).mean)
    y = pd.DataFrame({"down": np.zeros(40), "up": np.full(40, 0.1)}, index=frame.index)
    assert model.calibrate(frame, y) == murho.load(named).calibrate(x, y[["up", "down"]].to_numpy())
    with pytest.raises(InputError, match=r"lacks the column\(s\) up"):
        model.calibrate(frame, y[["down"]])
    with pytest.raises(InputError, match=r"several columns 'b'\. Keep one of them"):
        model.predict(pd.DataFrame(np.ones((2, 4)), columns=["a", "b", "b", "c"]))


def test_nullable_columns_are_numbers_unless_one_is_missing(named) -> None:
    model = murho.load(named)
    frame = pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0], "c": [5, 6]}).astype({"a": "Int64", "b": "Float64"})
    np.testing.assert_array_equal(model.samples(frame), model.samples(frame.to_numpy(float)))
    frame.loc[1, "a"] = pd.NA
    with pytest.raises(InputError, match=r"x must be finite, but x\[1, 0\] is nan"):
        model.predict(frame)


def test_a_table_of_another_package_is_refused(named) -> None:
    class Table:
        columns = ("c", "b", "a")

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            return np.ones((2, 3))

    with pytest.raises(InputError, match="x is a Table: pass a DataFrame of pandas, or a numpy array"):
        murho.load(named).predict(Table())


def test_a_series_is_one_column(model, named) -> None:
    values = np.linspace(90, 110, 9)
    index = pd.date_range("2026-01-01", periods=9)
    want = model.predict(pd.DataFrame({"close": values}, index=index))
    for name in ("close", None):
        pd.testing.assert_frame_equal(model.predict(pd.Series(values, index, name=name)), want)
    with pytest.raises(InputError, match="x is close, but the Series is called 'open'"):
        model.predict(pd.Series(values, name="open"))
    row = pd.DataFrame(np.ones((2, 3)), columns=list("abc")).iloc[0]
    with pytest.raises(InputError, match=r"A Series holds one column, but x has 3 features.*series\.to_frame\(\)\.T"):
        murho.load(named).predict(row)
    assert len(murho.load(named).predict(row.to_frame().T)) == 1


# What a DataFrame of answers says


def test_a_frame_keeps_parts_errors_draws_and_seed(model) -> None:
    frame = pd.DataFrame({"close": np.linspace(90, 110, 6)})
    got = model.predict(frame, 200, 0.9, seed=7, parts=True)
    columns = ["mean", "std", "epistemic", "aleatoric", "lower 90%", "upper 90%"]
    assert list(got.columns) == [f"{name} {k}" for k in (1, 2) for name in columns]
    x = np.stack([frame.to_numpy()[k : k + 4] for k in range(3)])
    answer = model.predict(x, got.attrs["draws"], 0.9, got.attrs["seed"], parts=True)
    np.testing.assert_array_equal(got["aleatoric 2"], answer.aleatoric[:, 1])
    width = answer.upper.astype(float) - answer.lower
    assert got.attrs == {"draws": 200, "seed": 7, "mc_error": (answer.mc_error / width).max()}
    errors = answer.to_frame(mc_error=True)
    np.testing.assert_array_equal(errors["mc_error upper 90% 2"], answer.mc_error[1, :, 1])
    np.testing.assert_array_equal(errors["mc_error lower 90% 1"], answer.mc_error[0, :, 0])
    named = model.predict(x, [5, 3, 9], 0.5).to_frame()
    assert named.attrs["draws"] == (5, 3, 9)
    pd.concat([got, named])  # pandas compares attrs, which must have one truth


def test_a_frame_says_how_sure_a_goal_made_it(model) -> None:
    got = model.predict(pd.DataFrame({"close": np.linspace(90, 110, 6)}), level=0.8, tolerance=0.05)
    assert 0 < got.attrs["mc_error"] <= 0.05


def test_levels_that_differ_in_late_digits_have_columns_of_their_own(model, prices) -> None:
    got = model.predict(prices, level=(0.95, 0.9500001)).to_frame()
    assert len(got.columns) == 2 * (2 + 4)


@pytest.mark.parametrize("index", [[1], 5, "abc", range(3)], ids=str)
def test_an_index_of_another_length_is_refused(model, prices, index: Any) -> None:
    with pytest.raises(InputError, match="index must have a label for each of 2 rows"):
        model.predict(prices[:2]).to_frame(index)


# Intervals and cards as values


def test_intervals_are_equal_if_all_that_they_hold_is(model, prices) -> None:
    one, same = model.predict(prices[:2]), model.predict(prices[:2])
    assert (one == one) is True
    assert (one == same) is True
    assert (one == model.predict(prices[:2], seed=1)) is False
    assert (one == model.predict(prices[:2], level=(0.95,))) is False
    assert (one == 1) is False
    assert (one != same) is False
    for copied in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert copied == one
    assert one in [same]
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_short_reprs(model, prices) -> None:
    answer = model.predict(prices[:2], 1000, (0.5, 0.9))
    assert repr(answer) == "<murho.Intervals [2 × 2], levels 0.5, 0.9, 1000 draws, seed 0>"
    assert repr(model.predict(prices[:1], level=0.8)) == "<murho.Intervals [1 × 2], level 0.8, 64 draws, seed 0>"
    assert repr(model.card) == (
        "<murho.Card 'returns': x [batch, axis1=4, axis2=1] -> output [batch, output=2], 1 sites, schema "
        f"{model.card.schema}>"
    ).replace("axis1=4, axis2=1", "time=4, feature=1")
    assert (model.card == murho.load(model._path).card) is True


# Scaling and noise


def test_scaling_and_noise_take_arrays_and_numbers() -> None:
    arrays = Scaling(np.array([1, 2]), np.array([0.5, 0.25], np.float32), torch.tensor([3.0]), 2)
    assert arrays == Scaling((1.0, 2.0), (0.5, 0.25), (3.0,), (2.0,))
    assert all(type(value) is float for value in arrays.input_mean + arrays.output_scale)
    assert hash(arrays) == hash(Scaling((1.0, 2.0), (0.5, 0.25), (3.0,), (2.0,)))
    assert Noise(scale=np.array([0.5])) == Noise(scale=[0.5]) == Noise(scale=0.5) == Noise(scale=(0.5,))
    assert Noise("student-t", np.int64(5)).degrees == 5


SCALES: dict[str, tuple[Any, str]] = {
    "0": ((0.0,), r"input_scale must hold numbers above 0, not \(0\.0,\)"),
    "negative": ((1.0, -1.0), "input_scale must hold numbers above 0"),
    "0 in float32": ((1e-46,), "input_scale must hold numbers above 0"),
    "NaN": ((np.nan,), "input_scale must hold finite numbers"),
    "infinite": (np.inf, "input_scale must hold finite numbers"),
    "infinite in float32": ((1e39,), "input_scale must hold finite numbers, within float32"),
    "none": ((), "must have one value, or one for each feature, but have 1 and 0"),
    "nested": ([[1.0]], "input_scale must be a number or a sequence of numbers"),
    "text": ("1", "input_scale must be a number or a sequence of numbers"),
    "None": (None, "input_scale must be a number"),
    "bool": (True, "input_scale must be a number"),
    "complex": (1j, "input_scale must be a number"),
    "ragged": ([[1], [1, 2]], "input_scale must be an array"),
    "masked": (np.ma.masked_equal([1.0, 2.0], 2), "input_scale holds masked values"),
}


@pytest.mark.parametrize(("scale", "message"), SCALES.values(), ids=SCALES)
def test_a_scale_that_is_none_is_refused_where_it_is_given(scale: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scaling((1.0,), scale)


def test_a_scaling_of_other_lengths_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="input_mean and input_scale must have one value, or one for each feature"):
        Scaling((1.0, 2.0), (1.0, 2.0, 3.0))
    x, path = np.ones((4, 3)), folder / "never.onnx"
    with pytest.raises(InputError, match="scaling's input_mean and input_scale have 2 values, but example has 3"):
        to_onnx(rows(3), path, x, scaling=Scaling((1.0, 2.0), (1.0, 2.0)))
    with pytest.raises(InputError, match="scaling's output_mean and output_scale have 3 values, but the network predi"):
        to_onnx(rows(3), path, x, scaling=Scaling(output_mean=(1.0, 2.0, 3.0)))


def test_a_network_whose_answer_is_not_finite_is_not_blamed_on_dropout(folder: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 3), rows(3))
    with torch.no_grad():
        network[0].weight[0, 0] = torch.nan
    with pytest.raises(ExportError, match="The network's own output for the example is not finite"):
        to_onnx(network, folder / "never.onnx", np.ones((4, 3)))


def test_an_example_that_ends_in_0_has_no_returns(folder: Path, prices) -> None:
    x = prices.copy()
    x[2, -1] = 0
    with pytest.raises(InputError, match="Row 2 of example has a last value of 0, of which there are no returns"):
        to_onnx(Windows(), folder / "never.onnx", x, scaling=Scaling(values="returns"))


# Exports


class Two(nn.Module):
    """Its example is a dict in another order than its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = BayesianLinear(3, 1, posterior_rho_init=-2.0), nn.Linear(3, 1)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.wide(first) + torch.exp(self.narrow(second))


def test_verify_passes_inputs_by_their_names(folder: Path) -> None:
    network, random = seeded(Two), np.random.default_rng(0)
    example = {"second": random.standard_normal((6, 3)), "first": random.standard_normal((6, 3))}
    card = to_onnx(network, folder / "two.onnx", example)
    assert [array.name for array in card.inputs] == ["second", "first"]
    assert verify(folder / "two.onnx", network)["exact"]["largest_error"] < 1e-5
    to_onnx(network, folder / "by_place.onnx", tuple(example.values()))
    verify(folder / "by_place.onnx", network)


NAMES: dict[str, tuple[dict[str, Any], str]] = {
    "too few inputs": ({"input_names": ["a"]}, "input_names must name each value along the last axis of x, which is 3"),
    "too many inputs": ({"input_names": list("abcd")}, "which is 3 long, but are 4: a, b, c, d"),
    "too few outputs": ({"output_names": ["a"]}, "output_names must name each value along the last axis of output"),
    "twice": ({"output_names": ["a", "a"]}, "output_names must be a sequence of different names"),
    "text": ({"input_names": "abc"}, "input_names must be a sequence of different names, not 'abc'"),
    "no text": ({"input_names": [1, 2, 3]}, "input_names must be a sequence of different names"),
}


@pytest.mark.parametrize(("options", "message"), NAMES.values(), ids=NAMES)
def test_names_that_are_not_as_many_as_their_axis_is_long(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_onnx(rows(3), folder / "never.onnx", np.ones((4, 3)), **options)


@pytest.mark.parametrize(
    ("write", "name"),
    [(to_onnx, "x.pt"), (to_onnx, "x"), (to_torchscript, "x.onnx"), (to_pt2, "x.pt"), (to_torchscript, "x.pt2")],
)
def test_the_suffix_is_the_formats(folder: Path, write: Any, name: str) -> None:
    with pytest.raises(InputError, match=rf"{write.__name__} writes a name that ends in \.\w+, not {name}"):
        write(rows(3), folder / name, np.ones((4, 3)))
    assert not (folder / name).exists()


def test_training_rows_are_recognised_in_a_calibration(folder: Path) -> None:
    """Of a network that was trained elsewhere."""
    random = np.random.default_rng(0)
    seen, new = random.standard_normal((500, 3)), random.standard_normal((100, 3))
    card = to_onnx(rows(3), folder / "seen.onnx", seen[:8], training_rows=seen, training={"by": "hand"})
    assert len(card.training["fingerprint"]) == 256
    assert card.training["by"] == "hand"
    model = murho.load(folder / "seen.onnx")
    y = np.zeros((100, 2))
    with pytest.raises(InputError, match="x holds rows that the network was trained on"):
        model.calibrate(np.concatenate([new[:50], seen[100:150]]), y)
    model.calibrate(new, y)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"training_rows": np.ones((5, 2))},
            r"example's shape \(4, 3\) but for their number; they are \(5, 2\)",
        ),
        ({"training_rows": [["a"] * 3]}, "training_rows must hold numbers that fit float32"),
        ({"training_rows": np.ones((0, 3))}, "training_rows must be"),
        ({"training_rows": np.ones((5, 3)), "training": {"fingerprint": []}}, "has a fingerprint already"),
        ({"training": {"when": np.datetime64("2013-03-01")}}, "training must be a dict of plain JSON values"),
        ({"training": {"loss": float("nan")}}, "training must be a dict of plain JSON values"),
        ({"training": [1]}, "training must be a dict of plain JSON values"),
        ({"training": {"window": "21"}}, "must be a whole number of rows of at least 1, not '21'"),
    ],
    ids=str,
)
def test_training_facts_that_are_none(folder: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_onnx(rows(3), folder / "never.onnx", np.ones((4, 3)), **given)


def test_a_compiled_network_is_exported_as_what_was_compiled(folder: Path) -> None:
    network = seeded(lambda: rows(3))
    x = np.random.default_rng(0).standard_normal((6, 3))
    to_onnx(torch.compile(network), folder / "compiled.onnx", x)
    to_onnx(network, folder / "plain.onnx", x)
    got, want = (murho.load(folder / f"{name}.onnx") for name in ("compiled", "plain"))
    np.testing.assert_array_equal(got.samples(x), want.samples(x))
    assert got.card.sites == want.card.sites
    verify(folder / "plain.onnx", torch.compile(network))
    with pytest.raises(ExportError, match=r"Module '0' was compiled by torch\.compile, so its layers cannot be"):
        to_onnx(nn.Sequential(torch.compile(rows(3)), nn.ReLU()), folder / "never.onnx", x)
    with pytest.raises(ExportError, match=r"The network was compiled by torch\.jit"):
        to_onnx(torch.jit.script(nn.Linear(3, 2)), folder / "never.onnx", x)


def test_one_level_is_a_level(folder: Path) -> None:
    card = to_onnx(rows(3), folder / "level.onnx", np.ones((4, 3)) * np.arange(4)[:, None], levels=0.9)
    assert card.levels == (0.9,)
    assert dataclasses.replace(card, seed=1) != card
