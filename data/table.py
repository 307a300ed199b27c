"""Read a table: find the dates, check the values, repair what can be repaired without guessing.

A repair is never silent: each one is a sentence in `repairs`.
"""

import csv
import gzip
import io
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..runtime import checks
from ..runtime.errors import InputError
from ..runtime.frames import check_rising, dates_of
from ..runtime.reading import read_file

LONGEST_GAP = 5
"""Missing values in a row that are filled; more are an error."""
MOST_BYTES = 2**28
"""Of a CSV file, unpacked: some million rows. A larger table is for a DataFrame."""
MOST_COLUMNS = 10_000

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of numbers in raw units, checked."""

    name: str
    """The file's name without suffixes, or "series"."""
    columns: tuple[str, ...]
    values: npt.NDArray[np.float32]
    """`[rows, columns]`, without missing values."""
    dates: npt.NDArray[Any]
    """`[rows]`: datetime64 (UTC where the source names a time zone), or int64 row numbers where there are no dates."""
    date: str | None = None
    """The column of the dates."""
    repairs: tuple[str, ...] = ()
    """What was changed on reading, one sentence each."""

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some of the columns, by their dates or row numbers."""
        values = self.values[:, [self.columns.index(column) for column in columns]]
        return pd.DataFrame(values, pd.Index(self.dates, name=self.date), list(columns))


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

    Dates come from the column `date`; without it from an index of dates, or from the first column that holds dates:
    texts that parse (1/2/2006 is 2 January, unless only day before month fits the whole column), or numbers such as
    20060102. Without any the rows count as already in time order. No other column is looked at.

    Repairs, each recorded in `Series.repairs`:
    rows out of date order are sorted; rows with equal date and equal values are dropped but for one; a missing value
    takes the last value before it, never one after it; rows before the first complete one are dropped.

    Raises InputError for an unreadable file, a missing, non-numeric, infinite or constant column, a date that does not
    parse, one date with different values, and more than 5 missing values in a row.
    """
    if isinstance(features, str):
        raise InputError(f"features must be a list of column names, got the text {features!r}. Use [{features!r}].")
    columns = (checks.text("target", target), *checks.words("features", features))
    if len(set(columns)) < len(columns):
        raise InputError(f"Target and features must be different columns, got {', '.join(map(str, columns))}.")
    found = read_table(source, columns, date)
    for k, column in enumerate(columns):
        check_varies(found.values[:, k], f"Column {column!r}")
    return Series(found.name, target, columns[1:], found.values, found.dates, found.repairs)


def read_table(
    source: str | Path | pd.DataFrame,
    columns: Sequence[str] | None = None,
    date: str | None = None,
    series: bool = True,
) -> Table:
    """Read `columns` of a CSV file or a DataFrame, or without them every column of numbers but the dates.

    The rows of a series are put in order and repaired as `read_series` says. Rows that do not depend on each other
    (`series=False`) stay as they are: a missing value is an error, and only a `date` that is named sorts them.

    Raises InputError as `read_series` does, but a column may be constant.
    """
    if date is not None:
        checks.text("date", date)
    frame, name = _load(source)
    if columns is None:
        chosen = _numeric(frame, date)
    else:
        chosen = checks.words("columns", columns)
        _check_columns(frame, chosen)
    if date in chosen:
        raise InputError(f"Column {date!r} cannot be both the date and the target or a feature.")
    if frame.empty:
        raise InputError("The table has no rows.")
    dates = dates_of(frame, date, chosen) if series or date is not None else None
    if series and dates is None:
        if isinstance(source, pd.DataFrame):
            check_rising(frame, chosen)
        _warn_of_falling(frame, chosen)
    values = pd.DataFrame({column: _numbers(frame, column) for column in chosen})
    repairs: list[str] = []
    if dates is not None:
        values, dates = _in_date_order(values, dates, repairs, series)
    if series:
        values, where = _without_gaps(values, dates, repairs)
    else:
        where = np.arange(len(values)) if dates is None else dates.to_numpy()
        _check_complete(values)
    found = values.to_numpy(np.float32)
    return Table(name, chosen, found, where, None if dates is None else str(dates.name), tuple(repairs))


def check_varies(values: npt.NDArray[np.float32], subject: str) -> None:
    if np.ptp(values) == 0:
        raise InputError(
            f"{subject} always holds {values[0]} (in float32): a constant cannot be scaled or predicted. "
            "Choose another column."
        )


def _load(source: str | Path | pd.DataFrame) -> tuple[pd.DataFrame, str]:
    if isinstance(source, pd.DataFrame):
        return source, "series"
    path = checks.file_path("source", source)
    content = _content(path)
    try:
        if b"\0" in content:
            raise ValueError("it holds NUL bytes, so it is no text")
        content.decode("utf-8")
        header = next((row for row in csv.reader(io.StringIO(_first_lines(content))) if row), [])
        if len(header) > MOST_COLUMNS:
            raise ValueError(f"its header names {len(header)} columns; at most {MOST_COLUMNS} are read")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # cells that no column of the header would hold
            frame = pd.read_csv(io.BytesIO(content), index_col=False, low_memory=False)
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"byte {error.start} is not UTF-8; save it in that encoding") from None
    except pd.errors.ParserWarning:
        raise _unreadable(path, "its rows have more cells than its header") from None
    except (ValueError, csv.Error, OverflowError) as error:  # pandas' parser errors are ValueErrors
        raise _unreadable(path, str(error).strip()) from None
    names = [cell.removeprefix("\ufeff") for cell in header]
    if twice := {column for column, count in Counter(names).items() if column and count > 1}:
        # pandas gave the later ones other names: ask for none of them, or say which
        frame = frame.rename(columns={str(c): n for c, n in zip(frame.columns, names, strict=False) if n in twice})
    return frame, path.name.split(".")[0]


def _content(path: Path) -> bytes:
    """A file's bytes, unpacked where it is gzip's."""
    try:
        if not path.exists():
            raise InputError(f"There is no file {str(path)!r}. Check the path.")
        content = read_file(path, MOST_BYTES)
        if content[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = packed.read(MOST_BYTES + 1)
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable(path, str(error).strip()) from None
    if len(content) > MOST_BYTES:
        raise InputError(
            f"{str(path)!r} holds more than {MOST_BYTES / 2**20:.0f} MiB of text. Take a part of it, or pass a "
            "DataFrame from Python."
        )
    return content


def _first_lines(content: bytes) -> str:
    """Enough text for a header of as many columns as are read."""
    return content[: 2**20].decode("utf-8", errors="replace")


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(f"{str(path)!r} cannot be read as CSV ({reason}). Give a CSV file with a header row.")


def _check_columns(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    for column in columns:
        found = list(frame.columns).count(column)
        if found == 0:
            raise InputError(f"There is no column {column!r}. The columns are: {', '.join(map(str, frame.columns))}.")
        if found > 1:
            raise InputError(f"Column {column!r} occurs {found} times. Rename or drop the others.")


def _numeric(frame: pd.DataFrame, date: str | None) -> tuple[str, ...]:
    """The columns of numbers, without the dates."""
    dates = dates_of(frame, date)
    names = [column for column in frame.columns if pd.api.types.is_numeric_dtype(frame.dtypes[column])]
    chosen = tuple(str(column) for column in names if dates is None or column != dates.name)
    if not chosen:
        raise InputError(f"No column holds numbers. The columns are: {', '.join(map(str, frame.columns))}.")
    _check_columns(frame, chosen)
    return chosen


def _warn_of_falling(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """A column that falls from row to row may be a time that nothing else shows, the newest row being first."""
    for column in frame.columns:
        values = frame[column]
        if column in columns or not isinstance(values, pd.Series) or not pd.api.types.is_numeric_dtype(values):
            continue
        if len(values) > 2 and values.is_unique and values.is_monotonic_decreasing:
            warnings.warn(
                f"No column of dates was found, so the rows count as in time order; but column {str(column)!r} falls "
                "from row to row. If it is the time, name it as the date, or sort the rows by it.",
                stacklevel=4,
            )
            return


def _numbers(frame: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    values = frame[column]
    if values.dtype.kind not in "biufO" and not pd.api.types.is_string_dtype(values):
        raise InputError(f"Column {column!r} is not numeric: it holds {values.dtype}. Choose another column.")
    try:
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    except OverflowError:  # of a whole number with hundreds of digits
        raise InputError(f"Column {column!r} has a value that is too large for float32. Correct it.") from None
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
    values: pd.DataFrame, dates: pd.DatetimeIndex, repairs: list[str], series: bool
) -> tuple[pd.DataFrame, pd.DatetimeIndex]:
    if not dates.is_monotonic_increasing:
        order = np.argsort(dates.to_numpy(), kind="stable")
        values, dates = values.iloc[order], dates[order]
        repairs.append(f"The rows were not in date order: sorted by {dates.name}.")
    if not series:  # any number of independent rows may have one date
        return values, dates
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


def _check_complete(values: pd.DataFrame) -> None:
    for column in values.columns:
        missing = values[column].isna().to_numpy()
        if missing.any():
            raise InputError(
                f"Column {column!r} has {missing.sum()} missing value(s), the first in row {int(np.argmax(missing))}. "
                "Fill or drop such rows."
            )


def _day(moment: Any) -> str:
    return str(moment).removesuffix(" 00:00:00")
