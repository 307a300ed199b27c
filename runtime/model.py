"""Load an artifact and predict with it: the door that users come in by."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, conformal, online, planner
from .artifact import Artifact, check_trust, checked, read, write
from .calibrated import with_calibration
from .contract import MAX_DRAWS, Calibration, Card
from .engines import Engine, Helpers, open_engine
from .enough import FEWEST, Goal, Pace
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
    can_be_calibrated,
    check_answer,
    check_can_be_calibrated,
    check_unseen,
    from_frame,
    is_frame,
)
from .intervals import Ends, Intervals, Quantiles, check_finite, ends_by_rows, moments, summarise, unsureness
from .memory import STATISTICS_BYTES, check_memory, most_draws, row_blocks, values_per_row
from .online import Forecast, OnlineState
from .planner import whole_vectors
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
TRIED_VALUES = 2**18
"""Samples whose statistics tell what those of all will cost."""


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
    chunks of draws run at once; by default as many as the process has cores, or as 3 GiB of weights allow. What an ONNX
    artifact drew is kept where the same draws and seed come again, up to `keep_mb` MiB; 0 keeps none. With `measure`,
    the second call of a shape spends some milliseconds on the best size of its chunks. None of these changes an answer,
    only the time.

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
    return _opened(artifact, Settings(device, threads, keep_mb, measure))


@dataclass(frozen=True)
class Settings:
    """How an artifact was loaded: see `load`."""

    device: str = "cpu"
    threads: int | None = None
    keep_mb: int = KEEP_MB
    measure: bool = True


def _opened(artifact: Artifact, settings: Settings) -> "Model":
    with working:
        engine = open_engine(artifact, settings.device, settings.keep_mb * 2**20)
    model = Model(artifact, engine, settings.threads or planner.usual_threads(artifact.card), settings.measure)
    model._settings = settings
    return model


def _reopened(
    path: str, content: bytes, settings: Settings, online: OnlineState | None, latest: NDArray[np.float32] | None
) -> "Model":
    """A model from what a pickle holds of it."""
    artifact = checked(Path(path), content)
    model = _opened(artifact, settings)
    model._held = artifact  # its file may be nowhere here
    model._online, model._latest = online, latest
    return model


class Model:
    """A loaded artifact. Safe to call from several threads; where they `observe`, let one thread do both.

    A pickle or a copy of it (joblib, multiprocessing) is the artifact's file, opened anew, with what was calibrated and
    observed, and loaded with the same arguments. A pickle of torch's formats is as much a program as their files.
    """

    card: Card
    """What the artifact says of itself."""
    engine: str
    """What evaluates it: "onnxruntime", "torchscript" or "torch.export"; "onnxruntime + compiled" where compiled code
    does a part."""

    def __init__(self, artifact: Artifact, engine: Engine, threads: int, measure: bool) -> None:
        self.card = artifact.card
        self._path = artifact.path  # its content is not kept: the engine has its own form of it
        self._format = artifact.format
        self._held: Artifact | None = None
        """The artifact as it is now, where that is not what lies at its path."""
        self._settings = Settings(threads=threads, measure=measure)
        self.engine = engine.name
        self._engine = engine
        self._threads = threads
        self._helpers = threads - engine.joins  # beside the caller's thread, where it takes chunks
        self._pool = Helpers()
        self._called = False
        self._pace = Pace()
        self._chunks = planner.Chunks(artifact.card, threads if engine.room is None else 1, measure, engine.room)
        self._online: OnlineState | None = None
        self._latest: NDArray[np.float32] | None = None
        """Of the latest prediction, what `observe` is told the truth about: see `Statistics`."""
        self.renew()
        renewed_in_a_child(self)

    def renew(self) -> None:
        """Called in the child of a fork: a lock that another thread held would never be released there."""
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        artifact = self._held or self._as_written()
        if artifact.card != self.card:
            raise ArtifactError(f"{self._path} was calibrated anew since it was loaded. Load it again.")
        with self._lock:
            return _reopened, (str(self._path), artifact.content, self._settings, self._online, self._latest)

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
        nominal, key = as_level(self.card, level), as_seed(self.card, seed)
        noise, calibrated = checks.switch("noise", noise), checks.switch("calibrated", calibrated)
        parts = checks.switch("parts", parts)
        framed = is_frame(x)
        inputs, index = from_frame(self.card, x) if framed else (as_inputs(self.card, x), None)
        rows, steps, levels = len(inputs[0]), _steps(self.card, inputs), np.size(nominal)
        most = None
        if goal:
            most = most_draws(self.card, rows, MAX_DRAWS, levels, steps=steps, parts=parts)
            most = max(FEWEST, most // planner.VECTOR * planner.VECTOR)  # where not even those fit, it is said below
            if draws is None or (isinstance(draws, int) and draws > most):
                draws = min(MOST_DRAWS if draws is None else draws, most)
        call = Call(as_draws(self.card, draws)[:most], nominal, key, noise, noise and calibrated)
        least = FEWEST if goal else len(call.draws)
        check_memory(self.card, rows, min(least, len(call.draws)), levels, outputs=1, steps=steps, parts=parts)
        self._check_level(call)
        if goal:
            samples, call, statistics = self._enough(inputs, call, goal, parts)
        else:
            (samples,) = self._samples(inputs, call)
            statistics = self._statistics(samples, call)
        answer = self._answer(samples, call, statistics)
        if parts:
            answer = self._with_parts(answer, inputs, call)
        return answer.to_frame(index) if framed else answer

    def predict_all(
        self, x: Input, draws: Draws | None = None, level: Level | None = None, seed: int | None = None
    ) -> dict[str, Intervals]:
        """The intervals of every output by its name; the same draws give all of them. Arguments as for `predict`."""
        call = Call(as_draws(self.card, draws), as_level(self.card, level), as_seed(self.card, seed))
        inputs = as_inputs(self.card, x)
        check_memory(self.card, len(inputs[0]), len(call.draws), len(call.levels), steps=_steps(self.card, inputs))
        self._check_level(call)
        first, *others = self._samples(inputs, call, outputs=len(self.card.outputs))
        intervals = [self._answer(first, call, self._statistics(first, call))]
        for samples, array in zip(others, self.card.outputs[1:], strict=True):
            intervals.append(summarise(samples, call.level, call.draws, call.seed, array.names))
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
        inputs = as_inputs(self.card, x)
        check_memory(self.card, len(inputs[0]), len(names), 0, outputs=1, steps=_steps(self.card, inputs))
        return self._samples(inputs, Call(names, (), key, noise), chunk)[0]

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
        noise = checks.switch("noise", noise)
        call = Call(as_draws(self.card, draws), as_level(self.card, level), as_seed(self.card, seed), noise, noise)
        self._check_level(call)

        def intervals(samples: NDArray[np.float32]) -> Intervals:
            return self._answer(samples, call, self._statistics(samples, call))

        return Stream(self.card, self._engine, call.draws, call.seed, noise, len(call.levels), self._run, intervals)

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
        call = Call(as_draws(self.card, draws), as_level(self.card, level), as_seed(self.card, seed), noise=False)
        check_memory(self.card, len(window) * steps, len(call.draws), len(call.levels), outputs=1)
        path = np.empty((len(call.draws), len(window), steps), np.float32)
        for step in range(steps):
            (samples,) = self._samples((window,), call)
            path[:, :, step] = samples[:, :, 0]
            mean = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
            (window,) = as_inputs(self.card, np.concatenate([window[:, 1:], mean[:, np.newaxis]], axis=1))
        return summarise(path, call.level, call.draws, call.seed)

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
        call = Call(as_draws(self.card, draws), (), as_seed(self.card, seed))
        truth = as_truth(self.card, values, len(inputs[0]))
        check_unseen(self.card, inputs[0])
        half_life = as_half_life(half_life)
        nominal = as_levels(self.card, levels, len(truth), half_life)
        tails = _tails(np.asarray(nominal))
        ends = np.empty((len(tails), *truth.shape), np.float32)
        for rows in self._pieces(inputs, call, len(nominal)):
            (samples,) = self._samples(_rows(self.card, inputs, rows), call, first=rows.start)
            for part in row_blocks(samples.shape[1], samples.shape[2], len(samples), len(nominal)):
                ends[:, rows][:, part] = Quantiles(samples[:, part]).at(tails)
        lower, upper, median = _split(ends)
        check_finite(lower, upper)
        calibration = conformal.fit(median, lower, upper, truth, nominal, half_life)
        with working:
            self._held = with_calibration(self._held or self._as_written(), calibration)
        self.card = self._held.card
        self._online = self._latest = None
        return calibration

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artifact as it is now, calibration included: the whole file or nothing.

        Raises InputError where it cannot be written, or the suffix is another format's.
        """
        path = checks.file_path("path", path)
        write(self._held or self._as_written(), path)

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
                lower, upper, median = _split(latest)
                if (factors := self._factors(np.asarray(state.levels), None)) is not None:
                    lower, upper = conformal.stretch(median, lower, upper, factors)
                check_finite(lower, upper)
                forecast = Forecast(median.astype(np.float64), lower.astype(np.float64), upper.astype(np.float64))
                state = online.with_forecast(state, forecast)
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
        outputs = self.card.output.shape[1]
        assert outputs is not None
        return online.initial(self._followed(), outputs)

    def _followed(self) -> Sequence[float]:
        """The levels that `observe` follows; none where it can follow none."""
        if self._online is not None:
            return self._online.levels
        if not can_be_calibrated(self.card):
            return ()
        return self.card.calibration.levels if self.card.calibration else sorted(set(self.card.levels))

    def _factors(self, levels: NDArray[np.float64], state: OnlineState | None) -> NDArray[np.float32] | None:
        """Factors [K, 1, O] of the ends at levels [K]: calibrated, and adapted to what a state learnt."""
        factors = None
        if self.card.calibration is not None:
            factors = conformal.factors_at(self.card.calibration, levels.astype(np.float32))
        if state is not None:
            adapted = state.factors(levels).astype(np.float32)
            factors = adapted if factors is None else factors * adapted
        return None if factors is None else factors[:, np.newaxis]

    def _statistics(self, samples: NDArray[np.float32], call: "Call") -> "Statistics":
        """The ends of the first output's samples [S, B, …], and those that `observe` would need."""
        levels, state = call.levels, self._online
        if not call.adapted:
            return Statistics(ends_by_rows(samples, levels), None)
        tails = _tails(np.asarray(self._followed()))
        latest = np.empty((len(tails), *samples.shape[1:]), np.float32)
        factors = self._factors(levels, state)

        def ends(quantiles: Quantiles, rows: slice) -> Ends:
            if len(tails) > 1:
                latest[:, rows] = quantiles.at(tails)
            lower, upper, errors = quantiles.ends(levels)
            if factors is not None:
                lower, upper = conformal.stretch(quantiles.median(), lower, upper, factors)
                with np.errstate(over="ignore", invalid="ignore"):
                    errors = np.where(factors > 0, factors * errors, np.float32(0))
            return Ends(lower, upper, errors)

        found = ends_by_rows(samples, levels, ends)
        check_finite(found.lower, found.upper)
        return Statistics(found, latest)

    def _answer(self, samples: NDArray[np.float32], call: "Call", statistics: "Statistics") -> Intervals:
        """The first output's intervals."""
        answer = summarise(samples, call.level, call.draws, call.seed, self.card.output.names, statistics.ends)
        if call.adapted:
            self._latest = statistics.latest
        return answer

    def _with_parts(self, answer: Intervals, inputs: Arrays, call: "Call") -> Intervals:
        """The same with its variance split, which takes the samples without noise, some rows after the other."""
        total = moments(answer.samples)[1]
        epistemic = total
        if call.noise and self.card.noise is not None:
            epistemic = np.empty_like(total)
            for rows in self._pieces(inputs, call, 0):
                (samples,) = self._samples(_rows(self.card, inputs, rows), replace(call, noise=False), first=rows.start)
                epistemic[rows] = moments(samples)[1]
        # In float64: squares of what float32 holds may be more than it holds.
        return replace(answer, epistemic=epistemic, aleatoric=np.maximum(total - epistemic, 0))

    def _enough(
        self, inputs: Arrays, call: "Call", goal: Goal, parts: bool
    ) -> tuple[NDArray[np.float32], "Call", "Statistics"]:
        """Samples of as many of the draws as the goal needs, the call with those draws, and their statistics."""
        rows = len(inputs[0])
        samples = np.empty(0, np.float32)
        statistics: Statistics | None = None

        def evaluate(start: int, stop: int) -> None:
            nonlocal samples
            steps = _steps(self.card, inputs)
            chunk = self._chunks.guess(self._block(rows, steps), steps, stop - start)  # nothing is measured meanwhile
            batch = replace(call, draws=call.draws[start:stop])
            if start == 0:
                (samples,) = self._samples(inputs, batch, chunk)
            else:
                samples.resize((stop, *samples.shape[1:]), refcheck=False)  # in place, where the system can
                self._samples(inputs, batch, chunk, into=(samples[start:],))

        def settle(whole: bool) -> tuple[float, float]:
            nonlocal statistics
            if whole:
                statistics = self._statistics(samples, call)
                return unsureness(*statistics.ends), 1.0
            some = min(rows, max(2, TRIED_VALUES * rows // samples.size))
            self._statistics(samples[:, :some], call)
            moments(samples[:, :some])
            return np.inf, some / rows

        noisy = parts and call.noise and self.card.noise is not None
        shape = tuple(inputs[0].shape)
        count = self._pace.draw(shape, len(call.draws), goal, evaluate, settle, 2 if noisy else 1)
        return samples, replace(call, draws=call.draws[:count]), statistics or self._statistics(samples, call)

    def _check_level(self, call: "Call") -> None:
        calibration = self.card.calibration
        if call.adapted and calibration is not None and call.levels.max() > calibration.levels[-1]:
            raise InputError(
                f"The artifact is calibrated up to level {calibration.levels[-1]:g}; {call.levels.max():g} was asked "
                "for. Calibrate it for that level too, or pass calibrated=False."
            )

    def _block(self, rows: int, steps: int) -> int:
        """Rows that are evaluated at once."""
        return min(rows, planner.rows_per_block(self.card, steps))

    def _pieces(self, inputs: Arrays, call: "Call", levels: int) -> Iterator[slice]:
        """Whole blocks of rows, some at a time, where their samples are of no use afterwards.

        Raises InputError where not even the samples of one block fit.
        """
        rows, steps = len(inputs[0]), _steps(self.card, inputs)
        block = self._block(rows, steps)
        check_memory(self.card, block, len(call.draws), levels, outputs=1, steps=steps)
        row = 4 * len(call.draws) * values_per_row(self.card, 1, steps)[0]
        piece = block * max(1, STATISTICS_BYTES // (block * row))
        return (slice(first, min(first + piece, rows)) for first in range(0, rows, piece))

    def _samples(
        self,
        inputs: Arrays,
        call: "Call",
        chunk: int | None = None,
        *,
        outputs: int = 1,
        into: Sequence[NDArray[np.float32]] = (),
        first: int = 0,
    ) -> tuple[NDArray[np.float32], ...]:
        """Samples [S, B, …] of the first outputs, put `into` place; `first` is the number of the first row."""
        draws, seed, noise = call.draws, call.seed, call.noise
        rows, steps = len(inputs[0]), _steps(self.card, inputs)
        block = self._block(rows, steps)
        if chunk is None:
            some = _rows(self.card, inputs, slice(block))

            def measured(size: int) -> object:
                return self._engine.samples(some, np.arange(size, dtype=np.int64), ~seed, noise, keep=False)

            chunk = self._chunks.size(block, steps, len(draws), measured)

        def evaluate(where: slice, names: slice) -> Sequence[NDArray[np.float32]]:
            part = _rows(self.card, inputs, where)
            return self._engine.samples(part, whole_vectors(draws[names]), seed, noise)[:outputs]

        samples = self._run(evaluate, rows, block, len(draws), chunk, into)
        check_answer(self.card, samples, first)
        return samples

    def _run(
        self,
        evaluate: planner.Evaluate,
        rows: int,
        block: int,
        draws: int,
        chunk: int,
        into: Sequence[NDArray[np.float32]] = (),
    ) -> tuple[NDArray[np.float32], ...]:
        # A first call of a chunk for each thread is over before a pool has started.
        alone = not self._called and draws <= chunk * self._threads and rows <= block
        self._called = True
        pool = None if alone or self._threads == 1 else self._pool.of(self._engine, self._helpers)
        return planner.run(evaluate, rows, block, draws, chunk, pool, self._helpers, self._engine.joins, into)


@dataclass(frozen=True, eq=False)
class Call:
    """What is asked of an artifact, beside its inputs."""

    draws: NDArray[np.int64]
    level: float | tuple[float, ...]
    seed: int
    noise: bool = True
    adapted: bool = True
    """Whether intervals are calibrated, and adapted to what was observed."""

    @property
    def levels(self) -> NDArray[np.float64]:
        """[K]."""
        return np.atleast_1d(np.asarray(self.level, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Statistics:
    ends: Ends
    latest: NDArray[np.float32] | None
    """Quantiles [2 K + 1, B, O] of the samples at the levels that are followed: lower, upper and the median."""


def _tails(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the lower ends, the upper ends, and the median."""
    return np.concatenate([(1 - levels) / 2, (1 + levels) / 2, [0.5]])


def _split(quantiles: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Lower ends, upper ends and median of quantiles at `_tails`."""
    lower, upper = np.split(quantiles[:-1], 2)
    return lower, upper, quantiles[-1]


def _rows(card: Card, inputs: Arrays, rows: slice) -> Arrays:
    """Some rows of the inputs, and the whole of those that all rows share."""
    return tuple(part if array.shared else part[rows] for part, array in zip(inputs, card.inputs, strict=True))


def _as_chunk(chunk: object) -> int:
    try:
        size = checks.whole("chunk", chunk, planner.VECTOR)
    except InputError:
        size = 0
    if not size or size % planner.VECTOR:
        raise InputError(f"chunk must be a positive multiple of {planner.VECTOR}, not {checks.shown(chunk)}.")
    return size


def _steps(card: Card, inputs: Arrays) -> int:
    """Length of the sequences, 1 where there are none."""
    free = [
        int(got)
        for x, array in zip(inputs, card.inputs, strict=True)
        for got, size in list(zip(x.shape, array.shape, strict=True))[not array.shared :]
        if size is None
    ]
    return max([int(inputs[0].shape[1]) if inputs[0].ndim == 3 else 1, *free])
