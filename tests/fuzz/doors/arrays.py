"""Odd arrays, tables and arguments to a loaded model and to what is made of plain values."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import murho
from murho import InputError, Model
from murho.runtime.artifact import read
from murho.runtime.typical import typical_inputs

ABOUT = "arrays, tables and arguments of any type, shape and value to a model's methods, to scalings and to noises."
CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance"
NAMES = ("lstm", "convolution", "paths")
DRAWS = 32
EDGES = (0.0, -0.0, 1e-45, 1e-39, 1.2e-38, 1e-30, 1.0, -1.0, 1e10, 1e30, 3.4e38, -3.4e38, 1e39, 1e308, np.inf, np.nan)
SCALARS: tuple[Any, ...] = (
    None, True, False, "a", "3", "", b"a", 0, 1, 2, 3, 16, 33, -1, 2**31, 2**32, 2**63, 10**30, 10**400, 10**5000,
    0.0, 0.5, 0.95, 1.0, 2.0, -0.5, 1e-300, 1e308, float("nan"), float("inf"), 0.5j, np.int64(3), np.float32(0.5),
    np.bool_(True), np.array(3), np.array(0.5), np.array("x"), np.datetime64("2026-01-01"), np.timedelta64(3, "s"), [],
    (), {}, {1, 2}, [0.5, 0.9], (3, 5), [3, 3], [[1], [2, 3]], [[0.5]], range(4), np.ma.masked, pd.NA, pd.NaT,
    object(), int, ..., slice(3), pd.Series([0.5, 0.9]), pd.DataFrame({"a": [1.0]}), memoryview(b"ab"), ValueError("x"),
)  # fmt: skip
ARGUMENTS = {
    "predict": ("draws", "level", "seed", "noise", "calibrated", "parts", "tolerance", "budget_ms"),
    "predict_all": ("draws", "level", "seed"),
    "samples": ("draws", "seed", "chunk", "noise"),
    "forecast": ("steps", "draws", "level", "seed"),
    "calibrate": ("levels", "half_life", "draws", "seed"),
}


@functools.cache
def models() -> tuple[Model, ...]:
    return tuple(murho.load(CONFORMANCE / f"{name}.onnx", threads=1, measure=False) for name in NAMES)


def trial(random: np.random.Generator) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's and pandas', about what is odd
        kind = random.integers(8)
        if kind == 0:
            return plain_values(random)
        model = models()[random.integers(len(models()))]
        x = typical_inputs(model.card, int(random.integers(1, 6)))[0]
        if kind < 5:
            return with_x(model, mutated(x, random))
        if kind == 5:
            return with_truth(model, x, random)
        door = str(random.choice(list(ARGUMENTS)))
        options = {name: SCALARS[random.integers(len(SCALARS))] for name in ARGUMENTS[door] if random.random() < 0.3}
        return with_options(model, door, x, options)


def with_x(model: Model, x: Any) -> str:
    """What is taken for numbers gives the answer that these have as a plain array."""
    try:
        answer = model.predict(x, DRAWS, (0.5, 0.9))
    except InputError:
        refused(lambda: model.samples(x, DRAWS))
        return "refused"
    if isinstance(answer, pd.DataFrame):
        assert np.isfinite(answer.to_numpy()).all(), "a frame is not finite"
        return "a frame"
    right(answer)
    plain = np.array(x["x"] if isinstance(x, dict) else x, np.float32)
    assert np.array_equal(model.samples(plain, DRAWS), answer.samples), "another answer than for the plain array"
    return "accepted"


def with_truth(model: Model, x: np.ndarray, random: np.random.Generator) -> str:
    answer = model.predict(x, DRAWS, (0.5, 0.9))
    truth = mutated(answer.mean, random)
    try:
        share = answer.coverage(truth)
    except InputError:
        return "a truth refused"
    assert ((share >= 0) & (share <= 1)).all(), "coverage is no share"
    try:
        model.observe(truth)
        later = model.predict(x, DRAWS, 0.5)
        assert np.isfinite([later.lower, later.upper]).all(), "observe spoilt the intervals"
    except InputError:
        return "a truth accepted once"
    finally:
        forget(model)
    return "a truth accepted"


def with_options(model: Model, door: str, x: np.ndarray, options: dict[str, Any]) -> str:
    before = model.card
    try:
        if door == "forecast":
            answer = model.forecast(x, **{"steps": 2, "draws": DRAWS, **options})
        elif door == "calibrate":
            truth = np.zeros((len(x), *model.card.output.shape[1:]))
            answer = model.calibrate(x, truth, **{"levels": [0.5], "draws": DRAWS, **options})
        else:
            goal = {"tolerance", "budget_ms"}.intersection(options)
            answer = getattr(model, door)(x, **{"draws": 4 * DRAWS if goal else DRAWS, **options})
    except InputError:
        assert model.card is before, "a refused call changed the model"
        return "options refused"
    if door == "calibrate":
        assert np.isfinite(answer.factors).all(), "factors are not finite"
        forget(model)
    elif door == "samples":
        assert np.isfinite(answer).all(), "samples are not finite"
    else:
        for part in answer.values() if door == "predict_all" else (answer,):
            right(part)
    return "options accepted"


def plain_values(random: np.random.Generator) -> str:
    def one() -> Any:
        if random.random() < 0.5:
            return SCALARS[random.integers(len(SCALARS))]
        return mutated(random.uniform(0.5, 2, random.integers(1, 4)), random)

    makers: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
        (murho.Scaling, ("input_mean", "input_scale", "output_mean", "output_scale", "values")),
        (murho.Noise, ("distribution", "degrees", "scale")),
        (murho.Calibration, ("levels", "factors", "rows", "half_life")),
    )
    make, names = makers[random.integers(len(makers))]
    needed = {"levels": (0.5,), "factors": ((1.0,),), "rows": 3} if make is murho.Calibration else {}
    try:
        made = make(**{**needed, **{name: one() for name in names if random.random() < 0.4}})
    except InputError:
        return "values refused"
    assert made == made
    hash(made)
    numbers = [part for value in vars(made).values() if isinstance(value, tuple) for part in value]
    assert all(np.isfinite(part).all() for part in numbers), "what is kept is not finite"
    return "values accepted"


def forget(model: Model) -> None:
    """What a call taught the model, so that a trial depends on nothing before it."""
    model.card = read(model._path).card
    model._calibrated = model._online = model._latest = None


def right(answer: murho.Intervals) -> None:
    for name in ("samples", "mean", "std", "lower", "upper"):
        assert np.isfinite(getattr(answer, name)).all(), f"{name} is not finite"
    assert (answer.lower <= answer.upper).all(), "ends are crossed"
    assert not np.isnan(answer.mc_error).any(), "an error is NaN"
    assert (answer == answer) is True
    assert len(repr(answer)) < 300
    wide = answer.samples.astype(np.float64)
    assert np.allclose(answer.mean, wide.mean(axis=0), rtol=1e-6, atol=1e-30), "the mean is another one"


def refused(call: Callable[[], Any]) -> None:
    try:
        call()
    except InputError:
        return
    raise AssertionError("one door refuses what another accepts")


def mutated(x: np.ndarray, random: np.random.Generator) -> Any:
    """An array in another value, type, shape or form."""
    x = np.array(x)
    for _ in range(random.integers(0, 3)):
        x = VALUES[random.integers(len(VALUES))](x, random)
    return FORMS[random.integers(len(FORMS))](x, random)


def _edge(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if not x.size or x.dtype.kind not in "fiu":
        return x
    wide = x.astype(np.float64)
    wide.reshape(-1)[random.integers(wide.size, size=random.integers(1, 4))] = random.choice(EDGES)
    return wide


def _edges(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return random.choice(EDGES, x.shape)


def _random_bits(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return random.integers(2**32, size=x.shape, dtype=np.uint32).view(np.float32).reshape(x.shape)


def _type(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    kinds = [
        "f2",
        "f4",
        ">f4",
        "f8",
        ">f8",
        "g",
        "i1",
        "u1",
        "i8",
        "u8",
        "?",
        "c8",
        "c16",
        "O",
        "U",
        "S",
        "M8[s]",
        "m8[s]",
    ]
    try:
        return x.astype(str(random.choice(kinds)))
    except (TypeError, ValueError, OverflowError):
        return x


def _shape(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if x.ndim == 0 or not x.size:
        return x
    axis = int(random.integers(x.ndim))
    return [
        lambda: x[..., np.newaxis],
        lambda: x[np.newaxis],
        lambda: x[0],
        lambda: x[:0],
        lambda: np.take(x, [0], axis=axis),
        lambda: np.repeat(x, 2, axis=axis),
        lambda: np.moveaxis(x, axis, 0),
        lambda: x.reshape(-1),
        lambda: x.squeeze(),
        lambda: np.take(x, [], axis=axis),
    ][random.integers(10)]()


def _layout(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if not x.ndim:
        return x
    read_only = x.copy()
    read_only.flags.writeable = False
    return [x[::-1], np.asfortranarray(x), np.broadcast_to(x[:1], x.shape) if len(x) else x, read_only][
        random.integers(4)
    ]


VALUES = (_edge, _edge, _edges, _random_bits, _type, _shape, _layout)


def _itself(x: np.ndarray, random: np.random.Generator) -> Any:
    return x


def _masked(x: np.ndarray, random: np.random.Generator) -> Any:
    return np.ma.masked_array(x, mask=random.random(x.shape) < 0.1 * random.integers(2))


def _ragged(x: np.ndarray, random: np.random.Generator) -> Any:
    rows = x.tolist()
    if isinstance(rows, list) and rows and isinstance(rows[0], list):
        rows[random.integers(len(rows))] = rows[0][:-1] if random.random() < 0.5 else None
    return rows


def _odd_inside(x: np.ndarray, random: np.random.Generator) -> Any:
    rows = x.tolist()
    if isinstance(rows, list) and rows:
        rows[random.integers(len(rows))] = SCALARS[random.integers(len(SCALARS))]
    return rows


def _frame(x: np.ndarray, random: np.random.Generator) -> Any:
    if x.ndim == 0 or x.dtype.kind == "V":
        return x
    table = x.reshape(x.shape[0], -1) if x.size else x.reshape(0, 1)
    names = [None, list("ab"), ["a", "a"]][random.integers(3)]
    frame = pd.DataFrame(table, columns=names if names and len(names) == table.shape[1] else None)
    return frame.iloc[:, 0] if random.random() < 0.3 and frame.shape[1] else frame


FORMS: tuple[Callable[[np.ndarray, np.random.Generator], Any], ...] = (
    _itself, _itself, _itself, lambda x, _: x.tolist(), lambda x, _: list(x) if x.ndim else x, lambda x, _: {"x": x},
    lambda x, _: (x,), lambda x, _: iter([x]), lambda x, _: {"y": x}, _masked, _ragged, _odd_inside, _frame, _frame,
)  # fmt: skip
