"""Split a call into chunks of draws that fit the cache, and blocks of rows that fit memory, and run them on threads.

Chunks are multiples of 16 draws, padded where needed: every array inside then has whole vectors, so no element is
computed by the slower code for a vector's rest, which may round differently. That makes any split agree bit for bit.
Rows are another matter: a matrix product may round differently for another number of them. So blocks of rows follow
from the network and the length of its sequences alone, and a large batch is answered as its blocks would be alone.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from math import ceil, prod
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .contract import Card, Site
from .forking import renewed_in_a_child

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

VECTOR = 16
USUAL_CACHE = 16 * 2**20  # bytes; where the machine does not say
MAX_CHUNK = 1024
BLOCK_BYTES = 2**26
"""That a thread may take for the rows of a chunk."""
WEIGHTS_BYTES = 3 * 2**30
"""That the weights of all threads' chunks may take, and their forms on the way through the network."""
FORMS = 3
REMEMBERED = 1024
"""Shapes of calls."""
MEASURING_SECONDS = 0.02  # after which no further size is tried
HANDOVER_SECONDS = 0.0005  # that chunks on threads cost beside their work; where they save less, one thread has all

RECURRENT = ("BayesianLSTM", "BayesianGRU")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_threads(card: Card) -> int:
    """Threads for an artifact: as many as cores, and no more than its weights leave room for."""
    chunk = VECTOR * FORMS * 4 * sum(site.n for site in card.sites)
    return max(1, min(cores(), WEIGHTS_BYTES // max(1, chunk)))


@cache
def cache_bytes(folder: str = "/sys/devices/system/cpu/cpu0/cache") -> int:
    """A core's share of its largest cache, in which a draw was measured to cost least. Linux tells the sizes."""
    shares = [0]
    for level in Path(folder).glob("index*"):
        try:
            size, sharing = (level / "size").read_text().strip(), (level / "shared_cpu_list").read_text().strip()
            shares.append(int(size.removesuffix("K")) * 1024 // _count(sharing))
        except (OSError, ValueError):
            continue
    return max(shares) or USUAL_CACHE


def _count(cores: str) -> int:
    """How many cores a list like "0-3,8" names."""
    ends = [part.partition("-") for part in cores.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def bytes_per_draw(card: Card, batch: int, steps: int) -> int:
    """About what one draw keeps in memory at once, from the sizes in the card; `steps` is the sequence's length."""
    noise = 4  # the generator holds some four arrays of the posterior's length
    return max((4 * (noise * site.n + batch * _values(site, steps)) for site in card.sites), default=0)


def _values(site: Site, steps: int) -> int:
    """About the values that a row takes at a site."""
    if site.kind not in RECURRENT:
        return 2 * site.elements
    widest = max(shape[-1] for shape in site.shapes.values())
    return 3 * widest + steps * widest // 4


def _values_per_row(card: Card, steps: int) -> int:
    """About the values that a row takes at once: those of the largest site, input or output."""
    rows = [array for array in (*card.inputs, *card.outputs) if not array.shared]
    arrays = (prod(size or steps for size in array.shape[1:]) for array in rows)
    return max(*arrays, *(_values(site, steps) for site in card.sites))


def chunk_size(draws: int, draw_bytes: int, threads: int, room: int | None = None) -> int:
    """Draws per chunk: what fits the room, by default a core's cache, and no more than lets every thread have a chunk.

    The limit of `MAX_CHUNK` is the cache's too.
    """
    fitting = min(MAX_CHUNK, cache_bytes() // max(1, draw_bytes)) if room is None else room // max(1, draw_bytes)
    fitting = max(VECTOR, fitting)
    chunks = ceil(draws / threads / fitting) * threads
    return ceil(draws / chunks / VECTOR) * VECTOR


def rows_per_block(card: Card, steps: int) -> int:
    """Rows that are evaluated at once, a power of two: so that what a vector of draws takes for them fits.

    It follows from the card and the sequence's length alone, since answers may depend on it in their last bits.
    """
    row = VECTOR * 4 * _values_per_row(card, steps)
    return 1 << (max(1, BLOCK_BYTES // row).bit_length() - 1)


class Chunks:
    """The chunk sizes of one model, by the shape of a call: guessed at first, measured once when a shape comes again.

    The first answer is not kept waiting. The measurement evaluates a few chunks of the second call's own input, and
    changes the time of later calls, never an answer. Of many shapes the latest are remembered.
    """

    def __init__(self, card: Card, threads: int, measured: bool, room: int | None = None) -> None:
        self._card, self._threads, self._measured, self._room = card, threads, measured and room is None, room
        self._sizes: OrderedDict[tuple[int, int, int], int | None] = OrderedDict()
        """By shape; None after its first call."""
        self.renew()
        renewed_in_a_child(self)

    def renew(self) -> None:
        self._lock = Lock()

    def guess(self, batch: int, steps: int, draws: int) -> int:
        """Draws per chunk, from the card alone."""
        return chunk_size(draws, bytes_per_draw(self._card, batch, steps), self._threads, self._room)

    def size(self, batch: int, steps: int, draws: int, evaluate: Callable[[int], object]) -> int:
        """Draws per chunk for a call; `evaluate` computes a chunk of so many draws, of any seed."""
        guess = self.guess(batch, steps, draws)
        if not self._measured:
            return guess
        shape = batch, steps, draws
        with self._lock:
            again = shape in self._sizes
            known = self._sizes.get(shape)
            if known is None:
                self._sizes[shape] = guess if again else None  # for other threads, until it is measured
            remember(self._sizes, shape)
        if known is None and again:
            known, seconds = fastest(_candidates(guess, draws, self._threads), evaluate)
            if self._threads > 1 and seconds * draws * (1 - 1 / self._threads) < HANDOVER_SECONDS:
                known = ceil(draws / VECTOR) * VECTOR  # alone
            with self._lock:
                self._sizes[shape] = known
                remember(self._sizes, shape)
        return known or guess


def remember(table: OrderedDict[Any, Any], key: Any) -> None:
    """Make `key` the latest of a table, and forget the one used longest ago where they are too many."""
    table.move_to_end(key)
    if len(table) > REMEMBERED:
        table.popitem(last=False)


def fastest(candidates: list[int], evaluate: Callable[[int], object]) -> tuple[int, float]:
    """The first of the sizes, or another one if that takes a tenth less time per draw; and its seconds per draw."""
    times: dict[int, float] = {}
    began = perf_counter()
    for size in candidates:
        if times and perf_counter() - began > MEASURING_SECONDS:
            break
        evaluate(size)  # draws, and allocates
        start = perf_counter()
        evaluate(size)
        times[size] = (perf_counter() - start) / size
    best = min(times, key=lambda size: times[size])
    best = best if times[best] < 0.9 * times[candidates[0]] else candidates[0]
    return best, times[best]


def _candidates(guess: int, draws: int, threads: int) -> list[int]:
    """The guess, half of it and twice of it, as far as they leave every thread a chunk."""
    most = ceil(draws / threads / VECTOR) * VECTOR
    half = ceil(guess / 2 / VECTOR) * VECTOR
    return list(dict.fromkeys(size for size in (guess, half, 2 * guess) if size <= min(most, 2 * MAX_CHUNK)))


def whole_vectors(draws: NDArray[np.int64]) -> NDArray[np.int64]:
    """The draws, padded to a multiple of 16."""
    rest = -len(draws) % VECTOR
    return np.concatenate([draws, np.zeros(rest, dtype=np.int64)]) if rest else draws


def in_chunks(
    evaluate: Callable[[NDArray[np.int64]], Sequence[NDArray[np.float32]]], draws: NDArray[np.int64], chunk: int
) -> tuple[NDArray[np.float32], ...]:
    """The same chunks one after the other on this thread, of all rows: an array [S, B, …] for each output."""
    parts = [evaluate(whole_vectors(draws[first : first + chunk])) for first in range(0, len(draws), chunk)]
    return tuple(np.concatenate(part)[: len(draws)] for part in zip(*parts, strict=True))


Evaluate = Callable[[slice, slice], Sequence[NDArray[np.float32]]]
"""(rows, draws) -> an array [draws, rows, …] for each output; the draws may be padded to whole vectors."""


def run(
    evaluate: Evaluate,
    rows: int,
    block: int,
    draws: int,
    chunk: int,
    pool: "Executor | None" = None,
    helpers: int = 0,
    joins: bool = True,
    into: Sequence[NDArray[np.float32]] = (),
) -> tuple[NDArray[np.float32], ...]:
    """Arrays [S, B, …] of each output: blocks of rows by chunks of draws, each evaluated once, put `into` place.

    `chunk` is a multiple of 16. `helpers` threads of a pool take parts, and so does the caller's where it `joins`:
    waking another takes time. The first error of any of them ends the call; the others stop after the part that they
    are at, which nobody waits for.
    """
    answers = list(into)
    count = ceil(rows / block) * ceil(draws / chunk)
    left = (
        (slice(row, min(row + block, rows)), slice(first, min(first + chunk, draws)))
        for row in range(0, rows, block)
        for first in range(0, draws, chunk)
    )
    lock = Lock()
    errors: list[BaseException] = []
    others: list[Future[None]] = []
    stopped = False

    def work() -> None:
        while not stopped:
            with lock:
                part = next(left, None)
            if part is None:
                return
            place(*part)

    def place(where: slice, names: slice) -> None:
        results = evaluate(where, names)
        with lock:
            if not answers:  # only now is the shape of a sample known
                answers.extend(np.empty((draws, rows, *result.shape[2:]), np.float32) for result in results)
        for answer, result in zip(answers, results, strict=True):
            answer[names, where] = result[: names.stop - names.start]

    def attempt(task: Callable[[], object]) -> None:
        nonlocal stopped
        try:
            task()
        except BaseException as error:  # Ctrl-C among them
            errors.append(error)
            stopped = True

    def attend() -> None:
        if pool and count > 1:
            for _ in range(min(helpers, count - joins)):
                others.append(pool.submit(attempt, work))
        if joins or not others:
            work()
        for other in others:
            if not (joins and other.cancel()):  # one that did not begin, its thread being busy, has nothing left to do
                other.result()

    try:
        attempt(attend)
        if not errors:
            return tuple(answers)
        for other in others:
            other.cancel()
        raise errors[0]
    finally:
        stopped = True
        errors.clear()  # an error knows this frame: together they would keep the arrays alive
