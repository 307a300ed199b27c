"""Load an artifact and predict with it: the door that users come in by."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import planner
from .artifact import read
from .contract import MAX_DRAWS, Array, Card
from .engines import Engine, open_engine
from .errors import InputError
from .intervals import Intervals, summarise

if TYPE_CHECKING:
    import pandas as pd

Arrays = tuple[NDArray[Any], ...]
Input = ArrayLike | Mapping[str, ArrayLike] | tuple[ArrayLike, ...]
Draws = int | ArrayLike | None
Level = float | Sequence[float] | None

MAX_SAMPLE_BYTES = 2**31


def load(path: str | os.PathLike[str], device: str = "cpu", threads: int | None = None) -> "Model":
    """Open an artifact (`.onnx`, or `.pt` for TorchScript).

    `device` is "cpu", or for TorchScript also "cuda" or "cuda:N". `threads` is how many chunks of draws run at once;
    by default as many as the process has cores. It changes the time, never the answer.

    Raises ArtifactError for a file that is missing, damaged, foreign or too new, InputError for a device that is not
    there, MissingExtra where TorchScript lacks torch.
    """
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a whole number of at least 1, not {threads!r}.")
    artifact = read(path)
    return Model(artifact.card, open_engine(artifact, device), threads or planner.cores())


class Model:
    """A loaded artifact. Safe to call from several threads."""

    card: Card
    """What the artifact says of itself."""
    engine: str
    """What evaluates it: "onnxruntime" or "torchscript"."""

    def __init__(self, card: Card, engine: Engine, threads: int) -> None:
        self.card = card
        self.engine = engine.name
        self._engine = engine
        self._threads = threads

    def __repr__(self) -> str:
        inputs = ", ".join(f"{part.name} [{_described(part).replace(' = ', '=')}]" for part in self.card.inputs)
        return f"<murho.Model {self.card.name!r}: {inputs}, {len(self.card.sites)} sites, {self.engine}>"

    @overload
    def predict(
        self, x: "pd.DataFrame", draws: Draws = None, level: Level = None, seed: int | None = None
    ) -> "pd.DataFrame": ...
    @overload
    def predict(self, x: Input, draws: Draws = None, level: Level = None, seed: int | None = None) -> Intervals: ...
    def predict(
        self, x: "Input | pd.DataFrame", draws: Draws = None, level: Level = None, seed: int | None = None
    ) -> "Intervals | pd.DataFrame":
        """Prediction intervals for a batch.

        `x` is [B, …] in raw units, with the axes that `card.input` names; where the network has several inputs, a dict
        of such arrays by name, or a tuple of them in the order of `card.inputs`. Of a network with several outputs this
        is the first; `predict_all` gives every one. `draws` is a number of draws (0, 1, …), or an
        array of their names: draw 17 under seed 0 is the same network today, tomorrow and on every machine. `level` is
        the nominal coverage of the central interval, or several. What is not given comes from the card.

        A DataFrame `x` gives a DataFrame. Its columns are the features by name; where the network reads windows of a
        sequence, every run of that many rows is a window, and the answer's index is the window's last row.

        Raises InputError for an argument of the wrong shape, type or value.
        """
        names, nominal, key = self._draws(draws), self._levels(level), self._seed(seed)
        if type(x).__module__.partition(".")[0] == "pandas":
            batch, index = self._from_frame(x)
            return self._summarise((batch,), names, nominal, key)[0].to_frame(index)
        return self._summarise(self._inputs(x), names, nominal, key)[0]

    def predict_all(
        self, x: Input, draws: Draws = None, level: Level = None, seed: int | None = None
    ) -> dict[str, Intervals]:
        """The intervals of every output by its name; the same draws give all of them. Arguments as for `predict`."""
        names, nominal, key = self._draws(draws), self._levels(level), self._seed(seed)
        intervals = self._summarise(self._inputs(x), names, nominal, key)
        return {array.name: part for array, part in zip(self.card.outputs, intervals, strict=True)}

    def samples(
        self, x: Input, draws: Draws = None, seed: int | None = None, chunk: int | None = None
    ) -> NDArray[np.float32]:
        """Samples [S, B, …] alone. `chunk` (a multiple of 16) overrides the planner: another time, the same answer."""
        names, key = self._draws(draws), self._seed(seed)
        if chunk is not None and (chunk < 1 or chunk % planner.VECTOR):
            raise InputError(f"chunk must be a positive multiple of {planner.VECTOR}, not {chunk}.")
        return self._samples(self._inputs(x), names, key, chunk)[0]

    def forecast(
        self,
        x: ArrayLike,
        steps: int,
        draws: Draws = None,
        level: Level = None,
        seed: int | None = None,
    ) -> Intervals:
        """Intervals [B, steps] for the next `steps` values of a series, from its last window x [B, T, 1].

        As in the BLiTZ tutorial, each step's mean is fed back as the next observation. The interval of a later step
        therefore knows nothing of the steps before it being unsure: it shows the network's doubt about one step.
        """
        window = self._inputs(x)[0]
        if len(self.card.inputs) > 1 or window.ndim != 3 or window.shape[2] != 1 or self.card.output.shape[1:] != (1,):
            raise InputError(
                "forecast feeds one predicted value back as the next input: it needs x [batch, time, 1] and an output "
                f"[batch, 1]. This artifact has x {self.card.input.axes} {self.card.input.shape} and an output "
                f"{self.card.output.shape}."
            )
        if not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps must be a whole number of at least 1, not {steps!r}.")
        names, nominal, key = self._draws(draws), self._levels(level), self._seed(seed)
        path = []
        for _ in range(steps):
            samples = self._samples((window,), names, key)[0]
            path.append(samples)
            mean = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
            window = np.concatenate([window[:, 1:], mean[:, np.newaxis]], axis=1)
        return summarise(np.concatenate(path, axis=2), nominal, names, key)

    def _summarise(
        self, inputs: Arrays, draws: NDArray[np.int64], level: float | tuple[float, ...], seed: int
    ) -> list[Intervals]:
        outputs = zip(self._samples(inputs, draws, seed), self.card.outputs, strict=True)
        return [summarise(samples, level, draws, seed, array.names) for samples, array in outputs]

    def _samples(
        self, inputs: Arrays, draws: NDArray[np.int64], seed: int, chunk: int | None = None
    ) -> tuple[NDArray[np.float32], ...]:
        rows = len(inputs[0])
        self._check_memory(rows, len(draws))
        if chunk is None:
            steps = inputs[0].shape[1] if inputs[0].ndim == 3 else 1
            chunk = planner.chunk_size(len(draws), planner.bytes_per_draw(self.card, rows, steps), self._threads)
        return planner.run(lambda part: self._engine.samples(inputs, part, seed), draws, chunk, self._pool)

    @cached_property
    def _pool(self) -> Executor | None:
        return self._engine.pool(self._threads) if self._threads > 1 else None

    def _check_memory(self, rows: int, draws: int) -> None:
        sizes = (np.prod([size or 1 for size in array.shape[1:]], dtype=np.int64) for array in self.card.outputs)
        total = 4 * draws * rows * int(sum(sizes))
        if total > MAX_SAMPLE_BYTES:
            raise InputError(
                f"{draws} draws of {rows} rows make {total / 2**30:.1f} GiB of samples; at most "
                f"{MAX_SAMPLE_BYTES / 2**30:.0f} GiB are returned from one call. Ask for fewer draws or fewer rows."
            )

    def _inputs(self, x: Input) -> Arrays:
        expected = self.card.inputs
        if isinstance(x, Mapping):
            names = [array.name for array in expected]
            if set(x) != set(names):
                raise InputError(f"x must have the inputs {', '.join(names)}, but has {', '.join(map(str, x))}.")
            parts: Sequence[Any] = [x[name] for name in names]
        elif len(expected) == 1:
            parts = [x]
        elif isinstance(x, tuple) and len(x) == len(expected):
            parts = x
        else:
            raise InputError(
                f"This network has {len(expected)} inputs: pass a dict or tuple of "
                f"{', '.join(f'{array.name} [{_described(array)}]' for array in expected)}."
            )
        arrays = tuple(_checked(part, array) for part, array in zip(parts, expected, strict=True))
        if len({len(array) for array in arrays}) > 1:
            raise InputError(f"Every input needs the same number of rows, but they have {[len(a) for a in arrays]}.")
        return arrays

    def _from_frame(self, frame: Any) -> tuple[NDArray[Any], Any]:
        if len(self.card.inputs) > 1:
            raise InputError("A DataFrame serves one input, but this network has several: pass a dict of arrays.")
        names = list(self.card.input.names)
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise InputError(
                f"The DataFrame lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}."
            )
        values = frame[names].to_numpy() if names else frame.to_numpy()
        if len(self.card.input.shape) == 2:
            return self._inputs(values)[0], frame.index
        window = self.card.training.get("window") or self.card.input.shape[1]
        if len(self.card.input.shape) != 3 or window is None:
            raise InputError(
                f"This artifact reads x {self.card.input.axes}: pass a numpy array instead of a DataFrame."
            )
        if len(frame) < window:
            raise InputError(f"The network reads windows of {window} rows, but the DataFrame has {len(frame)}.")
        windows = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)  # (N, F, T)
        return self._inputs(np.moveaxis(windows, 2, 1))[0], frame.index[window - 1 :]

    def _draws(self, draws: Draws) -> NDArray[np.int64]:
        try:
            names = np.asarray(self.card.draws if draws is None else draws)
        except ValueError:  # rows of unequal length
            names = np.empty(0)
        if names.dtype.kind not in "iu":
            raise InputError(f"draws must be a number of draws or an integer array of their names, not {draws!r}.")
        if names.ndim == 0:
            if names < 2:
                raise InputError(f"draws must be at least 2, since one draw has no spread; got {int(names)}.")
            self._check_memory(1, int(names))
            return np.arange(int(names), dtype=np.int64)
        if names.ndim != 1 or len(names) < 2:
            raise InputError(
                f"draws must be a number, or a one-dimensional array of at least 2 names; got shape {names.shape}."
            )
        if names.min() < 0 or names.max() >= MAX_DRAWS:
            raise InputError(f"Names of draws must lie in 0 … 2^32 - 1; got {names.min()} … {names.max()}.")
        return names.astype(np.int64)

    def _levels(self, level: Level) -> float | tuple[float, ...]:
        if level is None:
            level = self.card.levels[0] if len(self.card.levels) == 1 else self.card.levels
        return _checked_levels(level)

    def _seed(self, seed: int | None) -> int:
        value = self.card.seed if seed is None else seed
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not -(2**63) <= value < 2**63:
            raise InputError(f"seed must be an integer of 64 bits, not {seed!r}.")
        return int(value)


def _described(array: Array) -> str:
    return ", ".join(
        axis if size is None else f"{axis} = {size}" for axis, size in zip(array.axes, array.shape, strict=True)
    )


def _checked(x: ArrayLike, expected: Array) -> NDArray[Any]:
    name, shape = expected.name, _described(expected)
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise InputError(f"{name} must be an array [{shape}]: {error}") from None
    if array.dtype.kind not in "fiu" or (expected.dtype == "int64" and array.dtype.kind == "f"):
        raise InputError(f"{name} must hold numbers that fit {expected.dtype}, not {array.dtype}. Convert it first.")
    if array.ndim != len(expected.shape):
        raise InputError(
            f"{name} must have {len(expected.shape)} axes [{shape}], but has {array.ndim}: {array.shape}. "
            f"A single row needs a batch axis too: {name}[None]."
        )
    for axis, size, got in zip(expected.axes, expected.shape, array.shape, strict=True):
        if size is not None and got != size:
            names = f" ({', '.join(expected.names)})" if expected.names and axis == expected.axes[-1] else ""
            raise InputError(
                f"{name} must have {size} along its {axis} axis{names}, but has {got}: expected [{shape}]."
            )
    if array.size == 0:
        raise InputError(f"{name} is empty: {array.shape}. Expected [{shape}] with at least one of each.")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=expected.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(
            f"{name} must be finite, but {name}{list(place)} is {array[place]}. Fill or drop such rows first."
        )
    if expected.limit is not None and not (array.min() >= 0 and array.max() < expected.limit):
        raise InputError(
            f"{name} must hold tokens from 0 to {expected.limit - 1}, but has {array.min()} … {array.max()}."
        )
    return array


def _checked_levels(level: float | Sequence[float]) -> float | tuple[float, ...]:
    try:
        values = np.asarray(level, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty((0, 0))
    if values.ndim > 1 or values.size == 0:
        raise InputError(f"level must be a number such as 0.95, or several, not {level!r}.")
    if not ((values > 0) & (values < 1)).all():
        raise InputError(f"level must lie between 0 and 1, for example 0.95 for 95 %; got {level!r}.")
    return float(values) if values.ndim == 0 else tuple(float(v) for v in values)
