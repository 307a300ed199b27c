"""The order in time of a DataFrame's rows: where its dates are, and whether windows may be cut from it as it stands.

pandas is imported when a DataFrame has come, which brings it.
"""

import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    import pandas as pd

HEAD = 5
"""Cells that decide whether a column holds dates, so that one bad date further down is an error and not a reason to go
on without dates."""


def dates_of(
    frame: "pd.DataFrame", date: str | None = None, without: Collection[Any] = ()
) -> "pd.DatetimeIndex | None":
    """The moment of each row, UTC without a time zone, its name the column's; or None where nothing tells.

    From the column `date`; without it from the index, if that holds dates, or from the first column outside `without`
    that does: typed as dates, texts that parse (1/2/2006 is 2 January, unless only day before month fits the whole
    column), or whole numbers such as 20060102. Of a column that is named, numbers from 10^8 on are seconds or
    milliseconds since 1970.

    Raises InputError for a named column that holds no dates, and for a column of dates that lacks or garbles one.
    """
    import pandas as pd

    if date is not None:
        if list(frame.columns).count(date) != 1:
            raise InputError(
                f"There is no single column {date!r} for the dates. "
                f"The columns are: {', '.join(map(str, frame.columns))}."
            )
        return _whole(frame[date], date, named=True)
    if not pd.api.types.is_numeric_dtype(frame.index) and not isinstance(frame.index, pd.MultiIndex):
        index = frame.index.to_series()
        if isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex) or _look_like_dates(index):
            return _whole(index, str(frame.index.name or "index"))
    for position, column in enumerate(frame.columns):
        if column not in without and _look_like_dates(frame.iloc[:, position]):
            return _whole(frame.iloc[:, position], str(column))
    return None


def check_rising(frame: "pd.DataFrame", columns: Collection[Any]) -> None:
    """Refuse rows that do not follow each other in time: windows of `columns`, or of all, cut from them would be wrong.

    Time is what `dates_of` finds; without dates the index, unless it counts 0, 1, 2, …, which tells nothing, or holds
    labels. Raises InputError.
    """
    import pandas as pd

    index = frame.index
    if isinstance(index, pd.MultiIndex):
        raise InputError(
            "The DataFrame's index has several levels, so its rows may belong to several series, and a window must not "
            "reach from one into another. Pass one series at a time, with one index."
        )
    order: Any = dates_of(frame, without=columns or frame.columns)
    if order is None:
        if index.dtype.kind not in "iufm":
            return
        order = index
    elif isinstance(index, pd.DatetimeIndex):
        order = index  # in the caller's own time zone
    if order.is_monotonic_increasing and order.is_unique:
        return
    row = int(np.argmax(~(order[1:] > order[:-1]))) + 1
    what = "index" if order is index else f"column {order.name!r}"
    sort = "frame.sort_index()" if order is index else f"frame.sort_values({order.name!r})"
    went = "occurs twice" if order[row] == order[row - 1] else f"comes after {order[row - 1]}"
    raise InputError(
        f"The rows of the DataFrame must rise in time, since windows are cut from them, but by its {what} they do not: "
        f"in row {row}, {order[row]} {went}. Pass {sort} with one row for each time, or "
        f"{'frame.reset_index(drop=True)' if order is index else 'leave that column out'} if the rows stand in time "
        "order already."
    )


def _look_like_dates(values: "pd.Series[Any]") -> bool:
    import pandas as pd

    if pd.api.types.is_bool_dtype(values):
        return False
    head = values.dropna().head(HEAD)
    return bool(len(head)) and _parsed(head) is not None


def _whole(values: "pd.Series[Any]", name: str, named: bool = False) -> "pd.DatetimeIndex":
    if (dates := _parsed(values, named)) is None:
        raise InputError(
            f"Column {name!r} does not parse as dates in one format. Write them as YYYY-MM-DD, or name another date "
            "column."
        )
    if missing := int(np.count_nonzero(dates.isna())):
        row = int(np.argmax(dates.isna()))
        raise InputError(f"Column {name!r} has {missing} missing date(s), the first in row {row}. Fill or drop them.")
    return dates.rename(name)


def _parsed(values: "pd.Series[Any]", named: bool = False) -> "pd.DatetimeIndex | None":
    import pandas as pd

    if pd.api.types.is_numeric_dtype(values):
        return _of_numbers(values, named)
    if isinstance(values.dtype, pd.PeriodDtype):
        values = values.dt.to_timestamp()
    for day_first in (False, True):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                moments: Any = pd.to_datetime(values, utc=True, dayfirst=day_first)
                dates = pd.DatetimeIndex(moments).tz_localize(None)
            except (ValueError, TypeError, OverflowError):
                continue
        # pandas only warns where it finds no common format, and then takes "may" for a date
        return None if any("Could not infer format" in str(warning.message) for warning in caught) else dates
    return None


def _of_numbers(values: "pd.Series[Any]", named: bool) -> "pd.DatetimeIndex | None":
    """Dates of numbers such as 20060102; of a named column also of seconds and milliseconds since 1970."""
    import pandas as pd

    known = values.dropna()
    if not len(known) or pd.api.types.is_bool_dtype(known) or not (known == np.floor(known)).all():
        return None
    lowest, highest = float(known.min()), float(known.max())
    to_datetime: Any = pd.to_datetime  # its stubs know no column of nullable integers
    try:
        if lowest >= 19_000_101 and highest <= 21_001_231:
            return pd.DatetimeIndex(to_datetime(values.astype("Int64").astype("string"), format="%Y%m%d"))
        for unit, first, last in (("s", 1e8, 1e11), ("ms", 1e11, 1e14)):
            if named and first <= lowest and highest < last:
                return pd.DatetimeIndex(to_datetime(values.astype("Int64"), unit=unit))
    except (ValueError, TypeError, OverflowError):
        pass
    return None
