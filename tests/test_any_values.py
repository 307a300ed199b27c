"""Values of any kind at every public door: taken rightly, or refused in plain words; no other exception, no NaN.

Hypothesis draws a few dozen inputs for each test here; MURHO_EXAMPLES=10000 in the environment draws as many.
"""

import datetime
import decimal
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from blitz.modules import BayesianLinear
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import murho
from murho import Calibration, InputError, MurhoError, Noise, Scaling, evaluation
from murho.export import register_layer, required_operators, to_onnx, to_ort, verify
from murho.export.options import Options
from murho.models import Autoregressor, Classifier, Forecaster, Regressor
from murho.runtime.typical import typical_inputs
from murho.train import (
    fit,
    load_checkpoint,
    prepare,
    prepare_rows,
    read_series,
    residual_noise,
    save_checkpoint,
    standardise,
)

EXAMPLES = int(os.environ.get("MURHO_EXAMPLES", "40"))
PATHS = Path(__file__).parent / "conformance" / "paths.onnx"

manner = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 40,
    database=None,
    suppress_health_check=list(HealthCheck),
)
quietly = pytest.mark.filterwarnings("ignore")  # of numpy and pandas, about what is odd


def door() -> ModuleType:
    """The fuzzing door for arrays, which says what is right."""
    spec = importlib.util.spec_from_file_location("arrays", Path(__file__).parent / "fuzz" / "doors" / "arrays.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


ARRAYS = door()
MODELS = ARRAYS.models()
SIZES = {id(model): typical_inputs(model.card, 1)[0].shape[1:] for model in MODELS}

numbers = st.floats(width=32) | st.floats() | st.sampled_from(ARRAYS.EDGES)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 40), numbers, st.floats(0, 1), st.complex_numbers(),
    st.text(max_size=3), st.binary(max_size=3), st.decimals(), st.fractions(), st.dates(), st.timedeltas(),
    st.sampled_from([x for x in ARRAYS.SCALARS if type(x) is not int or x < 10**400]),  # Hypothesis prints them
)  # fmt: skip
values = st.one_of(
    scalars, st.lists(scalars, max_size=4), st.lists(st.floats(0, 1), max_size=4), st.sets(st.integers(), max_size=3),
    st.lists(st.integers(0, 2**33), max_size=4, unique=True), st.tuples(scalars, scalars), st.iterables(scalars),
    st.dictionaries(st.text(max_size=1), scalars, max_size=2),
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_side=3)),
)  # fmt: skip


def arrays(shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    """Arrays of this shape or of another, of numbers or of anything else, in many forms."""
    right = st.integers(1, 3).map(lambda rows: (rows, *shape))
    shapes = right | right | hnp.array_shapes(min_dims=0, max_dims=4, max_side=4)
    dtypes = hnp.floating_dtypes() | hnp.integer_dtypes() | hnp.scalar_dtypes()
    made = st.one_of(
        hnp.arrays(np.float64, shapes, elements=st.floats(90, 110)),
        hnp.arrays(np.float64, shapes, elements=numbers, fill=st.just(100.0)),
        hnp.arrays(dtypes, shapes),
    )
    forms = st.sampled_from([lambda x: x, lambda x: x, lambda x: x.tolist(), lambda x: {"x": x}, np.ma.masked_invalid])
    return st.builds(lambda form, x: form(x), forms, made) | values


@quietly
@manner
@given(st.data())
def test_any_x_is_answered_in_finite_numbers_or_refused(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    ARRAYS.with_x(model, data.draw(arrays(SIZES[id(model)])))


@quietly
@manner
@given(st.data())
def test_any_truth_has_a_coverage_or_is_refused(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    rows = data.draw(st.integers(1, 3))
    answer = model.predict(typical_inputs(model.card, rows)[0], ARRAYS.DRAWS, (0.5, 0.9))
    try:
        share = answer.coverage(data.draw(arrays(answer.mean.shape[1:])))
    except InputError:
        return
    assert ((share >= 0) & (share <= 1)).all()


@quietly
@manner
@given(st.data())
def test_any_option_is_taken_or_refused(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    name = data.draw(st.sampled_from(list(ARRAYS.ARGUMENTS)))
    options = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(ARRAYS.ARGUMENTS[name], values)))
    ARRAYS.with_options(model, name, typical_inputs(model.card, 2)[0], options)


# A table: every odd value to every argument of what is public


class Unhelpful:
    """Raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("no array")

    def __index__(self) -> int:
        raise RuntimeError("no index")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


HOLDS_ITSELF: list[Any] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)
ODD: tuple[Any, ...] = (
    *ARRAYS.SCALARS, Unhelpful(), HOLDS_ITSELF, [1.0, 2.0], (1, 2, 3), ["a", "b"], [[[[[[1]]]]]], datetime.datetime.min,
    decimal.Decimal("0.5"), np.zeros(3, [("a", "f4")]), np.array([1.0, 2.0], object), np.ones((2, 3), complex),
    np.zeros((2, 3), "M8[s]"), np.empty((0, 3)), np.full((2, 3), 2**64 - 1, np.uint64), np.ones((2, 3), np.longdouble),
    np.ma.masked_array(np.ones((2, 3)), mask=True), pd.Index(["a"]), pd.Timestamp("2026"), "a\0b", Path("no/such/file"),
    torch.ones(2, 3, requires_grad=True), torch.ones(2, 3).to_sparse(), torch.ones(2, dtype=torch.bfloat16), np,
)  # fmt: skip

RANDOM = np.random.default_rng(0)
X, Y, TABLE = RANDOM.standard_normal((40, 3)), RANDOM.standard_normal(40), pd.DataFrame({"z": RANDOM.random(80)})
SERIES = read_series(TABLE, "z")
DATA = prepare(SERIES, 3, 2)
NETWORK = Forecaster(hidden=2, horizon=2)
FORECASTS = evaluation.Forecasts(np.zeros((8, 2)), np.full((6, 8, 2), -1.0), np.ones((6, 8, 2)))
MODEL = MODELS[ARRAYS.NAMES.index("paths")]
WINDOWS = typical_inputs(MODEL.card, 2)[0]
ANSWER = MODEL.predict(WINDOWS, 32)

CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "load": (murho.load, {"path": PATHS}, "path device threads keep_mb measure trusted"),
    "predict": (
        MODEL.predict,
        {"x": WINDOWS, "draws": 32},
        "x draws level seed noise calibrated parts tolerance budget_ms",
    ),
    "predict_all": (MODEL.predict_all, {"x": WINDOWS}, "x draws level seed"),
    "samples": (MODEL.samples, {"x": WINDOWS}, "x draws seed chunk noise"),
    "stream": (MODEL.stream, {}, "draws level seed noise"),
    "forecast": (MODELS[0].forecast, {"x": WINDOWS, "steps": 2, "draws": 32}, "x steps draws level seed"),
    "calibrate": (
        MODEL.calibrate,
        {"x": WINDOWS[:0], "y": np.zeros((0, 4))},
        "x y levels half_life draws seed",
    ),
    "observe": (MODEL.observe, {}, "y"),
    "save": (MODEL.save, {}, "path"),
    "load_state": (MODEL.load_state, {}, "path"),
    "coverage": (ANSWER.coverage, {}, "truth"),
    "to_frame": (ANSWER.to_frame, {}, "index mc_error"),
    "Scaling": (Scaling, {}, "input_mean input_scale output_mean output_scale values"),
    "Noise": (Noise, {}, "distribution degrees scale"),
    "Calibration": (Calibration, {"levels": 0.5, "factors": [[1.0]], "rows": 3}, "levels factors rows half_life"),
    "options of to_onnx": (Options, {}, " ".join(Options.__dataclass_fields__)),
    "to_onnx": (to_onnx, {"network": NETWORK, "path": "no/such/a.onnx", "example": X}, "network path example"),
    "verify": (verify, {"path": PATHS, "network": NETWORK}, "path network trusted"),
    "to_ort": (to_ort, {"artifact": "no/such", "path": "no/such/a.ort"}, "artifact path"),
    "required_operators": (required_operators, {"artifact": "no/such", "path": "no/such/a"}, "artifact path"),
    "register_layer": (register_layer, {"cls": BayesianLinear, "tensors": ()}, "cls tensors"),
    "read_series": (read_series, {"source": TABLE, "target": "z"}, "source target features date"),
    "prepare": (prepare, {"series": SERIES, "window": 3}, "series window horizon splits values"),
    "prepare_rows": (
        prepare_rows,
        {"x": X, "y": Y, "name": "a"},
        "x y name names target classes splits parts seed",
    ),
    "standardise": (standardise, {"part": DATA.train, "scaling": DATA.scaling}, "part scaling"),
    "fit": (
        fit,
        {"network": NETWORK, "data": None, "epochs": 1},
        "network data epochs batch_size samples learning_rate patience complexity_weight noise seed threads",
    ),
    "residual_noise": (
        residual_noise,
        {"network": NETWORK, "data": 0},
        "network data distribution degrees seed scaling",
    ),
    "save_checkpoint": (save_checkpoint, {"path": "no/such/a.pt", "checkpoint": None}, "path checkpoint"),
    "load_checkpoint": (load_checkpoint, {}, "path"),
    "score": (evaluation.score, {"forecasts": FORECASTS, "truth": np.zeros((8, 2))}, "forecasts truth"),
    "followed": (evaluation.followed, {"test": FORECASTS, "truth": np.zeros((8, 2))}, "test truth"),
    "split_conformal": (
        evaluation.split_conformal,
        {"calibration": FORECASTS, "truth": np.zeros((8, 2)), "test": FORECASTS},
        "calibration truth test",
    ),
    "of_model": (evaluation.of_model, {"model": MODEL, "x": WINDOWS, "draws": 32}, "model x draws calibrated"),
    "evaluate": (evaluation.evaluate, {"model": MODEL, "x": WINDOWS, "y": np.zeros((2, 4))}, "model x y draws"),
    "random_walk": (evaluation.random_walk, {}, "data"),
    "seasonal_naive": (evaluation.seasonal_naive, {}, "data"),
    "quantile_regression": (evaluation.quantile_regression, {}, "data"),
    "Forecaster": (Forecaster, {"hidden": 2}, "features cell horizon learned_noise prior_pi posterior_rho_init"),
    "Regressor": (Regressor, {"features": 2, "hidden": (2,)}, "features hidden outputs learned_noise prior_sigma_1"),
    "Autoregressor": (Autoregressor, {"hidden": (2,)}, "window features hidden horizon learned_noise"),
    "Classifier": (Classifier, {"size": 8, "kernel": 3, "padding": 1, "hidden": (2,)}, "size classes filters padding"),
}


def raw_errors(function: Callable[..., Any], usual: dict[str, Any], arguments: str) -> list[str]:
    """What is neither an answer nor murho's own error, for every odd value of every argument."""
    raw = []
    for argument in arguments.split():
        for k, odd in enumerate(ODD):
            try:
                made = function(**{**usual, argument: odd})
            except MurhoError:
                continue
            except Exception as error:  # what this is there to find
                raw.append(f"{argument}={type(odd).__name__} (number {k}): {type(error).__name__}: {error}")
                continue
            if isinstance(made, murho.Intervals):
                ARRAYS.right(made)
    return raw


@quietly
@pytest.mark.parametrize("call", CALLS)
def test_odd_values_are_taken_or_refused_in_plain_words(call: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert raw_errors(*CALLS[call]) == []
    ARRAYS.forget(MODEL)


@quietly
def test_a_raw_error_is_found() -> None:
    assert any("x=NoneType" in error for error in raw_errors(lambda x: float(x), {}, "x"))
