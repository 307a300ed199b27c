"""Read a table as a series: find the dates, check the values, repair what can be repaired without guessing.

A repair is never silent: each one is a sentence in `Series.repairs`.
"""

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..runtime.errors import InputError

LONGEST_GAP = 5
"""Missing values in a row that are filled; more are an error."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Series:
    """A checked series in raw units, oldest row first, without missing values."""

    name: str
    """The file's name without suffixes, or "series"."""
    target: str
    features: tuple[str, ...]
    """The further columns."""
    values: npt.NDArray[np.float32]
    """`[rows, 1 + further columns]`: the target, then the further columns."""
    dates: npt.NDArray[Any]
    """`[rows]`: datetime64 (UTC where the source names a time zone), or int64 row numbers where there are no dates."""
    repairs: tuple[str, ...] = ()
    """What was changed on reading, one sentence each."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names along the last axis of `values`."""
        return (self.target, *self.features)


def read_series(
    source: str | Path | pd.DataFrame, target: str, features: Sequence[str] = (), date: str | None = None
) -> Series:
    """Read column `target`, and further columns `features`, of a CSV file (also .csv.gz) or a DataFrame.

    Dates come from the column `date`; without it from a DatetimeIndex, or from the first text or datetime column that
    parses as dates (1/2/2006 is 2 January). Without any the rows count as already in time order. No other column is
    looked at.

    Repairs, each recorded in `Series.repairs`:
    rows out of date order are sorted; rows with equal date and equal values are dropped but for one; a missing value
    takes the last value before it, never one after it; rows before the first complete one are dropped.

    Raises InputError for an unreadable file, a missing, non-numeric, infinite or constant column, a date that does not
    parse, one date with different values, and more than 5 missing values in a row.
    """
    frame, name = _load(source)
    columns = _columns(frame, target, features)
    dates = _dates(frame, date, exclude=columns)
    values = pd.DataFrame({column: _numbers(frame, column) for column in columns})
    repairs: list[str] = []
    if dates is not None:
        values, dates = _in_date_order(values, dates, repairs)
    values, where = _without_gaps(values, dates, repairs)
    for column in columns:
        check_varies(values[column].to_numpy(np.float32), f"Column {column!r}")
    return Series(
        name=name,
        target=target,
        features=columns[1:],
        values=values.to_numpy(np.float32),
        dates=where,
        repairs=tuple(repairs),
    )


def builtin_series() -> Series:
    """The series that ships with murho: IBM's daily closing price in US dollars, 2000-03-01 to 2013-03-01."""
    file = resources.files(__package__) / "series" / "IBM_2000-03-01_to_2013-03-01.csv.gz"
    with resources.as_file(file) as path:
        return read_series(path, target="Close")


def check_varies(values: npt.NDArray[np.float32], subject: str) -> None:
    if np.ptp(values) == 0:
        raise InputError(
            f"{subject} always holds {values[0]} (in float32): a constant cannot be scaled or predicted. "
            "Choose another column."
        )


def _load(source: str | Path | pd.DataFrame) -> tuple[pd.DataFrame, str]:
    if isinstance(source, pd.DataFrame):
        return source, "series"
    path = Path(source)
    try:
        return pd.read_csv(path), path.name.split(".")[0]
    except FileNotFoundError:
        raise InputError(f"There is no file {str(path)!r}. Check the path.") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:  # pandas' parser errors are ValueErrors
        raise InputError(
            f"{str(path)!r} cannot be read as CSV ({str(error).strip()}). Give a CSV file with a header row."
        ) from None


def _columns(frame: pd.DataFrame, target: str, features: Sequence[str]) -> tuple[str, ...]:
    if isinstance(features, str):
        raise InputError(f"features must be a list of column names, got the text {features!r}. Use [{features!r}].")
    columns = (target, *features)
    for column in columns:
        found = list(frame.columns).count(column)
        if found == 0:
            raise InputError(f"There is no column {column!r}. The columns are: {', '.join(map(str, frame.columns))}.")
        if found > 1:
            raise InputError(f"Column {column!r} occurs {found} times. Rename or drop the others.")
    if len(set(columns)) < len(columns):
        raise InputError(f"Target and features must be different columns, got {', '.join(columns)}.")
    if frame.empty:
        raise InputError("The table has no rows.")
    return columns


def _dates(frame: pd.DataFrame, date: str | None, exclude: tuple[str, ...]) -> pd.DatetimeIndex | None:
    if date is not None:
        if date in exclude:
            raise InputError(f"Column {date!r} cannot be both the date and the target or a feature.")
        if list(frame.columns).count(date) != 1:
            raise InputError(
                f"There is no single column {date!r} for the dates. "
                f"The columns are: {', '.join(map(str, frame.columns))}."
            )
        return _parsed(frame[date], date)
    if isinstance(frame.index, pd.DatetimeIndex):
        return _parsed(frame.index.to_series(), "index")
    for column in frame.columns:
        values = frame[column]
        if column in exclude or not isinstance(values, pd.Series) or pd.api.types.is_numeric_dtype(values):
            continue
        # Some cells decide whether this is a date column, so that one bad date further down is an error, not a
        # reason to go on without dates.
        if len(head := values.dropna().head(5)) and _to_dates(head) is not None:
            return _parsed(values, str(column))
    return None


def _parsed(values: "pd.Series[Any]", column: str) -> pd.DatetimeIndex:
    if (dates := _to_dates(values)) is None:
        raise InputError(
            f"Column {column!r} does not parse as dates in one format. Write them as YYYY-MM-DD, or name another date "
            "column."
        )
    if missing := int(np.count_nonzero(dates.isna())):
        row = int(np.argmax(dates.isna()))
        raise InputError(f"Column {column!r} has {missing} missing date(s), the first in row {row}. Fill or drop them.")
    return dates.rename(column)


def _to_dates(values: "pd.Series[Any]") -> pd.DatetimeIndex | None:
    if pd.api.types.is_numeric_dtype(values):
        return None  # pandas would read plain numbers as nanoseconds since 1970
    with warnings.catch_warnings():
        # pandas only warns where it finds no common format, and then takes "may" for a date
        warnings.simplefilter("error", UserWarning)
        try:
            return pd.DatetimeIndex(pd.to_datetime(values, utc=True)).tz_localize(None)
        except (ValueError, TypeError, OverflowError, UserWarning):
            return None


def _numbers(frame: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    values = frame[column]
    if values.dtype.kind not in "biufO" and not pd.api.types.is_string_dtype(values):
        raise InputError(f"Column {column!r} is not numeric: it holds {values.dtype}. Choose another column.")
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = np.isnan(numbers) & values.notna().to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"Column {column!r} is not numeric: row {row} holds {values.iloc[row]!r}. "
            "Correct it or choose another column."
        )
    if np.isnan(numbers).all():
        raise InputError(f"Column {column!r} holds no values at all. Choose another column.")
    huge = np.abs(numbers) > _FLOAT32_MAX
    if huge.any():
        row = int(np.argmax(huge))
        raise InputError(
            f"Column {column!r} has a value that is infinite or too large for float32: row {row} holds {numbers[row]}. "
            "Correct or rescale it."
        )
    return numbers


def _in_date_order(
    values: pd.DataFrame, dates: pd.DatetimeIndex, repairs: list[str]
) -> tuple[pd.DataFrame, pd.DatetimeIndex]:
    if not dates.is_monotonic_increasing:
        order = np.argsort(dates.to_numpy(), kind="stable")
        values, dates = values.iloc[order], dates[order]
        repairs.append(f"The rows were not in date order: sorted by {dates.name}.")
    rows = values.assign(**{"": dates.to_numpy()})
    repeated: npt.NDArray[np.bool_] = rows.duplicated().to_numpy()
    if repeated.any():
        first = _day(dates[repeated][0])
        count = np.count_nonzero(repeated)
        repairs.append(f"{count} row(s) that repeat another one exactly were dropped, the first at {first}.")
        values, dates = values[~repeated], dates[~repeated]
    if not dates.is_unique:
        double = dates[np.asarray(dates.duplicated())]
        raise InputError(
            f"{len(double)} date(s) occur again with different values, the first is {_day(double[0])}. "
            "Keep one row per date."
        )
    return values, dates


def _without_gaps(
    values: pd.DataFrame, dates: pd.DatetimeIndex | None, repairs: list[str]
) -> tuple[pd.DataFrame, npt.NDArray[Any]]:
    def place(row: int) -> str:
        return f"row {row}" if dates is None else _day(dates[row])

    first = 0
    for column in values.columns:
        missing = values[column].isna().to_numpy(copy=True)
        start = int(np.argmin(missing))
        first = max(first, start)
        missing[:start] = False
        gap = 0
        for row, absent in enumerate(missing):
            gap = gap + 1 if absent else 0
            if gap > LONGEST_GAP:
                raise InputError(
                    f"Column {column!r} lacks more than {LONGEST_GAP} values in a row from {place(row - gap + 1)} on. "
                    "Fill the gap yourself, or start after it."
                )
        if missing.any():
            repairs.append(
                f"{column}: {missing.sum()} missing value(s) filled with the last value before, the first at "
                f"{place(int(np.argmax(missing)))}."
            )
    where = np.arange(len(values)) if dates is None else dates.to_numpy()
    if first:
        repairs.append(f"The first {first} row(s), up to {place(first - 1)}, lack values: dropped.")
    return values.ffill().iloc[first:], where[first:]


def _day(moment: Any) -> str:
    return str(moment).removesuffix(" 00:00:00")
