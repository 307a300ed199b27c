"""Split the draws into chunks that fit the cache, and run them on threads.

Chunks are multiples of 16 draws, padded where needed: every array inside then has whole vectors, so no element is
computed by the slower code for a vector's rest, which may round differently. That makes any split agree bit for bit.
"""

import os
from collections.abc import Callable
from functools import cache
from math import ceil
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .contract import Card
from .forking import renewed_in_a_child

if TYPE_CHECKING:
    from concurrent.futures import Executor

VECTOR = 16
USUAL_CACHE = 16 * 2**20  # bytes; where the machine does not say
MAX_CHUNK = 1024
MEASURING_SECONDS = 0.02  # after which no further size is tried
HANDOVER_SECONDS = 0.0005  # that chunks on threads cost beside their work; where they save less, one thread has all

RECURRENT = ("BayesianLSTM", "BayesianGRU")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    total = 0
    for site in card.sites:
        if site.kind in RECURRENT:
            widest = max(shape[-1] for shape in site.shapes.values())
            values = 3 * widest + steps * widest // 4
        else:
            values = 2 * site.elements
        noise = 4 * site.n  # the generator holds some four arrays of the posterior's length
        total = max(total, 4 * (noise + batch * values))
    return total


def chunk_size(draws: int, draw_bytes: int, threads: int, room: int | None = None) -> int:
    """Draws per chunk: what fits the room, by default a core's cache, and no more than lets every thread have a chunk.

    The limit of `MAX_CHUNK` is the cache's too.
    """
    fitting = min(MAX_CHUNK, cache_bytes() // max(1, draw_bytes)) if room is None else room // max(1, draw_bytes)
    fitting = max(VECTOR, fitting)
    chunks = ceil(draws / threads / fitting) * threads
    return ceil(draws / chunks / VECTOR) * VECTOR


class Chunks:
    """The chunk sizes of one model, by the shape of a call: guessed at first, measured once when a shape comes again.

    The first answer is not kept waiting. The measurement evaluates a few chunks of the second call's own input, and
    changes the time of later calls, never an answer.
    """

    def __init__(self, card: Card, threads: int, measured: bool, room: int | None = None) -> None:
        self._card, self._threads, self._measured, self._room = card, threads, measured and room is None, room
        self._calls: dict[tuple[int, int, int], int] = {}
        self._chosen: dict[tuple[int, int, int], int] = {}
        self.renew()
        renewed_in_a_child(self)

    def renew(self) -> None:
        self._lock = Lock()

    def guess(self, batch: int, steps: int, draws: int) -> int:
        """Draws per chunk, from the card alone."""
        return chunk_size(draws, bytes_per_draw(self._card, batch, steps), self._threads, self._room)

    def size(self, batch: int, steps: int, draws: int, evaluate: Callable[[int], object]) -> int:
        """Draws per chunk for a call; `evaluate` computes a chunk of so many draws, of any seed."""
        shape = batch, steps, draws
        guess = self.guess(batch, steps, draws)
        with self._lock:
            calls = self._calls[shape] = self._calls.get(shape, 0) + 1
            if self._measured and calls == 2:
                self._chosen[shape] = guess  # for other threads, until it is measured
        if self._measured and calls == 2:
            size, seconds = fastest(_candidates(guess, draws, self._threads), evaluate)
            alone = self._threads > 1 and seconds * draws * (1 - 1 / self._threads) < HANDOVER_SECONDS
            self._chosen[shape] = ceil(draws / VECTOR) * VECTOR if alone else size
        return self._chosen.get(shape, guess)


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


def run(
    evaluate: Callable[[NDArray[np.int64]], tuple[NDArray[np.float32], ...]],
    draws: NDArray[np.int64],
    chunk: int,
    pool: "Executor | None" = None,
    helpers: int = 0,
    joins: bool = True,
) -> tuple[NDArray[np.float32], ...]:
    """Samples [S, B, …] of draws [S] for each output, chunk by chunk into one array; `chunk` is a multiple of 16.

    `helpers` threads of a pool take chunks, and so does the caller's where it `joins`: waking another takes time.
    """
    answers: list[NDArray[np.float32]] = []
    starts = range(0, len(draws), chunk)
    left = iter(starts)
    lock = Lock()

    def work() -> None:
        while True:
            with lock:
                start = next(left, None)
            if start is None:
                return
            place(start)

    def place(start: int) -> None:
        names = draws[start : start + chunk]
        parts = evaluate(np.pad(names, (0, -len(names) % VECTOR)))
        with lock:
            if not answers:  # only now is the shape of a sample known
                answers.extend(np.empty((len(draws), *part.shape[1:]), np.float32) for part in parts)
        for answer, part in zip(answers, parts, strict=True):
            answer[start : start + len(names)] = part[: len(names)]

    others = [pool.submit(work) for _ in range(min(helpers, len(starts) - joins))] if pool and len(starts) > 1 else []
    try:
        if joins or not others:
            work()
    finally:
        for other in others:
            if not (joins and other.cancel()):  # one that did not begin, its thread being busy, has nothing left to do
                other.result()
    return tuple(answers)
