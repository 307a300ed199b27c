"""One reader for every command and DataFrame: what is out of order is sorted with a word, or refused."""

import gzip
import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import murho
from murho import InputError
from murho.data import read_series, read_table, table
from murho.runtime.artifact import read, sealed_onnx
from murho.runtime.frames import check_rising, dates_of

CONFORMANCE = Path(__file__).parent / "conformance"
CSV_JS = Path(__file__).parents[1] / "cli" / "page_files" / "csv.js"
WINDOW, ROWS = 4, 30
DAYS = pd.date_range("2013-01-25", periods=ROWS)
CLOSE = 100 + np.arange(ROWS, dtype=np.float32) ** 1.5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> murho.Model:
    """A network of one column, `close`, in windows of four rows."""
    found = read(CONFORMANCE / "lstm.onnx")
    card = found.card
    named = replace(card.input, names=("close",))
    path = tmp_path_factory.mktemp("reader") / "model.onnx"
    path.write_bytes(sealed_onnx(found.content, replace(card, inputs=(named,), training={"window": WINDOW})))
    return murho.load(path)


# How dates are written in files: each day, so that text tells its order in the right way only
WRITTEN: dict[str, Callable[[pd.Timestamp], str]] = {
    "iso": lambda day: f"{day:%Y-%m-%d}",
    "iso with time": lambda day: f"{day:%Y-%m-%d} 17:30:00",
    "month first": lambda day: f"{day.month}/{day.day}/{day.year}",
    "day first": lambda day: f"{day:%d/%m/%Y}",
    "with dots": lambda day: f"{day:%d.%m.%Y}",
    "compact": lambda day: f"{day:%Y%m%d}",
    "in words": lambda day: f"{day:%b %d, %Y}",
}


def written(name: str, order: Any = slice(None)) -> pd.DataFrame:
    dates = [WRITTEN[name](day) for day in DAYS]
    return pd.DataFrame({"when": dates, "close": CLOSE, "volume": 1.0}).iloc[order].reset_index(drop=True)


@pytest.mark.parametrize("name", WRITTEN)
def test_newest_first_is_sorted_with_a_word_however_the_dates_are_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for order, repairs in (
            (slice(None), ()),
            (slice(None, None, -1), ("The rows were not in date order: sorted by when.",)),
        ):
            written(name, order).to_csv(path, index=False)
            found = read_table(path, ["close"])
            np.testing.assert_array_equal(found.values[:, 0], CLOSE)
            assert found.repairs == repairs
            assert found.dates.astype("datetime64[D]").tolist() == [day.date() for day in DAYS]


def test_a_frame_whose_index_falls_is_refused(model: murho.Model) -> None:
    frame = pd.DataFrame({"close": CLOSE}, index=DAYS)
    right = model.predict(frame, 16)
    assert right.index.equals(DAYS[WINDOW - 1 :])
    for wrong, said in (
        (frame[::-1], "by its index they do not: in row 1, .* comes after"),
        (frame.sample(frac=1, random_state=0), "comes after"),
        (pd.concat([frame, frame[-1:]]), "2013-02-23 00:00:00 occurs twice"),
        (frame.set_index(DAYS.strftime("%d/%m/%Y"))[::-1], "comes after"),
        (frame.set_index(DAYS.to_period("D"))[::-1], "comes after"),
        (frame.reset_index(drop=True)[::-1], r"frame\.reset_index\(drop=True\) if the rows stand in time order"),
        (pd.concat([frame.reset_index(drop=True)] * 2), "in row 30, 0 comes after 29"),
        (frame.set_index(pd.MultiIndex.from_product([["a", "b"], range(15)])), "several levels"),
        (frame.set_index(DAYS - DAYS[0])[::-1], "comes after"),
    ):
        with pytest.raises(InputError, match=said):
            model.predict(wrong, 16)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_frame_whose_column_of_dates_falls_is_refused(model: murho.Model, name: str) -> None:
    """As pandas reads a file whose newest row is first: the index counts, and tells nothing."""
    right = model.predict(written(name), 16)
    np.testing.assert_array_equal(right, model.predict(pd.DataFrame({"close": CLOSE}), 16))
    with pytest.raises(InputError, match=r"by its column 'when' they do not: .*Pass frame.sort_values\('when'\)"):
        model.predict(written(name, slice(None, None, -1)), 16)


def test_what_tells_no_order_is_taken_as_it_stands(model: murho.Model) -> None:
    plain = pd.DataFrame({"close": CLOSE})
    right = model.predict(plain, 16).to_numpy()
    for frame in (
        plain.set_index(pd.Index([f"row {k}" for k in range(ROWS)])),
        plain.set_index(pd.Index(range(5, 5 + 2 * ROWS, 2))),
        plain.assign(name="IBM", volume=np.arange(ROWS)[::-1]),
    ):
        np.testing.assert_array_equal(model.predict(frame, 16), right)


def test_rows_of_a_table_keep_their_order() -> None:
    """Where no windows are cut, a falling index is as good as any."""
    frame = pd.DataFrame({"a": [3.0, 1, 2]}, index=[9, 8, 7])
    assert read_table(frame, ["a"], series=False).values[:, 0].tolist() == [3, 1, 2]


def test_a_falling_column_of_numbers_may_be_the_time(tmp_path: Path) -> None:
    seconds = 1_600_000_000 + 86_400 * np.arange(ROWS)
    frame = pd.DataFrame({"unix": seconds, "close": CLOSE})[::-1]
    frame.to_csv(tmp_path / "coins.csv", index=False)
    with pytest.warns(UserWarning, match="column 'unix' falls from row to row. If it is the time, name it as the date"):
        read_table(tmp_path / "coins.csv", ["close"])
    found = read_table(tmp_path / "coins.csv", ["close"], date="unix")
    np.testing.assert_array_equal(found.values[:, 0], CLOSE)
    assert found.dates[0] == np.datetime64("2020-09-13T12:26:40")
    milliseconds = frame.assign(unix=1000 * frame["unix"])
    np.testing.assert_array_equal(read_table(milliseconds.reset_index(drop=True), ["close"], "unix").dates, found.dates)


def test_dates_are_found_alike_in_index_and_column() -> None:
    for frame in (
        written("day first"),
        written("day first").set_index("when"),
        written("compact").astype({"when": int}),
    ):
        assert dates_of(frame, without=["close"]).tolist() == DAYS.tolist()
    assert dates_of(pd.DataFrame({"code": [1, 2], "flag": [True, False], "name": ["may", "june"]})) is None
    check_rising(pd.DataFrame({"close": CLOSE}), ["close"])


# Files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,2,3\n4,5,7\n", "its rows have more cells than its header"),
        (b"a,a\n1,2\n4,5\n", "Column 'a' occurs 2 times"),
        (b"a,b\n1,2\n\0,5\n", "it holds NUL bytes"),
        ("a,b\n1,é\n".encode("latin-1"), "byte 6 is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "cannot be read as CSV"),
        (b"", "No columns to parse"),
        (b"a,b\n", "has no rows"),
        (b",".join(b"x" for _ in range(10_001)) + b"\n", "its header names 10001 columns; at most 10000"),
        (b'a,b\n1,"2\n', "cannot be read as CSV"),
        (b"a\n" + b"9" * 400 + b"\n", "too large for float32|not numeric"),
    ],
)
def test_files_that_are_no_table_say_why(tmp_path: Path, content: bytes, said: str) -> None:
    for name, packed in (("table.csv", content), ("table.csv.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(InputError, match=said):
            read_table(tmp_path / name, ["a"])


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_BYTES", 2**20)
    bomb = gzip.compress(b"a\n" + b"1\n" * 2**20)
    assert len(bomb) < 2**14
    (tmp_path / "bomb.csv.gz").write_bytes(bomb)
    with pytest.raises(InputError, match="holds more than 1 MiB of text"):
        read_table(tmp_path / "bomb.csv.gz", ["a"])


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="cannot be read as CSV"):
            read_table(path, ["a"])
    with pytest.raises(InputError, match=r"must be a path, .*not 'a\\x00b.csv'"):
        read_table("a\0b.csv", ["a"])


def test_a_table_of_rows_is_checked_and_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("day,a,b\n2020-01-02,1,2\n2020-01-02,1,2\n2020-01-01,3,\n")
    assert read_table(path, ["a"], series=False).values[:, 0].tolist() == [1, 1, 3]
    assert read_table(path, ["a"], "day", series=False).values[:, 0].tolist() == [3, 1, 1]
    with pytest.raises(InputError, match=r"Column 'b' has 1 missing value\(s\), the first in row 2"):
        read_table(path, ["b"], series=False)
    with pytest.raises(InputError, match="'day' is not numeric: row 0 holds"):
        read_table(path, ["day"], series=False)


# The page's reader, in JavaScript

READ = """
const { readFileSync } = require("fs");
eval(readFileSync(process.argv[1], "utf8") + "; globalThis.readCsv = readCsv; globalThis.rowsOf = rowsOf;");
const found = process.argv.slice(3).map((path) => {
  try {
    const table = readCsv(readFileSync(path, "utf8"), "table");
    const { rows, dates, repairs } = rowsOf(table, JSON.parse(process.argv[2]));
    return { rows, dates, repairs: [...table.repairs, ...repairs] };
  } catch (error) { return { error: error.message }; }
});
console.log(JSON.stringify(found));
"""


def in_javascript(columns: list[str], paths: list[Path]) -> list[dict[str, Any]]:
    command = ["node", "-e", READ, "--", str(CSV_JS), json.dumps(columns), *map(str, paths)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_page_reads_as_python_does(tmp_path: Path) -> None:
    tables: dict[str, Any] = {}
    for name in WRITTEN:
        tables[name], tables[f"{name}, newest first"] = written(name), written(name, slice(None, None, -1))
    shuffled = np.random.default_rng(0).permutation(ROWS)
    tables["shuffled"] = written("day first", shuffled)
    tables["repeated"] = written("iso", [*range(ROWS), 3, 7])
    tables["other values"] = pd.concat([written("iso"), written("iso")[:1].assign(close=1.0)])
    tables["gap"] = written("iso").assign(close=np.where(np.arange(ROWS) % 9 == 4, np.nan, CLOSE))
    tables["late start"] = written("iso").assign(close=np.where(np.arange(ROWS) < 3, np.nan, CLOSE))
    tables["long gap"] = written("iso").assign(
        close=np.where((np.arange(ROWS) > 3) & (np.arange(ROWS) < 12), np.nan, CLOSE)
    )
    tables["bad date"] = written("iso").assign(when=["2020-01-01"] * 9 + ["soon"] * (ROWS - 9))
    tables["missing date"] = written("iso").assign(when=[*(f"{day:%Y-%m-%d}" for day in DAYS[1:]), ""])
    tables["no dates"] = written("iso").drop(columns="when")
    paths = []
    for k, frame in enumerate(tables.values()):
        paths.append(tmp_path / f"{k}.csv")
        frame.to_csv(paths[-1], index=False)
    paths.append(tmp_path / "twice.csv")
    paths[-1].write_text("close,close\n1,2\n3,4\n")
    tables["twice"] = None
    for name, path, theirs in zip(tables, paths, in_javascript(["close"], paths), strict=True):
        try:
            ours = read_series(path, "close")
        except InputError:
            assert "error" in theirs, name
            continue
        assert "error" not in theirs, (name, theirs)
        np.testing.assert_array_equal(np.float32(theirs["rows"]), ours.values, err_msg=name)
        if ours.dates.dtype.kind == "M":
            assert theirs["dates"] == ours.dates.astype("datetime64[ms]").astype(int).tolist(), name
        assert len(theirs["repairs"]) == len(ours.repairs), name
        sorted_ = "The rows were not in date order: sorted by when."
        assert (sorted_ in theirs["repairs"]) == (sorted_ in ours.repairs), name
