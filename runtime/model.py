"""Load an artifact and predict with it: the door that users come in by."""

import hashlib
import json
import os
import warnings
from dataclasses import asdict, replace
from threading import Lock
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, conformal, online, planner
from .artifact import Artifact, check_trust, read, write
from .calibrated import with_calibration
from .contract import Calibration, Card
from .engines import Engine, Helpers, open_engine
from .enough import Goal, Pace
from .errors import ArtifactError, InputError
from .examples import Truth, as_examples
from .files import write_file
from .forking import renewed_in_a_child, working
from .inputs import (
    Arrays,
    Draws,
    Input,
    Level,
    as_draws,
    as_goal,
    as_half_life,
    as_inputs,
    as_level,
    as_levels,
    as_news,
    as_seed,
    as_truth,
    check_answer,
    check_can_be_calibrated,
    check_memory,
    check_unseen,
    from_frame,
    is_frame,
)
from .intervals import Intervals, Quantiles, check_finite, moments, summarise, unsureness
from .online import Forecast, OnlineState
from .reading import read_file
from .state_json import MOST_BYTES, from_json, to_json
from .stream import Stream, check_streams

if TYPE_CHECKING:
    import pandas as pd

KEEP_MB = 128
MOST_THREADS = 1024
MOST_KEEP_MB = 2**40
MOST_STEPS = 10**6
MOST_DRAWS = 100_000


def load(
    path: str | os.PathLike[str],
    device: str = "cpu",
    threads: int | None = None,
    keep_mb: int = KEEP_MB,
    measure: bool = True,
    *,
    trusted: bool = False,
) -> "Model":
    """Open an artifact (`.onnx`, `.pt` for TorchScript, or `.pt2` for a program of torch.export).

    An ONNX artifact is data, and opening one from a stranger is safe. The formats of torch are programs that can do
    anything when they are opened: pass `trusted=True` for one whose maker you trust.
    `device` is "cpu", "cuda" or "cuda:N"; an ONNX artifact needs onnxruntime-gpu for the latter. `threads` is how many
    chunks of draws run at once; by default as many as the process has cores. What an ONNX artifact drew is kept where
    the same draws and seed come again, up to `keep_mb` MiB; 0 keeps none. With `measure`, the second call of a shape
    spends some milliseconds on the best size of its chunks. None of these changes an answer, only the time.

    Warns where the file draws by an earlier generator, which is flawed: export it again.

    Raises ArtifactError for a file that is missing, damaged, foreign or too new, and for a format of torch that is not
    `trusted`; InputError for a device that is not there, MissingExtra where a format of torch lacks torch.
    """
    path = checks.file_path("path", path)
    if not isinstance(device, str):
        raise InputError(f'device must be "cpu", "cuda" or "cuda:N", not {checks.shown(device)}.')
    if threads is not None:
        threads = checks.whole("threads", threads, 1, MOST_THREADS)
    keep_mb = checks.whole("keep_mb", keep_mb, 0, MOST_KEEP_MB, " of MiB")
    measure, trusted = checks.switch("measure", measure), checks.switch("trusted", trusted)
    artifact = read(path)
    check_trust(artifact, trusted)
    if artifact.card.weakness:
        warnings.warn(artifact.card.weakness, stacklevel=2)
    with working:
        engine = open_engine(artifact, device, keep_mb * 2**20)
    return Model(artifact, engine, threads or planner.cores(), measure)


class Model:
    """A loaded artifact. Safe to call from several threads; where they `observe`, let one thread do both."""

    card: Card
    """What the artifact says of itself."""
    engine: str
    """What evaluates it: "onnxruntime", "torchscript" or "torch.export"; "onnxruntime + compiled" where compiled code
    does a part."""

    def __init__(self, artifact: Artifact, engine: Engine, threads: int, measure: bool) -> None:
        self.card = artifact.card
        self._path = artifact.path  # its content is not kept: the engine has its own form of it
        self._format = artifact.format
        self._calibrated: Artifact | None = None
        self.engine = engine.name
        self._engine = engine
        self._threads = threads
        self._helpers = threads - engine.joins  # beside the caller's thread, where it takes chunks
        self._pool = Helpers()
        self._called = False
        self._pace = Pace()
        self._chunks = planner.Chunks(artifact.card, threads if engine.room is None else 1, measure, engine.room)
        self._online: OnlineState | None = None
        self._latest: Quantiles | None = None
        self.renew()
        renewed_in_a_child(self)

    def renew(self) -> None:
        """Called in the child of a fork: a lock that another thread held would never be released there."""
        self._lock = Lock()

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.card.inputs))
        return f"<murho.Model {self.card.name!r}: {inputs}, {len(self.card.sites)} sites, {self.engine}>"

    @overload
    def predict(
        self,
        x: "pd.DataFrame",
        draws: Draws | None = None,
        level: Level | None = None,
        seed: int | None = None,
        *,
        noise: bool = True,
        calibrated: bool = True,
        parts: bool = False,
        tolerance: float | None = None,
        budget_ms: float | None = None,
    ) -> "pd.DataFrame": ...
    @overload
    def predict(
        self,
        x: Input,
        draws: Draws | None = None,
        level: Level | None = None,
        seed: int | None = None,
        *,
        noise: bool = True,
        calibrated: bool = True,
        parts: bool = False,
        tolerance: float | None = None,
        budget_ms: float | None = None,
    ) -> Intervals: ...
    def predict(
        self,
        x: "Input | pd.DataFrame",
        draws: Draws | None = None,
        level: Level | None = None,
        seed: int | None = None,
        *,
        noise: bool = True,
        calibrated: bool = True,
        parts: bool = False,
        tolerance: float | None = None,
        budget_ms: float | None = None,
    ) -> "Intervals | pd.DataFrame":
        """Prediction intervals for a batch.

        `x` is [B, …] in raw units, with the axes that `card.input` names; where the network has several inputs, a dict
        of such arrays by name, or a tuple of them in the order of `card.inputs`. Of a network with several outputs this
        is the first; `predict_all` gives every one. `draws` is a number of draws (0, 1, …), or an
        array of their names: draw 17 under seed 0 is the same network today, tomorrow and on every machine. `level` is
        the nominal coverage of the central interval, or several. What is not given comes from the card.

        The interval is one for the next observation, where the artifact has observation noise, calibrated where it was
        calibrated, and adapted to what `observe` was told. `calibrated=False` leaves out the last two, `noise=False`
        all three: the interval then shows how unsure the weights are of the mean. `parts=True` also splits the variance
        into what the weights and what the noise bring, for a second evaluation of every draw.

        Where the number of draws is not to be guessed: with `tolerance`, draws are added until the Monte-Carlo error of
        every end is within that share of its interval's width, 0.02 say; with `budget_ms`, as long as the time suffices
        (at least 32). With both, whichever comes first. `draws` are then the most that are taken, 100,000 if not given.
        The answer is the one of its `answer.draws`, with its `answer.mc_error`, reached or not.

        A DataFrame `x` gives a DataFrame, as `Intervals.to_frame` makes it. Its columns are the features by name; where
        the network reads windows of a sequence, every run of that many rows is a window, and the answer's index is the
        window's last row. A Series is a DataFrame of its one column. Where the artifact does not name its features,
        several named columns are an error, since nobody could tell their order.

        Raises InputError for an argument of the wrong shape, type or value, for a level above the calibrated ones, and
        with the row's number for values that the network cannot answer with finite numbers: a window that ends in 0 for
        an artifact that reads returns, numbers near the largest of float32.
        """
        goal = as_goal(tolerance, budget_ms)
        if goal and draws is None:
            draws = MOST_DRAWS
        names, nominal, key = as_draws(self.card, draws), as_level(self.card, level), as_seed(self.card, seed)
        noise, calibrated = checks.switch("noise", noise), checks.switch("calibrated", calibrated)
        parts = checks.switch("parts", parts)
        framed = is_frame(x)
        inputs, index = from_frame(self.card, x) if framed else (as_inputs(self.card, x), None)
        if goal:
            samples, names = self._enough(inputs, names, nominal, key, noise, calibrated, goal)
        else:
            samples = self._samples(inputs, names, key, noise)[0]
        answer = self._first(samples, inputs, names, nominal, key, noise, calibrated, parts)
        return answer.to_frame(index) if framed else answer

    def predict_all(
        self, x: Input, draws: Draws | None = None, level: Level | None = None, seed: int | None = None
    ) -> dict[str, Intervals]:
        """The intervals of every output by its name; the same draws give all of them. Arguments as for `predict`."""
        names, nominal, key = as_draws(self.card, draws), as_level(self.card, level), as_seed(self.card, seed)
        first, *others = self._samples(as_inputs(self.card, x), names, key)
        intervals = [self._adapted(first, nominal, names, key)]
        for samples, array in zip(others, self.card.outputs[1:], strict=True):
            intervals.append(summarise(samples, nominal, names, key, array.names))
        return {array.name: part for array, part in zip(self.card.outputs, intervals, strict=True)}

    def samples(
        self,
        x: Input,
        draws: Draws | None = None,
        seed: int | None = None,
        chunk: int | None = None,
        *,
        noise: bool = True,
    ) -> NDArray[np.float32]:
        """Samples [S, B, …] alone. `chunk` (a multiple of 16) overrides the planner: another time, the same answer."""
        names, key, noise = as_draws(self.card, draws), as_seed(self.card, seed), checks.switch("noise", noise)
        if chunk is not None:
            chunk = _as_chunk(chunk)
        return self._samples(as_inputs(self.card, x), names, key, noise, chunk)[0]

    def stream(
        self, draws: Draws | None = None, level: Level | None = None, seed: int | None = None, *, noise: bool = True
    ) -> Stream:
        """Follow sequences row by row, with a fixed set of draws: `answer = stream.step(row)`, row [B, features].

        Each row costs one step of the network in place of a whole window. The answer is the network's for all the rows
        since the stream began, which need not be as many as it was trained on. Arguments as for `predict`; the
        intervals are calibrated and adapted as there.

        Raises InputError where the artifact was not exported with `streaming`.
        """
        check_streams(self.card)
        names, nominal, key = as_draws(self.card, draws), as_level(self.card, level), as_seed(self.card, seed)
        noise = checks.switch("noise", noise)

        def intervals(samples: NDArray[np.float32]) -> Intervals:
            if noise:
                return self._adapted(samples, nominal, names, key)
            return summarise(samples, nominal, names, key, self.card.output.names)

        return Stream(self.card, self._engine, names, key, noise, intervals)

    def forecast(
        self,
        x: ArrayLike,
        steps: int,
        draws: Draws | None = None,
        level: Level | None = None,
        seed: int | None = None,
    ) -> Intervals:
        """Intervals [B, steps] for the next `steps` values of a series, from its last window x [B, T, 1].

        As in the BLiTZ tutorial, each step's mean is fed back as the next observation. The interval of a later step
        therefore knows nothing of the steps before it being unsure: it shows the weights' doubt about one step, without
        observation noise and calibration. For honest intervals export with `horizon`, or a network of several steps.
        """
        window = as_inputs(self.card, x)[0]
        if len(self.card.inputs) > 1 or window.ndim != 3 or window.shape[2] != 1 or self.card.output.shape[1:] != (1,):
            raise InputError(
                "forecast feeds one predicted value back as the next input: it needs x [batch, time, 1] and an output "
                f"[batch, 1]. This artifact has x {self.card.input.axes} {self.card.input.shape} and an output "
                f"{self.card.output.shape}."
            )
        steps = checks.whole("steps", steps, 1, MOST_STEPS)
        names, nominal, key = as_draws(self.card, draws), as_level(self.card, level), as_seed(self.card, seed)
        check_memory(self.card, len(window) * steps, len(names))
        path = []
        for _ in range(steps):
            samples = self._samples((window,), names, key, noise=False)[0]
            path.append(samples)
            mean = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
            (window,) = as_inputs(self.card, np.concatenate([window[:, 1:], mean[:, np.newaxis]], axis=1))
        return summarise(np.concatenate(path, axis=2), nominal, names, key)

    def calibrate(
        self,
        x: "Input | pd.DataFrame",
        y: Truth,
        levels: Level | None = None,
        half_life: float | None = None,
        draws: Draws | None = None,
        seed: int | None = None,
    ) -> Calibration:
        """Stretch the intervals of every level and output so that they cover what they say, on data like this.

        `x` [n, …] as for `predict`, and the truth `y` [n, O] that came of it, oldest first, neither seen in training:
        split conformal calibration, see `murho.runtime.conformal`. `levels` are up to 16, by default
        50 … 99 % as far as the rows suffice, and those of the card. With `half_life`, in rows, recent rows count more,
        for a world that drifts. Of a DataFrame `x`, `y` may name the column(s) of the truth, see
        `murho.runtime.examples`. From then on `predict` gives calibrated intervals; `save` writes them into the
        artifact, for every host. What `observe` has learnt starts anew.

        Raises InputError for data of the wrong shape, with NaN, too short for a level, or seen in training. The last
        is known only of an artifact whose card holds a fingerprint of its training rows: `murho export` writes it,
        `to_onnx` where it is given `training_rows`. Of any other nobody but you can see to it.
        """
        check_can_be_calibrated(self.card)
        inputs, values = as_examples(self.card, x, y)
        names, key = as_draws(self.card, draws), as_seed(self.card, seed)
        truth = as_truth(self.card, values, len(inputs[0]))
        check_unseen(self.card, inputs[0])
        half_life = as_half_life(half_life)
        nominal = as_levels(self.card, levels, len(truth), half_life)
        quantiles = Quantiles(self._samples(inputs, names, key)[0])
        lower, upper, _ = quantiles.ends(np.asarray(nominal))
        check_finite(lower, upper)
        calibration = conformal.fit(quantiles.median(), lower, upper, truth, nominal, half_life)
        self._calibrated = with_calibration(self._as_written(), calibration)
        self.card = self._calibrated.card
        self._online = self._latest = None
        return calibration

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artifact as it is now, calibration included: the whole file or nothing.

        Raises InputError where it cannot be written, or the suffix is another format's.
        """
        path = checks.file_path("path", path)
        write(self._calibrated or self._as_written(), path)

    def observe(self, y: ArrayLike) -> None:
        """Tell the truth about the latest prediction, so that the next interval is as wide as it must be.

        Of a forecast, `y` [B] holds the next value of each of the B series that were predicted: it settles the first
        step of the latest prediction, the second one of the prediction before, and so on, so predict before each call.
        Of a regression, `y` [B, O] is the truth of the rows that were predicted last. NaN stands for what nobody knows.
        See `murho.runtime.online` for what is learnt from it. Predictions with noise=False or calibrated=False do not
        count.

        Raises InputError where nothing was predicted yet, or `y` has another shape.
        """
        with self._lock:
            if self._online is None:
                self._online = self._fresh()
            state, latest = self._online, self._latest
            if latest is not None:
                ends = self._ends(latest, np.asarray(state.levels), None)[:2]
                state = online.with_forecast(state, _forecast(latest, ends))
            if not state.pending:
                raise InputError("Nothing was predicted yet whose truth could be told. Call predict first.")
            self._online, self._latest = online.told(state, as_news(self.card, y, len(state.pending[-1].median))), None

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Write what `observe` has learnt as JSON: the whole file or nothing. Raises InputError where it cannot."""
        path = checks.file_path("path", path)
        state = self._online or self._fresh()
        write_file(path, to_json(state, self._identity()))

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Go on from a state that `save_state` wrote.

        Raises ArtifactError for a missing or damaged file, and for the state of another artifact or calibration.
        """
        path = checks.file_path("path", path)
        outputs = self._fresh().theta.shape[2]
        try:
            content = read_file(path, MOST_BYTES)
        except ValueError as error:
            raise ArtifactError(f"Cannot read the state {path}: {error}.") from None
        with self._lock:
            self._online, self._latest = from_json(content, self._identity(), outputs), None

    def _as_written(self) -> Artifact:
        artifact = read(self._path)
        same = artifact.format == self._format and artifact.card.posterior_sha256 == self.card.posterior_sha256
        if not same:
            raise ArtifactError(f"{self._path} has become another network since it was loaded. Load it again.")
        return artifact

    def _identity(self) -> str:
        """What a state belongs to: the posterior, and the calibration that its scores are taken against."""
        calibration = json.dumps(self.card.calibration and asdict(self.card.calibration))  # as the file has it
        return hashlib.sha256(f"{self.card.posterior_sha256} {calibration}".encode()).hexdigest()

    def _fresh(self) -> OnlineState:
        check_can_be_calibrated(self.card)
        levels = self.card.calibration.levels if self.card.calibration else sorted(set(self.card.levels))
        outputs = self.card.output.shape[1]
        assert outputs is not None
        return online.initial(levels, outputs)

    def _ends(
        self, quantiles: Quantiles, levels: NDArray[np.float64], state: OnlineState | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Lower and upper ends [K, B, …] at levels [K], calibrated, adapted to what a state learnt; their errors."""
        factors = None
        if self.card.calibration is not None:
            factors = conformal.factors_at(self.card.calibration, levels.astype(np.float32))
        if state is not None:
            adapted = state.factors(levels).astype(np.float32)
            factors = adapted if factors is None else factors * adapted
        lower, upper, errors = quantiles.ends(levels)
        if factors is not None:
            factors = factors[:, np.newaxis]
            lower, upper = conformal.stretch(quantiles.median(), lower, upper, factors)
            with np.errstate(over="ignore", invalid="ignore"):
                errors = np.where(factors > 0, factors * errors, np.float32(0))
        check_finite(lower, upper)
        return lower, upper, errors

    def _enough(
        self,
        inputs: Arrays,
        draws: NDArray[np.int64],
        level: float | tuple[float, ...],
        seed: int,
        noise: bool,
        calibrated: bool,
        goal: Goal,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Samples of as many of the draws as the goal needs, and those draws."""
        levels = np.atleast_1d(np.asarray(level, dtype=np.float64))

        def unsure(samples: NDArray[np.float32]) -> float:
            quantiles = Quantiles(samples)
            adapted = noise and calibrated
            lower, upper, errors = self._ends(quantiles, levels, self._online) if adapted else quantiles.ends(levels)
            check_finite(lower, upper)
            return unsureness(lower, upper, errors)

        def evaluate(start: int, stop: int) -> tuple[NDArray[np.float32], ...]:
            chunk = self._chunks.guess(len(inputs[0]), _steps(inputs), stop - start)  # nothing is measured meanwhile
            return self._samples(inputs, draws[start:stop], seed, noise, chunk)[:1]

        (samples,) = self._pace.draw(tuple(inputs[0].shape), len(draws), goal, evaluate, unsure)
        return samples, draws[: len(samples)]

    def _first(
        self,
        samples: NDArray[np.float32],
        inputs: Arrays,
        draws: NDArray[np.int64],
        level: float | tuple[float, ...],
        seed: int,
        noise: bool,
        calibrated: bool,
        parts: bool,
    ) -> Intervals:
        """The first output's intervals, from its samples."""
        if noise and calibrated:
            answer = self._adapted(samples, level, draws, seed)
        else:
            answer = summarise(samples, level, draws, seed, self.card.output.names)
        if not parts:
            return answer
        total = moments(samples)[1]
        noisy = noise and self.card.noise is not None
        epistemic = moments(self._samples(inputs, draws, seed, noise=False)[0])[1] if noisy else total
        return replace(
            answer,
            epistemic=epistemic,  # in float64: squares of what float32 holds, which may be more than it holds
            aleatoric=np.maximum(total - epistemic, 0),
        )

    def _adapted(
        self, samples: NDArray[np.float32], level: float | tuple[float, ...], draws: NDArray[np.int64], seed: int
    ) -> Intervals:
        """Intervals of the first output, calibrated, and adapted to what was observed."""
        levels = np.atleast_1d(np.asarray(level, dtype=np.float64))
        if (calibration := self.card.calibration) is not None and levels.max() > calibration.levels[-1]:
            raise InputError(
                f"The artifact is calibrated up to level {calibration.levels[-1]:g}; {levels.max():g} was asked "
                "for. Calibrate it for that level too, or pass calibrated=False."
            )
        self._latest = quantiles = Quantiles(samples)  # what `observe` will be told of
        ends = self._ends(quantiles, levels, self._online)
        return summarise(samples, level, draws, seed, self.card.output.names, ends)

    def _samples(
        self,
        inputs: Arrays,
        draws: NDArray[np.int64],
        seed: int,
        noise: bool = True,
        chunk: int | None = None,
    ) -> tuple[NDArray[np.float32], ...]:
        rows = len(inputs[0])
        check_memory(self.card, rows, len(draws))
        if chunk is None:
            chunk = self._chunks.size(
                rows,
                _steps(inputs),
                len(draws),
                lambda size: self._engine.samples(inputs, np.arange(size), ~seed, noise),
            )
        # A first call of a chunk for each thread is over before a pool has started.
        alone = not self._called and len(draws) <= chunk * self._threads
        self._called = True
        pool = None if alone or self._threads == 1 else self._pool.of(self._engine, self._helpers)
        samples = planner.run(
            lambda part: self._engine.samples(inputs, part, seed, noise),
            draws,
            chunk,
            pool,
            self._helpers,
            self._engine.joins,
        )
        check_answer(self.card, samples)
        return samples


def _as_chunk(chunk: object) -> int:
    try:
        size = checks.whole("chunk", chunk, planner.VECTOR)
    except InputError:
        size = 0
    if not size or size % planner.VECTOR:
        raise InputError(f"chunk must be a positive multiple of {planner.VECTOR}, not {checks.shown(chunk)}.")
    return size


def _steps(inputs: Arrays) -> int:
    """Length of the sequences, 1 where there are none."""
    return inputs[0].shape[1] if inputs[0].ndim == 3 else 1


def _forecast(quantiles: Quantiles, ends: tuple[NDArray[np.float32], NDArray[np.float32]]) -> Forecast:
    lower, upper = (end.astype(np.float64) for end in ends)
    return Forecast(quantiles.median().astype(np.float64), lower, upper)
