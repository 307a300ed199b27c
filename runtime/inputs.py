"""What a caller passes, checked at the door: shape, type, finiteness, range; and turned into arrays."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, conformal
from .checks import FLOAT32_TINY, shown
from .contract import CALIBRATION_SLOTS, MAX_DRAWS, Array, Card
from .enough import Goal
from .errors import InputError
from .fingerprint import fingerprint
from .frames import check_rising
from .memory import check_memory

Arrays = tuple[NDArray[Any], ...]
Input = ArrayLike | Mapping[str, ArrayLike] | tuple[ArrayLike, ...]
Draws = int | ArrayLike
Level = float | Sequence[float]


def as_inputs(card: Card, x: Input) -> Arrays:
    """Every input as an array [B, …] of the type that the card says, which stays finite in the network's units."""
    if is_frame(x):
        return from_frame(card, x)[0]
    expected = card.inputs
    if isinstance(x, Mapping):
        names = [array.name for array in expected]
        if set(x) != set(names):
            raise InputError(f"x must have the inputs {', '.join(names)}, but has {', '.join(map(str, x))}.")
        parts: Sequence[Any] = [x[name] for name in names]
    elif len(expected) == 1:
        parts = [x]
    elif isinstance(x, tuple) and len(x) == len(expected):
        parts = x
    else:
        raise InputError(
            f"This network has {len(expected)} inputs: pass a dict or tuple of "
            f"{', '.join(f'{array.name} [{described(array)}]' for array in expected)}."
        )
    arrays = tuple(_checked(part, array) for part, array in zip(parts, expected, strict=True))
    rows = [len(array) for array, one in zip(arrays, expected, strict=True) if not one.shared]
    if len(set(rows)) > 1:
        raise InputError(f"Every input needs the same number of rows, but they have {rows}.")
    _check_equally_long(expected, arrays)
    _check_scaled(card, arrays[0])
    return arrays


def _check_equally_long(expected: Sequence[Array], arrays: Arrays) -> None:
    """Free axes of one name have one length."""
    found: dict[str, tuple[str, int]] = {}
    for array, one in zip(arrays, expected, strict=True):
        for axis, size, got in zip(one.axes, one.shape, array.shape, strict=True):
            name, length = found.setdefault(axis, (one.name, got)) if size is None else (one.name, got)
            if got != length:
                raise InputError(f"{one.name} must have {length} along its {axis} axis, as {name} has, but has {got}.")


def is_frame(x: Any) -> bool:
    """Whether x is a DataFrame or Series of pandas, which is imported where there can be one."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(x, pandas.DataFrame | pandas.Series)


def from_frame(card: Card, frame: Any) -> tuple[Arrays, Any]:
    """The input that a DataFrame holds, cut into windows where the network reads windows, and the index of its rows."""
    if len(card.inputs) > 1:
        raise InputError("A DataFrame serves one input, but this network has several: pass a dict of arrays.")
    shape = card.input.shape
    window: int = (shape[1] if len(shape) == 3 else 0) or card.training.get("window") or 0
    if len(shape) > 2 and (len(shape) != 3 or not window):
        raise InputError(f"This artifact reads x {card.input.axes}: pass a numpy array instead of a DataFrame.")
    values = _columns(card.input.name, frame, card.input.names, shape[-1] if len(shape) > 1 else 1)
    if len(shape) == 1:
        if values.shape[1] != 1:
            raise InputError(f"{card.input.name} is one column, but the DataFrame has {values.shape[1]}.")
        return as_inputs(card, values[:, 0]), frame.index
    if len(shape) == 2:
        return as_inputs(card, values), frame.index
    if len(values) < window:
        raise InputError(f"The network reads windows of {window} rows, but the DataFrame has {len(values)}.")
    if values.dtype.kind in "fiu" and values.shape[1] != shape[2]:
        raise InputError(f"{card.input.name} must have {shape[2]} columns, but the DataFrame has {values.shape[1]}.")
    check_rising(frame if frame.ndim == 2 else frame.to_frame(), card.input.names)
    windows = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)  # (N, F, T)
    return as_inputs(card, np.moveaxis(windows, 2, 1)), frame.index[window - 1 :]


def _columns(name: str, frame: Any, names: Sequence[str], width: int | None) -> NDArray[Any]:
    """Values [N, F] of a DataFrame's columns by their names, or of a Series, which is one column.

    Without names several columns are taken by their place only where they have no names of their own: else nobody
    could tell whether they lie as training had them.
    """
    if frame.ndim == 1:
        if width != 1:
            raise InputError(
                f"A Series holds one column, but {name} has {width} features. Pass a DataFrame; for a Series that is "
                "one row of it, series.to_frame().T."
            )
        if names and frame.name is not None and frame.name != names[0]:
            raise InputError(f"{name} is {names[0]}, but the Series is called {shown(frame.name)}. Rename it.")
        frame = frame.to_frame(names[0] if names else 0)
    columns = list(frame.columns)
    if names:
        missing = [column for column in names if column not in columns]
        if missing:
            raise InputError(
                f"The DataFrame lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, columns))}."
            )
        frame = frame[list(names)]
        if frame.shape[1] != len(names):
            twice = next(column for column in names if columns.count(column) > 1)
            raise InputError(f"The DataFrame has several columns {twice!r}. Keep one of them.")
    elif len(columns) > 1 and columns != list(range(len(columns))):
        raise InputError(
            f"This artifact has no names for the columns of {name}, so it cannot tell which of "
            f"{', '.join(map(str, columns))} is which. Pass them as a numpy array, in the order that training had "
            "(frame[[…]].to_numpy()), or export with names for them."
        )
    kinds = {getattr(dtype, "kind", "O") for dtype in frame.dtypes}
    if kinds <= set("fiu") and any(not isinstance(dtype, np.dtype) for dtype in frame.dtypes):
        tokens = kinds <= set("iu") and not frame.isna().to_numpy().any()
        return np.asarray(frame.to_numpy(dtype="int64" if tokens else "float64", na_value=np.nan))
    return np.asarray(frame.to_numpy())


def _check_scaled(card: Card, x: NDArray[Any]) -> None:
    """Refuse rows whose values in the network's units, computed as in the artifact, float32 cannot hold."""
    scaling = card.scaling
    plain = (scaling.input_mean, scaling.input_scale, scaling.values) == ((0.0,), (1.0,), "levels")
    if plain or x.dtype.kind != "f":
        return
    name, seen = card.input.name, x
    with np.errstate(over="ignore", invalid="ignore"):
        if scaling.values != "levels":
            last = x[:, -1:]
            if scaling.values == "returns":
                near = np.abs(last) < FLOAT32_TINY
                if near.any():
                    row, _, feature = (int(i) for i in np.argwhere(near)[0])
                    raise InputError(
                        f"Row {row} of {name} has a last value of {last[row, 0, feature]:g}, of which there are no "
                        "returns: this artifact reads windows relative to their last row. Fill or drop such rows first."
                    )
            seen = x - last
            if scaling.values == "returns":
                seen = seen / last
        mean, scale = np.asarray(scaling.input_mean, np.float32), np.asarray(scaling.input_scale, np.float32)
        seen = (seen - mean) / scale
    if not np.isfinite(seen).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(seen))[0])
        raise InputError(
            f"Row {place[0]} of {name} is beyond float32 once it is scaled for the network, at {name}{list(place)} = "
            f"{x[place]:g}. Such values are far from all that it was trained on: fill or drop such rows first."
        )


def check_answer(card: Card, samples: Sequence[NDArray[np.float32]], first: int = 0) -> None:
    """Refuse samples [S, B, …] of the first outputs that are not finite, although the inputs are.

    `first` is row 0's number.

    No finite numbers of float32 add up beyond float64: the sum is finite if all of them are, and takes no memory.
    """
    for array, part in zip(card.outputs, samples, strict=False):
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(part.sum(dtype=np.float64))
        if not finite:
            rows = np.isfinite(part).all(axis=tuple(k for k in range(part.ndim) if k != 1))
            raise InputError(
                f"The network's answer {array.name} for row {first + int(np.argmin(rows))} is not finite, although the "
                "input is: its values are too large for float32 arithmetic, or the network's weights are. Compare them "
                "with the data that the network was trained on."
            )


def as_truth(card: Card, y: ArrayLike, rows: int) -> NDArray[np.float64]:
    """What came of `rows` rows, [rows, O] in raw units, in float64."""
    check_can_be_calibrated(card)
    return finite_truth(_numbers(y, rows, card.output.shape[1] or 0, card.output.axes[-1], card.output.names), "y")


def finite_truth(truth: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """The same, or an error where a value is missing or infinite."""
    if not np.isfinite(truth).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(truth))[0])
        raise InputError(f"{name} must be finite, but {name}{list(place)} is {truth[place]}. Drop such rows first.")
    return truth


def as_news(card: Card, y: ArrayLike, rows: int) -> NDArray[np.float64]:
    """What became known of `rows` rows: of a forecast the next value [rows, 1], else every output [rows, O]."""
    width = 1 if is_forecast(card) else card.output.shape[1] or 0
    news = _numbers(y, rows, width, card.output.axes[-1], card.output.names)
    if np.isinf(news).any():
        raise InputError("y must be finite, or NaN where the truth is not known, but holds infinity.")
    return news


def is_forecast(card: Card) -> bool:
    """Whether the last axis of the output is the steps of a horizon, each known one step after the other."""
    return card.task == "forecast" or card.horizon > 1


def _numbers(y: Any, rows: int, width: int, axis: str, names: Sequence[str]) -> NDArray[np.float64]:
    if is_frame(y) and y.ndim == 2 and width > 1:
        y = _columns("y", y, names, width)
    values = _array_of("y", y)
    if values.dtype.kind not in "fiu":
        raise InputError(f"y must hold numbers, not {values.dtype}. Convert it first.")
    if width == 1 and values.ndim < 2:
        values = values.reshape(-1, 1)
    if values.shape != (rows, width):
        raise InputError(f"y must be [rows = {rows}, {axis} = {width}], as was predicted, but is {values.shape}.")
    with np.errstate(over="ignore"):  # of longer floats; then it is refused as infinite
        return values.astype(np.float64)


def _array_of(name: str, value: Any) -> NDArray[Any]:
    """An array, empty where rows are of unequal length, for a message about its shape."""
    checks.refuse_masked(name, value)
    try:
        return checks.array(name, value)
    except InputError:
        return np.empty(0)


def as_half_life(half_life: float | None) -> float | None:
    """Rows after which a row counts half, or None."""
    if half_life is None:
        return None
    try:
        return checks.positive("half_life", half_life, "250")
    except InputError:
        raise InputError(f"half_life must be a number of rows above 0, or None, not {shown(half_life)}.") from None


def as_levels(card: Card, levels: Level | None, rows: int, half_life: float | None) -> tuple[float, ...]:
    """Levels to calibrate on so many rows: those asked for, or the usual ones for which the rows suffice."""
    if levels is None:
        weight = conformal.weights(rows, half_life).sum()
        usual = {level for level in conformal.LEVELS if weight >= conformal.rows_needed(level)}
        nominal = tuple(sorted(usual | set(card.levels)))
    else:
        asked = as_level(card, levels)
        nominal = tuple(sorted(set(asked))) if isinstance(asked, tuple) else (asked,)
    if len(nominal) > CALIBRATION_SLOTS:
        raise InputError(f"An artifact holds factors for {CALIBRATION_SLOTS} levels at most, not {len(nominal)}.")
    return nominal


def check_unseen(card: Card, x: NDArray[Any]) -> None:
    """Refuse data that the network was trained on, as far as the card's sample of its rows tells."""
    seen = set(card.training.get("fingerprint", ())) & set(fingerprint(x, len(x)))
    if seen:
        raise InputError(
            f"x holds rows that the network was trained on ({len(seen)} of the card's sample of them): it is surer of "
            "those than of others, so calibrating on them would make the intervals too narrow. Use data that training "
            "did not see."
        )


def can_be_calibrated(card: Card) -> bool:
    """Whether there is a place for factors: the output must be [B, O], and no class probability."""
    return len(card.output.shape) == 2 and card.task != "classification"


def check_can_be_calibrated(card: Card) -> None:
    if not can_be_calibrated(card):
        raise InputError(
            f"Only intervals of values [batch, {card.output.axes[-1]}] can be calibrated, no probabilities; this "
            f"artifact's output is [{described(card.output)}], its task {card.task}."
        )


def as_draws(card: Card, draws: Draws | None) -> NDArray[np.int64]:
    """Names of draws [S], all different."""
    names = _array_of("draws", card.draws if draws is None else draws)
    if names.dtype.kind not in "iu":
        raise InputError(f"draws must be a number of draws or an integer array of their names, not {shown(draws)}.")
    if names.ndim == 0:
        if names < 2:
            raise InputError(f"draws must be at least 2, since one draw has no spread; got {int(names)}.")
        check_memory(card, 1, int(names), outputs=1)
        return np.arange(int(names), dtype=np.int64)
    if names.ndim != 1 or len(names) < 2:
        raise InputError(
            f"draws must be a number, or a one-dimensional array of at least 2 names; got shape {names.shape}."
        )
    if names.min() < 0 or names.max() >= MAX_DRAWS:
        raise InputError(f"Names of draws must lie in 0 … 2^32 - 1; got {names.min()} … {names.max()}.")
    ordered = np.sort(names)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise InputError(f"draws must differ, since a repeated draw adds nothing; {twice[0]} comes more than once.")
    return names.astype(np.int64)


def as_level(card: Card, level: Level | None) -> float | tuple[float, ...]:
    """One level, or several."""
    if level is None:
        level = card.levels[0] if len(card.levels) == 1 else card.levels
    values = _array_of("level", level)
    if values.ndim > 1 or values.size == 0 or values.dtype.kind not in "fiu":
        raise InputError(f"level must be a number such as 0.95, or several, not {shown(level)}.")
    values = values.astype(np.float64)
    if not ((values > 0) & (values < 1)).all():
        raise InputError(f"level must lie between 0 and 1, for example 0.95 for 95 %; got {shown(level)}.")
    return float(values) if values.ndim == 0 else tuple(float(v) for v in values)


def as_goal(tolerance: float | None, budget_ms: float | None) -> Goal | None:
    """When to stop drawing, if not at a number of draws."""
    share = None if tolerance is None else checks.positive("tolerance", tolerance, "0.02")
    milliseconds = None if budget_ms is None else checks.positive("budget_ms", budget_ms, "5")
    if share is None and milliseconds is None:
        return None
    return Goal(share, None if milliseconds is None else milliseconds / 1000)


def as_seed(card: Card, seed: int | None) -> int:
    """A seed of 64 bits."""
    try:
        return checks.whole("seed", card.seed if seed is None else seed, -(2**63), 2**63 - 1)
    except InputError:
        raise InputError(f"seed must be an integer of 64 bits, not {shown(seed)}.") from None


def described(array: Array) -> str:
    return ", ".join(
        axis if size is None else f"{axis} = {size}" for axis, size in zip(array.axes, array.shape, strict=True)
    )


def as_numpy(x: Any, expected: Array) -> NDArray[Any]:
    """x as numpy reads it, of any shape and type; a DataFrame by the names of its columns."""
    name, shape = expected.name, described(expected)
    if is_frame(x):
        values = _columns(name, x, expected.names, expected.shape[-1] if len(expected.shape) > 1 else 1)
        return values[:, 0] if len(expected.shape) == 1 and values.shape[1] == 1 else values
    if hasattr(x, "columns"):  # a table of another package, whose columns would be taken by their place
        raise InputError(f"{name} is a {type(x).__name__}: pass a DataFrame of pandas, or a numpy array [{shape}].")
    return checks.array(name, x, f" [{shape}]")


_KINDS = {"float32": "fiu", "int64": "iu", "bool": "b"}
"""Of numpy's types, those that are taken for a card's."""


def _checked(x: Any, expected: Array) -> NDArray[Any]:
    name, shape = expected.name, described(expected)
    array = as_numpy(x, expected)
    if array.dtype.kind not in _KINDS[expected.dtype]:
        what = "True and False alone" if expected.dtype == "bool" else f"numbers that fit {expected.dtype}"
        raise InputError(f"{name} must hold {what}, not {array.dtype}. Convert it first.")
    if array.ndim != len(expected.shape):
        single = "All rows share it." if expected.shared else f"A single row needs a batch axis too: {name}[None]."
        raise InputError(
            f"{name} must have {len(expected.shape)} axes [{shape}], but has {array.ndim}: {array.shape}. {single}"
        )
    for axis, size, got in zip(expected.axes, expected.shape, array.shape, strict=True):
        if size is not None and got != size:
            if axis == "time":
                raise InputError(f"{name} needs {size} steps, got {got}: expected [{shape}].")
            names = f" ({', '.join(expected.names)})" if expected.names and axis == expected.axes[-1] else ""
            raise InputError(
                f"{name} must have {size} along its {axis} axis{names}, but has {got}: expected [{shape}]."
            )
    if array.size == 0:
        raise InputError(f"{name} is empty: {array.shape}. Expected [{shape}] with at least one of each.")
    limit = expected.limit if isinstance(expected.limit, int) else None
    if expected.dtype == "int64" and (limit is not None or array.dtype == np.uint64):
        least, most = (0, limit - 1) if limit is not None else (np.iinfo(np.int64).min, np.iinfo(np.int64).max)
        if array.min() < least or array.max() > most:
            raise InputError(f"{name} must hold tokens from {least} to {most}, but has {array.min()} … {array.max()}.")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=expected.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(
            f"{name} must be finite, but {name}{list(place)} is {array[place]}. Fill or drop such rows first."
        )
    if isinstance(expected.limit, tuple):
        _check_categories(array.reshape(-1, len(expected.limit)), expected)
    return array


def _check_categories(rows: NDArray[Any], expected: Array) -> None:
    """Refuse categories that the network does not know, in rows [N, columns]."""
    assert isinstance(expected.limit, tuple)
    for column, limit in enumerate(expected.limit):
        values = rows[:, column]
        if limit is not None and (values.min() < 0 or values.max() >= limit):
            called = f" ({expected.names[column]})" if expected.names else ""
            raise InputError(
                f"Column {column}{called} of {expected.name} must hold categories from 0 to {limit - 1}, but has "
                f"{_shown(values.min())} … {_shown(values.max())}."
            )


def _shown(number: Any) -> str:
    return f"{number:g}" if isinstance(number, np.floating) else str(number)
