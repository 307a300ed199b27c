"""The rows of a file for an artifact: which columns and windows it reads, and what came of them."""

import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import Card
from ..data import Part, Table, parts_of, read_table, windows_of
from ..runtime.errors import InputError
from ..runtime.fingerprint import fingerprint
from ..runtime.inputs import described


@dataclass(frozen=True)
class Asked:
    """What a command was told of a file; the artifact's card says the rest."""

    date: str | None = None
    columns: tuple[str, ...] = ()
    """That the network reads, in its order."""
    targets: tuple[str, ...] = ()
    """That it predicts."""
    window: int | None = None


@dataclass(frozen=True)
class Read:
    """A file, read for an artifact."""

    table: Table
    columns: tuple[str, ...]
    """That the network reads, in its order."""
    window: int | None
    """Rows that it reads, None where rows do not depend on each other."""

    def inputs(self, latest: bool = False) -> tuple[NDArray[np.float32], "pd.Index[Any]"]:
        """Every window [N, window, columns], or row [N, columns], and the date of its last row; or the latest alone."""
        x = self.table.frame(self.columns).to_numpy()
        rows = pd.Index(self.table.dates, name=self.table.date)
        if self.window is not None:
            if len(x) < self.window:
                raise InputError(
                    f"The network reads windows of {self.window} rows, but {self.table.name!r} has {len(x)}."
                )
            x = np.moveaxis(np.lib.stride_tricks.sliding_window_view(x, self.window, axis=0), 2, 1)
            rows = rows[self.window - 1 :]
        return (x[-1:], rows[-1:]) if latest else (x, rows)


def read_for(card: Card, data: Path, asked: Asked, further: Iterable[str] = ()) -> Read:
    """Read from a CSV file what an artifact reads, and `further` columns.

    Raises InputError where neither the card nor the command says which columns or how many rows a window has.
    """
    _check_readable(card)
    series = len(card.input.shape) == 3
    width = card.input.shape[-1]
    names = asked.columns or card.input.names
    if not names and width == 1 and len(asked.targets) == 1:
        names = asked.targets
    if names and len(names) != width:
        raise InputError(f"The network reads {width} column(s), but {len(names)} are named: {', '.join(names)}.")
    columns = None if not names else (*names, *(name for name in dict.fromkeys(further) if name not in names))
    table = read_table(data, columns, asked.date, series)
    if not names:
        if len(table.columns) != width:
            raise InputError(
                f"The network reads {width} column(s) whose names it does not know, and {data} has "
                f"{', '.join(table.columns)}. Name them, in its order, with --column."
            )
        names = table.columns
    return Read(table, tuple(names), window_of(card, asked.window) if series else None)


def window_of(card: Card, asked: int | None = None) -> int:
    """Rows that a network reads. Raises InputError where nobody says."""
    fixed = card.input.shape[1]
    window: int | None = asked or card.training.get("window") or fixed
    if window is None:
        raise InputError(
            "The artifact does not say how many rows it reads. Say it with --window, or export it with "
            'training={"window": n}.'
        )
    if fixed is not None and window != fixed:
        raise InputError(f"The network reads windows of {fixed} rows, not {window}. Leave --window out.")
    return window


def target_of(card: Card, asked: Asked) -> str:
    """The column that a forecast predicts. Raises InputError where nobody says."""
    if len(asked.targets) > 1:
        raise InputError(f"A forecast has one target, not {', '.join(asked.targets)}.")
    named = asked.targets or tuple(filter(None, (card.training.get("target"),)))
    reads = asked.columns or card.input.names
    if not named and card.task == "forecast" and card.input.shape[2] == 1:
        named = reads
    if not named:
        raise InputError(
            "The artifact's card does not say which column it predicts. Name it with --target; of a network that reads "
            "windows it is the column whose next values it predicts."
        )
    return str(named[0])


def examples(card: Card, data: Path, asked: Asked, rows: str, usual: str) -> tuple[Part, str, Read]:
    """Rows of a file with what came of them, and what to call them.

    `rows` are "all", a part of the file that the network was trained on, or "auto": of that file the `usual` part, of
    any other all.
    """
    _check_readable(card)
    if len(card.input.shape) == 2:
        return _table_rows(card, data, asked, rows)
    horizon = card.output.shape[1] if len(card.output.shape) == 2 else None
    if horizon is None:
        raise InputError(f"Only values [batch, step] can be compared with a file, not [{described(card.output)}].")
    target = target_of(card, asked)
    read = read_for(card, data, Asked(asked.date, asked.columns, (target,), asked.window), [target])
    assert read.window is not None
    every = windows_of(read.table, read.columns, target, read.window, horizon)
    splits = card.training.get("splits")
    if rows == "auto":
        known = set(card.training.get("fingerprint", ()))
        seen = known & set(fingerprint(every.x, len(every)))
        rows = usual if seen and splits else "all"
        if seen and not splits:
            warnings.warn(f"{data} holds rows that the network was trained on.", stacklevel=2)
    if rows == "all":
        return every, f"all of {data.name}", read
    if not splits:
        raise InputError(
            f"The artifact's card does not say how its file was split, so there is no {rows} part. Use --rows all on a "
            "file that training did not see."
        )
    parts = parts_of(len(read.table.values), read.window, horizon, splits)
    first = parts[("training", "calibration", "test").index(rows)]
    if not first:
        raise InputError(f"{data} has too few rows for a {rows} part. Use --rows all, or a longer file.")
    own = slice(first.start - read.window, first.stop - read.window)
    return Part(every.x[own], every.y[own], every.dates[own]), f"the {rows} part of {data.name}", read


def say(repairs: Iterable[str]) -> None:
    """Say what was changed on reading, where it does not mix with an answer."""
    for repair in repairs:
        print(f"Repaired: {repair}", file=sys.stderr)


def _check_readable(card: Card) -> None:
    if len(card.inputs) > 1 or len(card.input.shape) not in (2, 3) or card.input.shape[-1] is None:
        raise InputError(
            "From a file, a network is given rows [batch, feature] or windows [batch, time, feature]; this one reads "
            f"{' and '.join(f'[{described(array)}]' for array in card.inputs)}. Pass it arrays from Python."
        )


def _table_rows(card: Card, data: Path, asked: Asked, rows: str) -> tuple[Part, str, Read]:
    if rows not in ("auto", "all"):
        raise InputError(f"--rows {rows} is for forecasts; the rows of a table are taken all. Leave it out.")
    targets = asked.targets or card.output.names
    if not targets:
        raise InputError("The artifact's card does not name what it predicts. Name the column(s) with --target.")
    if not (asked.columns or card.input.names):
        raise InputError("The artifact's card does not name the columns it reads. Name them with --column.")
    if len(targets) != card.output.shape[-1]:
        raise InputError(f"The network predicts {card.output.shape[-1]} value(s), but {', '.join(targets)} are named.")
    read = read_for(card, data, asked, targets)
    x, y = (read.table.frame(columns).to_numpy() for columns in (read.columns, targets))
    return Part(x, y, read.table.dates), f"all of {data.name}", read
