"""Rows of a table, or images, for training, calibration and test: shuffled by a seed, or split as a benchmark says."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime import checks
from ..runtime.contract import Scaling
from ..runtime.errors import InputError
from .dataset import Dataset, Part, check_splits
from .table import check_varies

Moments = tuple[tuple[float, ...], tuple[float, ...]]
Parts = tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]

NO_SCALING: Moments = ((0.0,), (1.0,))


def prepare_rows(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    name: str,
    names: Sequence[str] = (),
    target: str = "y",
    classes: Sequence[str] = (),
    splits: tuple[float, float, float] = (0.7, 0.1, 0.2),
    parts: Parts | None = None,
    seed: int = 0,
) -> Dataset:
    """Put rows that do not depend on each other into training, calibration and test.

    `x`: numbers `[N, …]`: a table `[N, F]`, images `[N, C, H, W]`. `y`: for a regression numbers `[N]` or `[N, H]`; for
    a classification, which `classes` makes it, integer labels `[N]` from 0 to len(classes) - 1. Both in raw units.
    `name`: of the data. `names`: of a table's columns. `target`: of what is predicted. `classes`: names of the classes.

    The rows are shuffled once by `seed` and cut by `splits`, the shares of training, calibration and test. In place of
    that, `parts` gives the numbers of the rows in each part, from 0, as benchmarks do: no row may be in two, and
    calibration may be empty. Of these only the training rows are shuffled, so that the last of them can serve for
    validation. `Part.dates` tells which rows of `x` a part holds.

    The scaling comes from the training rows only: mean and standard deviation of each column of a table, of all values
    together for any other `x`, and of each target. A column that is constant in the training rows keeps its scale.
    Labels are not scaled.

    Raises InputError for arrays or arguments that do not fit, numbers that are not finite, and a constant target.
    """
    for argument, value in (("name", name), ("target", target)):
        checks.text(argument, value)
    values = _numbers(x, "x")
    if values.ndim < 2 or not values[:1].size:
        raise InputError(
            f"x must have the shape [rows, columns] or [rows, channels, height, width], got {list(values.shape)}."
        )
    names, classes = checks.words("names", names), checks.words("classes", classes)
    if names and (values.ndim != 2 or len(names) != values.shape[1]):
        raise InputError(f"names must hold one name for each column of x, of shape {list(values.shape)}, got {names}.")
    wanted = _labels(y, classes) if classes else _targets(y)
    if len(wanted) != len(values):
        raise InputError(f"x and y must have as many rows as each other, got {len(values)} and {len(wanted)}.")
    seed = checks.whole("seed", seed, 0)

    random = np.random.default_rng(seed)
    if parts is None:
        splits = check_splits(splits)
        order = random.permutation(len(values))
        edges = [0, round(len(order) * splits[0]), round(len(order) * (splits[0] + splits[1])), len(order)]
        rows = [order[start:stop] for start, stop in itertools.pairwise(edges)]
        if not all(map(len, rows)):
            raise InputError(
                f"{len(order)} rows are too few for splits {splits}: every part needs one. Give more rows."
            )
    else:
        rows = _given(parts, len(values))
        rows[0] = random.permutation(rows[0])
        splits = tuple(len(part) / sum(map(len, rows)) for part in rows)  # type: ignore[assignment]
    train, calibration, test = (Part(values[part], wanted[part], part) for part in rows)
    if classes:
        outputs, output_scaling = classes, NO_SCALING
    else:
        outputs = (target,) if wanted.shape[1] == 1 else tuple(f"{target} {k}" for k in range(1, wanted.shape[1] + 1))
        for column, output in enumerate(outputs):
            check_varies(train.y[:, column], f"In the training part ({len(train)} rows), target {output!r}")
        output_scaling = _scaling(train.y)
    columns = train.x if values.ndim == 2 else train.x.reshape(-1, 1)
    return Dataset(
        name=name,
        task="classification" if classes else "regression",
        train=train,
        calibration=calibration,
        test=test,
        scaling=Scaling(*_scaling(columns), *output_scaling),
        window=None,
        horizon=1,
        target=target,
        features=names,
        output_names=outputs,
        splits=splits,
    )


def _scaling(columns: npt.NDArray[np.float32]) -> Moments:
    """Mean and standard deviation of each column, rounded to float32 as the exported graph will use them."""
    mean = columns.mean(0, dtype=np.float64).astype(np.float32)
    scale = columns.std(0, dtype=np.float64).astype(np.float32)
    scale[scale == 0] = 1
    return tuple(mean.tolist()), tuple(scale.tolist())


def _numbers(source: npt.ArrayLike, name: str) -> npt.NDArray[np.float32]:
    array = checks.array(name, source)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} must hold numbers, got {array.dtype}. Convert or drop what is not a number.")
    with np.errstate(over="ignore"):  # too large becomes infinite, which is refused
        values = array.astype(np.float32)
    if bad := int(np.count_nonzero(~np.isfinite(values))):
        row = int(np.argwhere(~np.isfinite(np.atleast_1d(values)))[0][0])
        raise InputError(
            f"{name} has {bad} value(s) that are missing, infinite or too large for float32, the first in row {row}. "
            "Fill or drop them."
        )
    return values


def _targets(y: npt.ArrayLike) -> npt.NDArray[np.float32]:
    values = _numbers(y, "y")
    if values.ndim not in (1, 2) or not values[:1].size:
        raise InputError(f"y must have the shape [rows] or [rows, targets], got {list(values.shape)}.")
    return values.reshape(len(values), -1)


def _labels(y: npt.ArrayLike, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    array = checks.array("y", y)
    if len(classes) < 2:
        raise InputError(f"classes must be at least two names, got {classes}.")
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise InputError(
            f"With classes, y must hold whole numbers in the shape [rows], got {array.dtype} in {list(array.shape)}. "
            "Leave classes out for a regression."
        )
    if len(array) and not (array.min() >= 0 and array.max() < len(classes)):
        raise InputError(
            f"Labels must be from 0 to {len(classes) - 1} for {len(classes)} classes, got {array.min()} to "
            f"{array.max()}."
        )
    return array.astype(np.int64)


def _given(parts: Parts, rows: int) -> list[npt.NDArray[Any]]:
    if not isinstance(parts, list | tuple) or len(parts) != 3:
        got = f"{len(parts)} lists" if isinstance(parts, list | tuple) else checks.shown(parts)
        raise InputError(f"parts must be the row numbers of training, calibration and test, got {got}.")
    arrays = [checks.array("parts", part) for part in parts]
    for array, name in zip(arrays, ("training", "calibration", "test"), strict=True):
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise InputError(
                f"The {name} part must be a list of row numbers, got {array.dtype} in shape {list(array.shape)}."
            )
        if not array.size and name != "calibration":
            raise InputError(f"The {name} part has no rows. Only the calibration part may be empty.")
        if array.size and not (array.min() >= 0 and array.max() < rows):
            raise InputError(f"The {name} part names rows {array.min()} to {array.max()}; x has rows 0 to {rows - 1}.")
    found, counts = np.unique(np.concatenate([array.astype(np.int64) for array in arrays]), return_counts=True)
    if (counts > 1).any():
        raise InputError(f"Row {found[counts > 1][0]} is in the parts more than once. Give each row to one part.")
    return [array.astype(np.int64) for array in arrays]
