import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from murho.runtime.errors import InputError
from murho.train import Series, builtin_series, prepare, read_series, standardise

STOCKS = Path(__file__).parents[2] / "shared" / "data" / "stocks"
needs_stocks = pytest.mark.skipif(not STOCKS.is_dir(), reason=f"the test data folder {STOCKS} is not here")


def table(rows: int = 10) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Date": pd.date_range("2020-01-01", periods=rows).strftime("%Y-%m-%d"),
            "Close": np.arange(rows) + 10.0,
            "Volume": np.arange(rows) % 3 + 1,
            "Name": "IBM",
        }
    )


def test_reads_csv_gzip_and_frame_alike(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "a.b.csv", index=False)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.b.csv").read_bytes()))
    for source, name in ((tmp_path / "a.b.csv", "a"), (str(tmp_path / "a.csv.gz"), "a"), (table(), "series")):
        series = read_series(source, "Close", ["Volume"])
        assert series.name == name
        assert series.columns == ("Close", "Volume")
        assert series.values.dtype == np.float32
        np.testing.assert_array_equal(series.values, table()[["Close", "Volume"]])
        assert series.dates[-1] == np.datetime64("2020-01-10")
        assert series.repairs == ()


def test_the_given_frame_is_left_as_it_is() -> None:
    frame = table().iloc[::-1]
    frame.iloc[3, 1] = np.nan
    before = frame.copy()
    read_series(frame, "Close")
    pd.testing.assert_frame_equal(frame, before)


def test_finds_the_dates() -> None:
    days = np.arange("2020-01-01", "2020-01-11", dtype="datetime64[D]")
    indexed = table().drop(columns="Date").set_index(pd.DatetimeIndex(days))
    later = table()[["Name", "Volume", "Close", "Date"]]
    typed = table().assign(Date=pd.to_datetime(table()["Date"]))
    for frame in (indexed, later, typed):
        np.testing.assert_array_equal(read_series(frame, "Close").dates, days)
    two = table().assign(Settled=pd.date_range("2021-01-01", periods=10))
    assert read_series(two, "Close", date="Settled").dates[0] == np.datetime64("2021-01-01")


def test_without_dates_rows_are_numbered() -> None:
    frame = table().drop(columns="Date").assign(Year=2020, Month="may")
    series = read_series(frame, "Close")
    np.testing.assert_array_equal(series.dates, np.arange(10))
    with pytest.raises(InputError, match=r"'Year' does not parse as dates in one format. Write them as YYYY-MM-DD"):
        read_series(frame, "Close", date="Year")


def test_equal_rows_without_dates_stay() -> None:
    assert len(read_series(pd.DataFrame({"a": [1.0, 1, 2, 2]}), "a").values) == 4


def test_time_zones_become_utc() -> None:
    frame = pd.DataFrame({"t": ["2020-01-01T00:00:00+02:00", "2020-01-01T01:00:00+02:00"], "v": [1, 2]})
    assert read_series(frame, "v").dates[0] == np.datetime64("2019-12-31T22:00")


def test_unsorted_dates_are_sorted() -> None:
    series = read_series(table().iloc[::-1], "Close")
    np.testing.assert_array_equal(series.values[:, 0], table()["Close"])
    assert (np.diff(series.dates) > np.timedelta64(0)).all()
    assert series.repairs == ("The rows were not in date order: sorted by Date.",)


def test_repeated_rows_are_dropped() -> None:
    frame = pd.concat([table(), table().iloc[[4, 4, 7]]])
    series = read_series(frame, "Close")
    np.testing.assert_array_equal(series.values[:, 0], table()["Close"])
    assert series.repairs[1] == "3 row(s) that repeat another one exactly were dropped, the first at 2020-01-05."


def test_only_used_columns_decide_what_repeats() -> None:
    frame = pd.concat([table(), table().iloc[[4]].assign(Volume=99)])
    assert len(read_series(frame, "Close").values) == 10
    with pytest.raises(
        InputError, match=r"1 date\(s\) occur again with different values, the first is 2020-01-05\. Keep"
    ):
        read_series(frame, "Close", ["Volume"])


def test_missing_values_come_from_the_past_only() -> None:
    frame = table()
    frame.loc[[3, 4, 9], "Close"] = np.nan
    series = read_series(frame, "Close")
    np.testing.assert_array_equal(series.values[:, 0], [10, 11, 12, 12, 12, 15, 16, 17, 18, 18])
    assert series.repairs == ("Close: 3 missing value(s) filled with the last value before, the first at 2020-01-04.",)


def test_filling_follows_date_order_not_file_order() -> None:
    frame = table().iloc[::-1].reset_index(drop=True)
    frame.loc[frame["Date"] == "2020-01-04", "Close"] = np.nan
    assert read_series(frame, "Close").values[3, 0] == 12


def test_leading_missing_values_are_dropped() -> None:
    frame = table(20).astype({"Volume": float})
    frame.loc[:7, "Volume"] = np.nan
    frame.loc[5:8, "Close"] = np.nan
    series = read_series(frame, "Close", ["Volume"])
    assert series.dates[0] == np.datetime64("2020-01-09")
    np.testing.assert_array_equal(series.values[:2], [[14, 3], [19, 1]])
    assert series.repairs[-1] == "The first 8 row(s), up to 2020-01-08, lack values: dropped."


@pytest.mark.parametrize(("gap", "good"), [(5, True), (6, False)])
def test_longest_gap(gap: int, good: bool) -> None:
    frame = table(20)
    frame.loc[4 : 3 + gap, "Close"] = np.nan
    if good:
        assert read_series(frame, "Close").values[3 + gap, 0] == 13
    else:
        with pytest.raises(InputError, match="'Close' lacks more than 5 values in a row from 2020-01-05 on"):
            read_series(frame, "Close")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Close": "a"}, "'Close' is not numeric: row 0 holds 'a'"),
        ({"Close": ["1"] * 9 + ["1,5"]}, "'Close' is not numeric: row 9 holds '1,5'"),
        ({"Close": pd.date_range("2020-01-01", periods=10)}, r"'Close' is not numeric: it holds datetime64"),
        ({"Close": np.arange(10) * 1j}, "'Close' is not numeric: it holds complex128"),
        ({"Close": 3.5}, r"Column 'Close' always holds 3.5 .*a constant cannot be scaled or predicted"),
        ({"Close": 1e9 + np.arange(10)}, "always holds 1000000000.0 .in float32."),
        ({"Close": [*range(9), np.inf]}, "'Close' has a value that is infinite or too large .* row 9 holds inf"),
        ({"Close": [*range(9), -1e300]}, "'Close' has a value that is infinite or too large for float32"),
        ({"Close": np.nan}, "'Close' holds no values at all"),
        ({"Date": ["2020-01-01"] * 6 + ["soon"] * 4}, "'Date' does not parse as dates in one format"),
        ({"Date": ["2020-01-01"] * 9 + [None]}, "'Date' has 1 missing date.s., the first in row 9"),
    ],
)
def test_bad_columns(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_series(table().assign(**change), "Close")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "Open"}, r"There is no column 'Open'\. The columns are: Date, Close, Volume, Name\."),
        ({"features": ["Low"]}, r"There is no column 'Low'\. The columns are: Date"),
        ({"features": "Volume"}, r"features must be a list of column names, got the text 'Volume'\. Use \['Volume'\]"),
        ({"features": ["Close"]}, "Target and features must be different columns"),
        ({"date": "Day"}, "There is no single column 'Day' for the dates"),
        ({"date": "Close"}, "'Close' cannot be both the date and the target"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_series(table(), **{"target": "Close", **arguments})


def test_bad_frames() -> None:
    with pytest.raises(InputError, match="'Close' occurs 2 times"):
        read_series(pd.concat([table(), table()[["Close"]]], axis=1), "Close")
    with pytest.raises(InputError, match="The table has no rows"):
        read_series(table(0), "Close")


def test_columns_not_used_are_not_looked_at() -> None:
    frame = table().assign(Open=np.inf, Low=np.nan, High=["x"] * 10)
    assert read_series(frame, "Close").repairs == ()


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file '.*nowhere.csv'"):
        read_series(tmp_path / "nowhere.csv", "Close")
    packed = gzip.compress(b"Date,Close\n" * 1000)
    contents = {
        "empty.csv": b"",
        "binary.csv": b"\x80\x00\xff" * 10,
        "ragged.csv": b"a,b\n1,2\n1,2,3,4\n",
        "short.csv.gz": packed[:-10],
        "flipped.csv.gz": packed[:12] + bytes([packed[12] ^ 255]) + packed[13:],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}' cannot be read as CSV"):
            read_series(tmp_path / name, "Close")


@needs_stocks
def test_the_gap_of_the_tutorials_file() -> None:
    path = STOCKS / "IBM_2006-01-01_to_2018-01-01.csv"
    assert read_series(path, "Close").repairs == ()
    series = read_series(path, "Open")
    assert series.repairs == ("Open: 1 missing value(s) filled with the last value before, the first at 2017-07-31.",)
    row = list(series.dates).index(np.datetime64("2017-07-31"))
    assert len(series.values) == 3020
    assert series.values[row, 0] == series.values[row - 1, 0]


@needs_stocks
def test_builtin_series_is_the_file_it_says() -> None:
    expected = pd.read_csv(STOCKS / "IBM_2000-03-01_to_2013-03-01.csv")
    np.testing.assert_array_equal(builtin_series().values[:, 0], expected["Close"].astype(np.float32))


def test_builtin_series() -> None:
    series = builtin_series()
    assert (series.target, series.features, series.repairs) == ("Close", (), ())
    assert series.name == "IBM_2000-03-01_to_2013-03-01"
    assert len(series.values) == 3270
    assert (series.dates[0], series.dates[-1]) == (np.datetime64("2000-03-01"), np.datetime64("2013-03-01"))


def numbered(rows: int, columns: int = 1) -> Series:
    """Values that tell their own row: row + 1000 · column."""
    values = np.arange(rows)[:, None] + 1000.0 * np.arange(columns)
    features = tuple(f"f{k}" for k in range(1, columns))
    return Series("numbers", "t", features, values.astype(np.float32), np.arange(rows))


@pytest.mark.parametrize(("window", "horizon"), [(1, 1), (21, 1), (21, 7), (3, 12)])
def test_windows_and_splits(window: int, horizon: int) -> None:
    data = prepare(numbered(200, 2), window, horizon)
    edges = [0, 120, 150, 200]
    for part, start, stop in zip((data.train, data.calibration, data.test), edges[:-1], edges[1:], strict=True):
        assert part.x.shape == (len(part), window, 2)
        assert part.y.shape == (len(part), horizon)
        assert part.x.dtype == part.y.dtype == np.float32
        first = np.arange(max(start, window), stop - horizon + 1)
        np.testing.assert_array_equal(part.dates, first)
        np.testing.assert_array_equal(part.x[..., 0], first[:, None] + np.arange(-window, 0))
        np.testing.assert_array_equal(part.x[..., 1], part.x[..., 0] + 1000)
        np.testing.assert_array_equal(part.y, first[:, None] + np.arange(horizon))
        assert part.y.min() >= start
        assert part.y.max() < stop
    assert (data.window, data.horizon, data.columns) == (window, horizon, ("t", "f1"))


def test_scaling_comes_from_the_training_rows_only() -> None:
    series = numbered(200, 2)
    scaling = prepare(series).scaling
    # rows 0 … 119: mean 59.5, variance (n² - 1) / 12
    std = ((120**2 - 1) / 12) ** 0.5
    np.testing.assert_allclose(scaling.input_mean, [59.5, 1059.5], rtol=1e-6)
    np.testing.assert_allclose(scaling.input_scale, [std, std], rtol=1e-6)
    assert scaling.output_mean == scaling.input_mean[:1]
    assert scaling.output_scale == scaling.input_scale[:1]
    assert all(float(np.float32(value)) == value for value in (*scaling.input_mean, *scaling.input_scale))
    changed = series.values.copy()
    changed[120:] *= -50
    assert prepare(dataclasses.replace(series, values=changed)).scaling == scaling
    changed[119] *= -50
    assert prepare(dataclasses.replace(series, values=changed)).scaling != scaling


def test_standardise() -> None:
    data = prepare(numbered(200, 2), horizon=3)
    x, y = standardise(data.test, data.scaling)
    assert x.dtype == y.dtype == np.float32
    std = ((120**2 - 1) / 12) ** 0.5
    np.testing.assert_allclose(x, (data.test.x - [59.5, 1059.5]) / std, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, (data.test.y - 59.5) / std, rtol=1e-5)


def test_constant_in_the_training_part() -> None:
    values = np.where(np.arange(200)[:, None] < 120, 5.0, np.arange(200)[:, None])
    series = dataclasses.replace(numbered(200), values=values.astype(np.float32))
    with pytest.raises(InputError, match=r"In the training part \(120 rows\), column 't' always holds 5.0"):
        prepare(series)


@pytest.mark.parametrize(("window", "horizon"), [(21, 1), (21, 7), (2, 30)])
def test_too_few_rows(window: int, horizon: int) -> None:
    with pytest.raises(InputError, match=r"'numbers' has 20 rows; .* need at least (\d+)\. Give more rows") as caught:
        prepare(numbered(20), window, horizon)
    needed = int(str(caught.value).split("at least ")[1].split(".")[0])
    assert len(prepare(numbered(needed), window, horizon).calibration) >= 1
    with pytest.raises(InputError, match=f"at least {needed}"):
        prepare(numbered(needed - 1), window, horizon)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window must be a whole number of at least 1, not 0"),
        ({"horizon": 1.0}, "horizon must be a whole number of at least 1, not 1.0"),
        ({"splits": (0.6, 0.4)}, "splits must be three shares"),
        ({"splits": (0.7, 0.2, 0.2)}, "splits must be three shares"),
        ({"splits": (1.2, -0.1, -0.1)}, "splits must be three shares"),
        ({"splits": (0.75, 0, 0.25)}, "splits must be three shares"),
    ],
)
def test_bad_arguments_of_prepare(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(numbered(200), **arguments)


def test_repairs_reach_the_dataset() -> None:
    series = read_series(table(200).iloc[::-1], "Close")
    assert prepare(series).repairs == series.repairs != ()
