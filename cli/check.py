"""`murho check`: whether a network can be exported, before anything is written."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from ..data import read_table
from ..export import Report, check
from ..export.report import COST_DRAWS, COST_ROWS, NAMES, described_time, free_and_fixed
from ..runtime.contract import Array
from ..runtime.errors import InputError
from ..train import load_checkpoint
from .examples import Asked, Read
from .networks import arrays_in, found_at, is_checkpoint
from .tables import console, described_constant
from .tasks import example_inputs, export_options

_ROWS = 32


def run(name: str, example: Path | None, asked: Asked, options: dict[str, Any], as_json: bool) -> None:
    """Print the report. Raises typer.Exit(1) where no format exports."""
    if is_checkpoint(name):
        checkpoint = load_checkpoint(name)
        about = export_options(checkpoint, options.get("horizon", 1))
        network, x = checkpoint.network(), example_inputs(checkpoint)
    else:
        sys.dont_write_bytecode = True  # nothing is written
        network, x, about = found_at(name)
    if example is not None:
        x = _example(example, asked)
    if x is None:
        raise InputError(
            f"An export is tried with an example, a batch [B, …] of typical inputs in raw units. Let {name} return "
            "(network, example), or name a file with --example: .npy, .npz by the names of forward's arguments, or CSV."
        )
    report = check(network, x, **{**about, **options})
    if as_json:
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        show(report)
    if not any(report.exports.values()):
        raise typer.Exit(1)


def _example(path: Path, asked: Asked) -> Any:
    """Arrays of a file, or rows or windows of a CSV file from its beginning to its end."""
    if path.suffix in (".npy", ".npz"):
        return arrays_in(path)
    table = read_table(path, asked.columns or None, asked.date, series=asked.window is not None)
    x, _ = Read(table, asked.columns or tuple(table.columns), asked.window).inputs()
    return x[np.linspace(0, len(x) - 1, min(_ROWS, len(x))).astype(int)]


def show(report: Report) -> None:
    style = "green" if all(report.exports.values()) else "yellow" if any(report.exports.values()) else "red"
    console.print(Text(f"{report.network}. {report.verdict}", style=f"bold {style}"))
    for title, of, what in (
        ("In the way", "In the way of {}", "reasons"),
        ("Notes", "Notes on {}", "notes"),
    ):
        _print_list(title, getattr(report, what))
        for name, found in report.formats.items():
            _print_list(of.format(NAMES[name]), getattr(found, what))
    if any(report.exports.values()):
        for table in (_axes(report), _costs(report)):
            console.print()
            console.print(table)


def _print_list(title: str, texts: Sequence[str]) -> None:
    if not texts:
        return
    console.print(f"\n{title}", style="bold")
    rows = Table.grid(padding=(0, 1))
    for number, text in enumerate(texts, 1):
        rows.add_row(f"{number}.", Text(text))
    console.print(rows)


def _axes(report: Report) -> Table:
    """Inputs and outputs, with the formats that have them so where not all do."""
    table = Table(title="What goes in and comes out", title_justify="left")
    for column in ("", "name", "type", "axes of any length", "fixed axes"):
        table.add_column(column, overflow="fold")
    exported = {name: found for name, found in report.formats.items() if found.exports}
    rows: dict[tuple[str, Array], list[str]] = {}
    for name, found in exported.items():
        for role, arrays in (("input", found.inputs), ("output", found.outputs)):
            for array in arrays:
                rows.setdefault((role, array), []).append(NAMES[name])
    for (role, array), names in rows.items():
        free, fixed = free_and_fixed(array)
        only = "" if len(names) == len(exported) else f" ({', '.join(names)})"
        table.add_row(role + only, array.name, array.dtype, free, fixed)
    for name, value in report.constants.items():
        table.add_row("constant", name, described_constant(value), "", "")
    return table


def _costs(report: Report) -> Table:
    table = Table(title="What each format costs", title_justify="left")
    table.add_column("format")
    calls = (f"{COST_DRAWS} draws, {rows} row{'s' if rows > 1 else ''}" for rows in COST_ROWS)
    for column in ("file", "off BLiTZ by", *calls, "memory of the process"):
        table.add_column(column, justify="right")
    for name, found in report.formats.items():
        if found.file_bytes is None:
            continue
        times = [described_time(cost.milliseconds) for cost in found.costs] or ["not known"] * len(COST_ROWS)
        memory = [cost.mebibytes for cost in found.costs if cost.mebibytes is not None]
        table.add_row(
            NAMES[name],
            f"{found.file_bytes / 1000:.0f} kB",
            f"{found.largest_error:.1e}",
            *times,
            f"{max(memory):.0f} MiB" if memory else "not known",
        )
    return table
