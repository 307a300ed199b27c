"""What a network trains on: windows of a series or rows of a table, in parts, and the scaling of the training part."""

import bisect
import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime import checks
from ..runtime.contract import VALUES, Scaling
from ..runtime.errors import InputError
from .table import Series, Table, check_varies

VALIDATION_SHARE = 0.15
MOST_ROWS = 10**6  # of a window or a horizon


@dataclass(frozen=True, eq=False)
class Part:
    """N examples: windows of a series in time order, or rows of a table."""

    x: npt.NDArray[np.float32]
    """Raw units. Of a series `[N, window, F]`: the target, then the further columns. Of a table `[N, …]`."""
    y: npt.NDArray[Any]
    """Raw units, float32: of a series `[N, horizon]`, of a table `[N, targets]`. Of classes int64 `[N]`: labels."""
    dates: npt.NDArray[Any]
    """`[N]`: of a series the date, or row number, of the first predicted row; of a table the number of the row."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples for training, calibration and test, and the scaling of the training part."""

    name: str
    task: str
    """"forecast", "regression" or "classification"."""
    train: Part
    calibration: Part
    test: Part
    scaling: Scaling
    window: int | None
    """Rows that a forecast sees; None for tables."""
    horizon: int
    """Rows that a forecast predicts; 1 for tables."""
    target: str
    features: tuple[str, ...]
    """Of a series the further columns; of a table the columns of `x`, or nothing where they have no names."""
    output_names: tuple[str, ...]
    """Names of the values that the network gives for an example; for a classification those of the classes."""
    splits: tuple[float, float, float]
    """Shares of the rows in training, calibration and test."""
    repairs: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names along the last axis of `x`, or nothing where they have none."""
        return (self.target, *self.features) if self.task == "forecast" else self.features

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example's `x`: (window, features) for a forecast."""
        return self.train.x.shape[1:]


def prepare(
    series: Series,
    window: int = 21,
    horizon: int = 1,
    splits: tuple[float, float, float] = (0.6, 0.15, 0.25),
    values: str = "levels",
) -> Dataset:
    """Cut a series into windows of `window` rows that predict the `horizon` rows after them.

    `splits` are the shares of rows for training, calibration and test, in time order, never shuffled. A window belongs
    to the part in which all its predicted rows lie: its inputs may reach back into the part before, nothing reaches
    forward, and no predicted row is in two parts.

    The scaling (mean and standard deviation of each column) comes from the rows of the training part only. BLiTZ's
    tutorial standardises over the whole series, and so lets the network see the level and spread of the test part.

    `values` says what the network sees and predicts: "levels"; or, so that it can follow a series that drifts out of
    the training part's range, "differences" from the window's last row, or "returns" relative to it, for prices. Then
    the scaling is the root mean square of those differences or returns over the training part's windows, one of the
    inputs for each column and one of the outputs for each step of the horizon. The artifact undoes it all.

    Raises InputError for arguments out of range, too few rows, a column that is constant in the training part, and
    returns of values that are not all positive.
    """
    checks.instance("series", series, Series)
    window, horizon = checks.whole("window", window, 1, MOST_ROWS), checks.whole("horizon", horizon, 1, MOST_ROWS)
    checks.choice("values", values, VALUES)
    splits = check_splits(splits)
    rows = len(series.values)
    parts = parts_of(rows, window, horizon, splits)
    if not all(parts):
        many = range(rows, 1000 * MOST_ROWS)  # a share is a hundredth at least
        needed = many[bisect.bisect_left(many, True, key=lambda n: all(parts_of(n, window, horizon, splits)))]
        raise InputError(
            f"Series {series.name!r} has {rows} rows; window {window}, horizon {horizon} and splits {splits} need at "
            f"least {needed}. Give more rows, or a shorter window or horizon."
        )
    training = series.values[: parts[0].stop + horizon - 1]
    for index, column in enumerate(series.columns):
        check_varies(training[:, index], f"In the training part ({len(training)} rows), column {column!r}")
    # Rounded to float32 so that training and the exported graph use the very same numbers.
    mean = tuple(training.mean(0, dtype=np.float64).astype(np.float32).tolist())
    scale = tuple(training.std(0, dtype=np.float64).astype(np.float32).tolist())
    scaling = Scaling(mean, scale, mean[:1], scale[:1], values)
    train, calibration, test = (
        _cut(series.values, series.values[:, 0], series.dates, part, window, horizon) for part in parts
    )
    if values != "levels":
        if values == "returns" and series.values.min() <= 0:
            raise InputError(
                f"Returns need values above 0, but {series.name!r} goes down to {series.values.min():g}. Take "
                'values="differences".'
            )
        if window == 1:
            raise InputError(f'A window of 1 row has no {values}. Take a longer window, or values="levels".')
        scaling = _scaling_of_changes(train, values)
    return Dataset(
        name=series.name,
        task="forecast",
        train=train,
        calibration=calibration,
        test=test,
        scaling=scaling,
        window=window,
        horizon=horizon,
        target=series.target,
        features=series.features,
        output_names=forecast_names(series.target, horizon),
        splits=splits,
        repairs=series.repairs,
    )


def windows_of(table: Table, inputs: Sequence[str], target: str, window: int, horizon: int) -> Part:
    """Every window of `inputs` that has `horizon` rows after it, and what `target`, a column of its own or one of them,
    was in these. Raises InputError where the table is too short."""
    rows = len(table.values)
    if rows < window + horizon:
        raise InputError(
            f"Windows of {window} rows and the {horizon} after them need at least {window + horizon} rows; "
            f"{table.name!r} has {rows}."
        )
    places = [table.columns.index(column) for column in inputs]
    return _cut(
        table.values[:, places],
        table.values[:, table.columns.index(target)],
        table.dates,
        range(window, rows - horizon + 1),
        window,
        horizon,
    )


def forecast_names(target: str, horizon: int) -> tuple[str, ...]:
    """Names of the values that a forecast gives."""
    return tuple(f"{target} + {step}" for step in range(1, horizon + 1))


def standardise(part: Part, scaling: Scaling) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """`x` and `y` of the part in the network's units, float32, of the same shapes; labels stay as they are."""
    checks.instance("part", part, Part)
    checks.instance("scaling", scaling, Scaling)
    mean, scale, output_mean, output_scale = (
        np.array(values, np.float32)
        for values in (scaling.input_mean, scaling.input_scale, scaling.output_mean, scaling.output_scale)
    )
    x, y = part.x, part.y
    if scaling.values != "levels":
        last = x[:, -1:]
        x, y = x - last, y - last[:, 0, :1]
        if scaling.values == "returns":
            x, y = x / last, y / last[:, 0, :1]
    if y.dtype.kind == "f":
        y = (y - output_mean) / output_scale
    return (x - mean) / scale, y


def with_validation(data: Dataset) -> tuple[Part, Part]:
    """The training examples without, and only, the last 15 %; no predicted row is in both.

    Raises InputError where too few are left to train on.
    """
    part = data.train
    kept = len(part) - max(1, round(VALIDATION_SHARE * len(part)))
    first = kept - (data.horizon - 1)
    if first < 1:
        if data.window is None:
            raise InputError(
                f"The training part has {len(part)} rows, too few to keep some for validation. Give at least 2."
            )
        raise InputError(
            f"The training part has {len(part)} windows, too few to keep some for validation at horizon "
            f"{data.horizon}. Give more rows, or a shorter window or horizon."
        )
    return (
        Part(part.x[:first], part.y[:first], part.dates[:first]),
        Part(part.x[kept:], part.y[kept:], part.dates[kept:]),
    )


def check_splits(splits: tuple[float, float, float]) -> tuple[float, float, float]:
    try:
        train, calibration, test = shares = checks.floats("splits", splits)
        good = all(share >= 0.01 for share in shares) and math.isclose(sum(shares), 1, abs_tol=1e-6)
    except ValueError:  # no numbers, or not three
        good = False
    if not good:
        raise InputError(
            "splits must be three shares of at least 0.01 that sum to 1 (train, calibration, test), "
            f"for example (0.6, 0.15, 0.25), got {checks.shown(splits)}."
        )
    return train, calibration, test


def digest(data: Dataset) -> str:
    """SHA-256, as hexadecimal text, of the training examples, their names and their scaling."""
    facts = (data.task, data.scaling, data.columns, data.output_names, data.shape, data.horizon)
    sha256 = hashlib.sha256(repr(facts).encode())
    for array in (data.train.x, data.train.y):
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def parts_of(rows: int, window: int, horizon: int, splits: Sequence[float]) -> list[range]:
    """The first predicted rows of each part's windows."""
    edges = [0, round(rows * splits[0]), round(rows * (splits[0] + splits[1])), rows]
    return [range(max(start, window), stop - horizon + 1) for start, stop in itertools.pairwise(edges)]


def _scaling_of_changes(train: Part, values: str) -> Scaling:
    """Root mean squares of the training windows' differences or returns: of the inputs per column, of y per step."""
    x, y = standardise(train, Scaling(values=values))
    of_x = np.sqrt(np.square(x[:, :-1], dtype=np.float64).mean(axis=(0, 1))).astype(np.float32)
    of_y = np.sqrt(np.square(y, dtype=np.float64).mean(axis=0)).astype(np.float32)
    return Scaling((0.0,), tuple(of_x.tolist()), (0.0,), tuple(of_y.tolist()), values)


def _cut(
    values: npt.NDArray[np.float32],
    target: npt.NDArray[np.float32],
    dates: npt.NDArray[Any],
    first: range,
    window: int,
    horizon: int,
) -> Part:
    rows = np.array(first)
    x = values[rows[:, None] + np.arange(-window, 0)]  # (N, window, F)
    y = target[rows[:, None] + np.arange(horizon)]  # (N, horizon)
    return Part(x, y, dates[rows])
