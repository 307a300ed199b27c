"""Odd and damaged CSV files to the one reader of every command."""

import functools
import gzip
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import pandas as pd

from murho import InputError
from murho.data import read_series, read_table, table

ABOUT = (
    "CSV files of any encoding, separator, quoting and length, with dates of many kinds, blanks, repeated columns and "
    "NUL bytes, packed or not, damaged or not, to the reader of every command."
)
CELLS = (
    "", " ", "NA", "nan", "None", "inf", "-inf", "1e400", "-1e38", "3.5e38", "1e-50", "0", "-0", "1", "2.5", "1,5", "١",
    "0x10", "1_000", "True", "½", "9" * 30, "9" * 400, "é", "\ud7ff", "2020-01-01", "31/12/2013", "1/2/2006",
    "20131231", "2013-02-30", "0001-01-01", "9999-12-31", "2020-01-01T00:00:00+14:00", "may", "noon", "1600000000",
    "=1+1", "\t", "\v", "a" * 200_000,
)  # fmt: skip
TITLES = ("close", "close", "date", "", "volume", "time", "close ", "Unnamed: 0", "a" * 5000, "é", "0", "close.1")
DATES = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y%m%d", "%b %d, %Y", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S%z")
ENCODINGS = ("utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-32", "cp1252", "utf-7", "shift-jis")


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


MOST = 2**22
"""Bytes that are read here, so that a bomb is as quick to make as to refuse."""


@functools.cache
def bomb() -> bytes:
    return gzip.compress(b"close\n" + b"1\n" * (MOST), 9)


def trial(random: np.random.Generator) -> str:
    table.MOST_BYTES = MOST
    frame = a_frame(random)
    content = written(frame, random)
    if random.random() < 0.1:
        content = mutations.of_bytes(content, random)
    path = folder() / "table.csv"
    if random.random() < 0.3:
        path = folder() / "table.csv.gz"
        content = gzip.compress(content, 1)
        if random.random() < 0.3:
            content = mutations.of_bytes(content, random)
    if random.random() < 0.002:
        content = bomb()
    path.write_bytes(content)
    columns = (
        ["close"] if random.random() < 0.7 else [str(random.choice(["close", "volume", "", "é"])) for _ in range(2)]
    )
    date = None if random.random() < 0.9 else str(random.choice(TITLES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a column that falls
        try:
            if random.random() < 0.5:
                series = bool(random.random() < 0.7)
                found = read_table(path, None if random.random() < 0.3 else list(dict.fromkeys(columns)), date, series)
                ordered = series or date is not None
            else:
                found, ordered = read_series(path, columns[0], columns[1:], date), True
        except InputError:
            return "refused"
    check(found, ordered)
    return "repaired" if found.repairs else "accepted"


def check(found: Any, ordered: bool) -> None:
    """What was accepted is whole, finite and in order."""
    assert found.values.dtype == np.float32
    assert found.values.shape == (len(found.dates), len(found.columns))
    assert len(found.values)
    assert np.isfinite(found.values).all()
    if found.dates.dtype.kind == "M" and ordered:
        assert not np.isnat(found.dates).any()
        assert (np.diff(found.dates) >= np.timedelta64(0)).all()


def a_frame(random: np.random.Generator) -> pd.DataFrame:
    """A table that may be right: dates in some order, numbers, and cells that are neither."""
    rows, width = int(random.integers(0, 40)), int(random.integers(1, 5))
    days = pd.date_range(
        f"{random.integers(1700, 2200)}-01-01", periods=rows, tz="UTC" if random.random() < 0.2 else None
    )
    dates = days.strftime(str(random.choice(DATES))).tolist()
    columns: list[tuple[str, list[Any]]] = [(str(random.choice(["date"] * 9 + ["time", "close"])), dates)]
    for k in range(width):
        values: list[Any] = random.normal(100, 10, rows).round(3).tolist()
        for _ in range(int(random.integers(0, 3)) if random.random() < 0.2 else 0):
            if rows:
                values[random.integers(rows)] = CELLS[random.integers(len(CELLS))]
        usual = ("close", "volume", "open", "high")[k]
        title = usual if random.random() < 0.9 else TITLES[random.integers(len(TITLES))]
        columns.append((title, values))
    frame = pd.concat([pd.Series(values, name=name, dtype=object) for name, values in columns], axis=1)
    kind = random.integers(5)
    if kind == 0:
        frame = frame.iloc[::-1]
    elif kind == 1:
        frame = frame.iloc[random.permutation(rows)]
    elif kind == 2 and rows:
        frame = frame.iloc[random.integers(0, rows, rows + 3)]
    return frame


def written(frame: pd.DataFrame, random: np.random.Generator) -> bytes:
    separator = str(random.choice([","] * 20 + [";", "\t", "|"]))
    text = frame.to_csv(
        index=bool(random.random() < 0.05),
        sep=separator,
        quoting=int(random.choice([0, 1])),
        lineterminator=str(random.choice(["\n", "\r\n", "\r"])),
    )
    if random.random() < 0.1:
        place = int(random.integers(len(text) + 1))
        text = (
            text[:place] + str(random.choice(["\0", '"', "\n", "\n\n", ",", ",,,,", "\ufeff", "#", "'"])) + text[place:]
        )
    return text.encode(str(random.choice(ENCODINGS[:1] * 60 + ENCODINGS)), errors="replace")
