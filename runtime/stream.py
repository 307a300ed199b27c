"""A stream of rows: a fixed set of draws goes on from its recurrent states, so that a new row costs one step.

After rows x₁ … x_t the answer is the network's for the whole sequence x₁ … x_t, draw by draw.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import memory
from .checks import file_path
from .contract import Array, Card
from .engines import Engine, Inputs, Samples
from .errors import ArtifactError, InputError
from .files import write_file
from .inputs import Input, as_inputs, as_numpy, check_answer
from .intervals import Intervals
from .kept import Arrays
from .memory import needed
from .planner import Evaluate, bytes_per_draw, chunk_size, rows_per_block, whole_vectors
from .reading import read_file
from .stream_npz import MOST_BYTES, from_npz, to_npz

Summarise = Callable[[Samples], Intervals]
Run = Callable[[Evaluate, int, int, int, int], tuple[Samples, ...]]
"""(evaluate, rows, block of rows, draws, chunk of draws) -> what was evaluated: see the planner."""


class Stream:
    """Made by `murho.Model.stream`. One thread at a time."""

    rows: int
    """Rows read so far."""

    def __init__(
        self,
        card: Card,
        engine: Engine,
        draws: NDArray[np.int64],
        seed: int,
        observed: bool,
        levels: int,
        run: Run,
        summarise: Summarise,
    ) -> None:
        self.rows = 0
        self._card, self._engine, self._levels, self._run, self._summarise = card, engine, levels, run, summarise
        self._draws, self._seed, self._observed = draws, seed, observed
        self._padded = whole_vectors(draws)  # as in every call: see the planner
        self._states: Inputs | None = None
        self._check_memory(1)
        self._drawn: dict[int, Arrays | None] = {}
        """What is drawn, by the chunk's first draw: the weights of a stream are read at every step."""
        self._chunk = 0

    def step(self, x: Input) -> Intervals:
        """The intervals after a further row [B, …] of each of B sequences: `predict`'s input without its time axis.

        Several rows at once, [B, T, …], are read one after the other inside; the answer is that after the last. B is
        the same in every step. Raises InputError for anything else.
        """
        inputs = as_inputs(self._card, self._with_time(x))
        if self._states is not None and len(inputs[0]) != self._states[0].shape[1]:
            raise InputError(
                f"This stream follows {self._states[0].shape[1]} sequences, but x has {len(inputs[0])} rows. Every "
                "step needs one row of each; start another stream for other sequences."
            )
        if self._states is None:
            self._check_memory(len(inputs[0]))
        samples, states = self._stepped(inputs)
        check_answer(self._card, samples)
        if not all(np.isfinite(state).all() for state in states):
            raise InputError(
                "The network's states after this row are not finite: its values are too large for float32 arithmetic. "
                "The stream is where it was before it."
            )
        answer = self._summarise(samples[0][: len(self._draws)])
        self._states = states  # only now: a refused row leaves the stream where it was
        self.rows += inputs[0].shape[1]
        return answer

    def _stepped(self, inputs: Inputs) -> tuple[tuple[Samples, ...], tuple[Samples, ...]]:
        """Samples of each output and the next states, [S, B, …], chunk by chunk and block by block."""
        rows, steps = len(inputs[0]), inputs[0].shape[1]
        block = min(rows, rows_per_block(self._card, steps))
        # The chunks stay those of the first step, since their weights are kept. What fits a core's cache is one chunk:
        # a step of that takes less time than waking other threads.
        self._chunk = self._chunk or chunk_size(len(self._padded), bytes_per_draw(self._card, block, 1), 1)

        def evaluate(where: slice, names: slice) -> tuple[Samples, ...]:
            states = self._states and tuple(np.ascontiguousarray(state[names, where]) for state in self._states)
            draws = self._padded[names]
            drawn = self._weights(names.start, draws)
            part = tuple(x[where] for x in inputs)
            samples, following = self._engine.step(part, draws, self._seed, self._observed, states, drawn)
            return *samples, *following

        results = self._run(evaluate, rows, block, len(self._padded), self._chunk)
        count = len(self._card.outputs)
        return results[:count], results[count:]

    def _weights(self, first: int, draws: NDArray[np.int64]) -> Arrays | None:
        """What is drawn of a chunk: once, or at every step where it does not fit."""
        if first in self._drawn:
            return self._drawn[first]
        drawn = self._engine.drawn(draws, self._seed)
        if self._weights_fit:
            self._drawn[first] = drawn  # of two threads with blocks of rows of one chunk, both draw the same
        return drawn

    def _check_memory(self, rows: int) -> None:
        """Refuse states and answers that do not fit; weights that do not fit beside them are not kept."""
        draws, card = len(self._padded), self._card
        states = 2 * 4 * draws * rows * sum(state.shape[2] or 0 for state in card.states)  # and those that follow
        answer = sum(needed(card, rows, draws, self._levels).values())
        if states + answer > memory.MOST_BYTES:
            raise InputError(
                f"A stream of {draws} draws of {rows} sequences takes {(states + answer) / 2**30:.1f} GiB for its "
                f"states and answers; at most {memory.MOST_BYTES / 2**30:.2g} GiB are taken. Ask for fewer draws or "
                "sequences."
            )
        weights = 4 * draws * sum(site.n for site in card.sites)
        self._weights_fit = states + answer + weights <= memory.MOST_BYTES

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "A stream cannot be copied or sent to another process. Save its states with save(), and load() them into a "
            "stream of the model there."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write where the stream is, a `.npz` file of its states: the whole file or nothing.

        Raises InputError where that fails.
        """
        path = file_path("path", path)
        write_file(path, to_npz(self._identity(), self.rows, self._states))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from where a stream of the same artifact, draws and seed was when it was saved.

        Raises ArtifactError for a missing or damaged file, and for the states of another stream.
        """
        path = file_path("path", path)
        widths = [state.shape[2] for state in self._card.states]
        try:
            content = read_file(path, MOST_BYTES)
            self.rows, self._states = from_npz(content, self._identity(), len(self._padded), widths)
        except ValueError as error:
            raise ArtifactError(f"Cannot read the states of a stream from {path}: {error}.") from None

    def _identity(self) -> str:
        about = f"{self._card.posterior_sha256} {self._seed} {self._draws.tolist()}"
        return hashlib.sha256(about.encode()).hexdigest()

    def _with_time(self, x: Any) -> Any:
        """Arrays [B, T, …] from rows [B, …]; what is wrong with them `as_inputs` says."""
        arrays = {array.name: array for array in self._card.inputs}
        if isinstance(x, Mapping):
            return {name: _with_time(part, arrays[name]) if name in arrays else part for name, part in x.items()}
        if isinstance(x, tuple) and len(x) == len(arrays) > 1:
            return tuple(_with_time(part, array) for part, array in zip(x, arrays.values(), strict=True))
        return _with_time(x, self._card.input) if len(arrays) == 1 else x


def _with_time(x: Any, expected: Array) -> NDArray[Any]:
    """One row [B, …] as a sequence of one."""
    values = as_numpy(x, expected)
    return np.expand_dims(values, 1) if values.ndim == len(expected.shape) - 1 else values


def check_streams(card: Card) -> None:
    """Refuse an artifact that takes no states."""
    if not card.states:
        raise InputError(
            f"This artifact reads whole sequences {card.input} and carries no states on. Export the "
            "network with streaming=True."
        )
