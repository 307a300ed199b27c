"""What a call takes in memory, said before any work; and the blocks of rows in which statistics are taken.

A call's peak is its answer and a bounded part beside it: a chunk of draws of one block of rows for each thread (see
the planner), and what the statistics take for one block of rows, here.
"""

from collections.abc import Iterator
from math import prod

from .contract import CALIBRATION_SLOTS, Card
from .errors import InputError

MOST_BYTES = 2**31
"""For an answer, and what one row alone needs beside it."""
STATISTICS_BYTES = 2**25
"""For the statistics of a block of rows."""

FLOAT, DOUBLE, NAME = 4, 8, 8
PIECE = 4096
"""Draws whose squares are summed at once."""


def values_per_row(card: Card, outputs: int, steps: int) -> list[int]:
    """Values of a row in each of the first outputs; `steps` is the sequence's length."""
    return [prod(size or steps for size in array.shape[1:]) for array in card.outputs[:outputs]]


def statistics_bytes(draws: int, levels: int) -> int:
    """That the statistics of one value take: its samples in order, the squares of some, six tails of each level."""
    return FLOAT * draws + 2 * DOUBLE * min(draws, PIECE) + FLOAT * 5 * (6 * levels + 2 * CALIBRATION_SLOTS + 1)


def row_blocks(rows: int, values: int, draws: int, levels: int) -> Iterator[slice]:
    """Blocks of rows of so many values each, whose statistics take what they may, or of one row.

    No block is a single value where there are more: numpy sums one column in another order than several.
    """
    least = 2 if values == 1 else 1
    block = max(least, STATISTICS_BYTES // (values * statistics_bytes(draws, levels)))
    first = 0
    while first < rows:
        last = rows if rows - first < block + least else first + block
        yield slice(first, last)
        first = last


def needed(
    card: Card,
    rows: int,
    draws: int,
    levels: int = 1,
    *,
    outputs: int | None = None,
    steps: int = 1,
    parts: bool = False,
) -> dict[str, int]:
    """Bytes of the answer of a call, and of what a single row needs beside it, by what they are for."""
    values = values_per_row(card, len(card.outputs) if outputs is None else outputs, steps)
    total = rows * sum(values)
    least = max(size * min(rows, 3 if size == 1 else 1) for size in values)
    largest = least * statistics_bytes(draws, levels)
    return {
        "samples": FLOAT * draws * total,
        "interval ends and their errors": 4 * FLOAT * levels * total,
        "statistics": (2 * FLOAT + 2 * DOUBLE * parts + FLOAT * (2 * CALIBRATION_SLOTS + 1)) * total,
        "names and order": 2 * NAME * draws + max(0, largest - STATISTICS_BYTES),
    }


def check_memory(
    card: Card,
    rows: int,
    draws: int,
    levels: int = 1,
    *,
    outputs: int | None = None,
    steps: int = 1,
    parts: bool = False,
) -> None:
    """Refuse a call whose answer does not fit: `outputs` of the first outputs, all if None.

    Raises InputError.
    """
    need = needed(card, rows, draws, levels, outputs=outputs, steps=steps, parts=parts)
    if sum(need.values()) <= MOST_BYTES:
        return
    samples, ends = need["samples"] / 2**30, need["interval ends and their errors"] / 2**30
    total = sum(need.values()) / 2**30
    said = f"{draws} draws of {rows} rows make {samples:.1f} GiB of samples"
    fewer = "fewer draws or fewer rows"
    if ends > 0.1 * samples:
        said += f" and {levels} levels {ends:.1f} GiB of interval ends and their errors"
        fewer = "fewer draws, rows or levels"
    if need["samples"] <= MOST_BYTES and total > 1.1 * (samples + ends):
        said += f", {total:.1f} GiB with all that belongs to them"
    raise InputError(f"{said}; at most {MOST_BYTES / 2**30:.2g} GiB are returned from one call. Ask for {fewer}.")


def most_draws(card: Card, rows: int, most: int, levels: int, *, steps: int, parts: bool) -> int:
    """The most draws of a call's first output that fit, up to `most`; 0 where none does."""
    none, too_many = 0, most + 1
    while too_many - none > 1:
        draws = (none + too_many) // 2
        fits = sum(needed(card, rows, draws, levels, outputs=1, steps=steps, parts=parts).values()) <= MOST_BYTES
        none, too_many = (draws, too_many) if fits else (none, draws)
    return none
