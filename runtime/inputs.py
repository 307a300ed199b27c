"""What a caller passes, checked at the door: shape, type, finiteness, range; and turned into arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import conformal
from .contract import CALIBRATION_SLOTS, MAX_DRAWS, Array, Card
from .enough import Goal
from .errors import InputError
from .fingerprint import fingerprint

Arrays = tuple[NDArray[Any], ...]
Input = ArrayLike | Mapping[str, ArrayLike] | tuple[ArrayLike, ...]
Draws = int | ArrayLike
Level = float | Sequence[float]

MAX_SAMPLE_BYTES = 2**31


def as_inputs(card: Card, x: Input) -> Arrays:
    """Every input as an array [B, …] of the type that the card says."""
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
    if len({len(array) for array in arrays}) > 1:
        raise InputError(f"Every input needs the same number of rows, but they have {[len(a) for a in arrays]}.")
    return arrays


def from_frame(card: Card, frame: Any) -> tuple[Arrays, Any]:
    """The input that a DataFrame holds, cut into windows where the network reads windows, and the index of its rows."""
    if len(card.inputs) > 1:
        raise InputError("A DataFrame serves one input, but this network has several: pass a dict of arrays.")
    names = list(card.input.names)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise InputError(
            f"The DataFrame lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}."
        )
    values = frame[names].to_numpy() if names else frame.to_numpy()
    if len(card.input.shape) == 2:
        return as_inputs(card, values), frame.index
    window = card.training.get("window") or card.input.shape[1]
    if len(card.input.shape) != 3 or window is None:
        raise InputError(f"This artifact reads x {card.input.axes}: pass a numpy array instead of a DataFrame.")
    if len(frame) < window:
        raise InputError(f"The network reads windows of {window} rows, but the DataFrame has {len(frame)}.")
    windows = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)  # (N, F, T)
    return as_inputs(card, np.moveaxis(windows, 2, 1)), frame.index[window - 1 :]


def as_truth(card: Card, y: ArrayLike, rows: int) -> NDArray[np.float64]:
    """What came of `rows` rows, [rows, O] in raw units, in float64."""
    check_can_be_calibrated(card)
    truth = _numbers(y, rows, card.output.shape[1] or 0, card.output.axes[-1])
    if not np.isfinite(truth).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(truth))[0])
        raise InputError(f"y must be finite, but y{list(place)} is {truth[place]}. Drop such rows first.")
    return truth


def as_news(card: Card, y: ArrayLike, rows: int) -> NDArray[np.float64]:
    """What became known of `rows` rows: of a forecast the next value [rows, 1], else every output [rows, O]."""
    width = 1 if is_forecast(card) else card.output.shape[1] or 0
    news = _numbers(y, rows, width, card.output.axes[-1])
    if np.isinf(news).any():
        raise InputError("y must be finite, or NaN where the truth is not known, but holds infinity.")
    return news


def is_forecast(card: Card) -> bool:
    """Whether the last axis of the output is the steps of a horizon, each known one step after the other."""
    return card.task == "forecast" or card.horizon > 1


def _numbers(y: ArrayLike, rows: int, width: int, axis: str) -> NDArray[np.float64]:
    try:
        values = np.asarray(y)
    except ValueError:  # rows of unequal length
        values = np.empty(0)
    if values.dtype.kind not in "fiu":
        raise InputError(f"y must hold numbers, not {values.dtype}. Convert it first.")
    if width == 1 and values.ndim < 2:
        values = values.reshape(-1, 1)
    if values.shape != (rows, width):
        raise InputError(f"y must be [rows = {rows}, {axis} = {width}], as was predicted, but is {values.shape}.")
    return values.astype(np.float64)


def as_levels(card: Card, levels: Sequence[float] | None, rows: int, half_life: float | None) -> tuple[float, ...]:
    """Levels to calibrate on so many rows: those asked for, or the usual ones for which the rows suffice."""
    if half_life is not None and not (isinstance(half_life, int | float) and 0 < half_life < np.inf):
        raise InputError(f"half_life must be a number of rows above 0, or None, not {half_life!r}.")
    if levels is None:
        weight = conformal.weights(rows, half_life).sum()
        usual = {level for level in conformal.LEVELS if weight >= conformal.rows_needed(level)}
        return tuple(sorted(usual | set(card.levels)))
    asked = as_level(card, tuple(levels) if isinstance(levels, Sequence) else levels)
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


def check_can_be_calibrated(card: Card) -> None:
    """Refuse an artifact without a place for factors: its output must be [B, O], and no class probability."""
    if len(card.output.shape) != 2 or card.task == "classification":
        raise InputError(
            f"Only intervals of values [batch, {card.output.axes[-1]}] can be calibrated, no probabilities; this "
            f"artifact's output is [{described(card.output)}], its task {card.task}."
        )


def as_draws(card: Card, draws: Draws | None) -> NDArray[np.int64]:
    """Names of draws [S]."""
    try:
        names = np.asarray(card.draws if draws is None else draws)
    except ValueError:  # rows of unequal length
        names = np.empty(0)
    if names.dtype.kind not in "iu":
        raise InputError(f"draws must be a number of draws or an integer array of their names, not {draws!r}.")
    if names.ndim == 0:
        if names < 2:
            raise InputError(f"draws must be at least 2, since one draw has no spread; got {int(names)}.")
        check_memory(card, 1, int(names))
        return np.arange(int(names), dtype=np.int64)
    if names.ndim != 1 or len(names) < 2:
        raise InputError(
            f"draws must be a number, or a one-dimensional array of at least 2 names; got shape {names.shape}."
        )
    if names.min() < 0 or names.max() >= MAX_DRAWS:
        raise InputError(f"Names of draws must lie in 0 … 2^32 - 1; got {names.min()} … {names.max()}.")
    return names.astype(np.int64)


def as_level(card: Card, level: Level | None) -> float | tuple[float, ...]:
    """One level, or several."""
    if level is None:
        level = card.levels[0] if len(card.levels) == 1 else card.levels
    try:
        values = np.asarray(level, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty((0, 0))
    if values.ndim > 1 or values.size == 0:
        raise InputError(f"level must be a number such as 0.95, or several, not {level!r}.")
    if not ((values > 0) & (values < 1)).all():
        raise InputError(f"level must lie between 0 and 1, for example 0.95 for 95 %; got {level!r}.")
    return float(values) if values.ndim == 0 else tuple(float(v) for v in values)


def as_goal(tolerance: float | None, budget_ms: float | None) -> Goal | None:
    """When to stop drawing, if not at a number of draws."""
    for name, value, example in (("tolerance", tolerance, "0.02"), ("budget_ms", budget_ms, "5")):
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if value is not None and not (number and 0 < float(value) < np.inf):
            raise InputError(f"{name} must be a number above 0, for example {example}, not {value!r}.")
    if tolerance is None and budget_ms is None:
        return None
    return Goal(tolerance, None if budget_ms is None else budget_ms / 1000)


def as_seed(card: Card, seed: int | None) -> int:
    """A seed of 64 bits."""
    value = card.seed if seed is None else seed
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not -(2**63) <= value < 2**63:
        raise InputError(f"seed must be an integer of 64 bits, not {seed!r}.")
    return int(value)


def check_memory(card: Card, rows: int, draws: int) -> None:
    """Refuse to make more samples than fit."""
    sizes = (np.prod([size or 1 for size in array.shape[1:]], dtype=np.int64) for array in card.outputs)
    total = 4 * draws * rows * int(sum(sizes))
    if total > MAX_SAMPLE_BYTES:
        raise InputError(
            f"{draws} draws of {rows} rows make {total / 2**30:.1f} GiB of samples; at most "
            f"{MAX_SAMPLE_BYTES / 2**30:.0f} GiB are returned from one call. Ask for fewer draws or fewer rows."
        )


def described(array: Array) -> str:
    return ", ".join(
        axis if size is None else f"{axis} = {size}" for axis, size in zip(array.axes, array.shape, strict=True)
    )


def _checked(x: ArrayLike, expected: Array) -> NDArray[Any]:
    name, shape = expected.name, described(expected)
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise InputError(f"{name} must be an array [{shape}]: {error}") from None
    if array.dtype.kind not in "fiu" or (expected.dtype == "int64" and array.dtype.kind == "f"):
        raise InputError(f"{name} must hold numbers that fit {expected.dtype}, not {array.dtype}. Convert it first.")
    if array.ndim != len(expected.shape):
        raise InputError(
            f"{name} must have {len(expected.shape)} axes [{shape}], but has {array.ndim}: {array.shape}. "
            f"A single row needs a batch axis too: {name}[None]."
        )
    for axis, size, got in zip(expected.axes, expected.shape, array.shape, strict=True):
        if size is not None and got != size:
            names = f" ({', '.join(expected.names)})" if expected.names and axis == expected.axes[-1] else ""
            raise InputError(
                f"{name} must have {size} along its {axis} axis{names}, but has {got}: expected [{shape}]."
            )
    if array.size == 0:
        raise InputError(f"{name} is empty: {array.shape}. Expected [{shape}] with at least one of each.")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=expected.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(
            f"{name} must be finite, but {name}{list(place)} is {array[place]}. Fill or drop such rows first."
        )
    if expected.limit is not None and not (array.min() >= 0 and array.max() < expected.limit):
        raise InputError(
            f"{name} must hold tokens from 0 to {expected.limit - 1}, but has {array.min()} … {array.max()}."
        )
    return array
