"""The systems that are timed side by side: ways to an interval from one trained network.

Each is called with rows x [B, …] in raw units, a number of draws and a seed, and gives Intervals. All take the same
statistics from their samples, by the same code. `prepare` chooses for a shape what a careful engineer would choose
by a measurement: threads, and the draws of one batched call.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnxruntime
import torch
from hand_batched import HandBatched
from networks import Made
from numpy.typing import NDArray
from onnx.parser import parse_function
from torch import Tensor

from murho import Intervals, Model
from murho.cli.bench import LEVEL
from murho.cli.loop import BlitzLoop
from murho.runtime import drawing
from murho.runtime.artifact import read
from murho.runtime.compare import raw_units
from murho.runtime.engines import open_engine
from murho.runtime.intervals import summarise
from murho.runtime.planner import bytes_per_draw, cores

Rows = NDArray[np.float32]

CHUNKS = (16, 64, 256)  # draws of one batched call, or all of them
MOST_BYTES = 2 * 2**30  # that a batched call may need, by the planner's estimate
LONGEST_TRIAL, MOST_TRIALS = 2.0, 21  # seconds of one call, and number of them
COMPILE_SECONDS = 180

RANDOM = """<opset_import: ["" : 18], domain: "murho">
Normals <stream> (draws, seed, n) => (noise)
{
  count = Shape(draws)
  shape = Concat<axis = 0>(count, n)
  zeros = ConstantOfShape(shape)
  noise = RandomNormalLike(zeros)
}"""


class Unusable(Exception):  # noqa: N818 - it is an outcome, which the table tells
    """A system does not work for a network."""


class System(Protocol):
    loops: bool
    """Whether draws come one after another, so that time is proportional to their number."""

    def prepare(self, x: Rows, draws: int) -> str:
        """Get ready for a shape; what was chosen, in words. Raises Unusable."""

    def __call__(self, x: Rows, draws: int, seed: int) -> Intervals: ...


@dataclass(frozen=True)
class Choice:
    threads: int
    chunk: int


def fastest(choices: Sequence[Choice], run: Callable[[Choice], object]) -> Choice:
    """The choice with the least median time per draw; `run` evaluates one chunk."""
    times: dict[Choice, float] = {}
    for choice in choices:
        if times and min(times.values()) * choice.chunk > LONGEST_TRIAL:
            continue
        laps = [_seconds(run, choice)]
        while len(laps) < MOST_TRIALS and sum(laps) < LONGEST_TRIAL / 8:
            laps.append(_seconds(run, choice))
        times[choice] = float(np.median(laps)) / choice.chunk
    return min(times, key=lambda choice: times[choice])


def _seconds(run: Callable[[Choice], object], choice: Choice) -> float:
    start = time.perf_counter()
    run(choice)
    return time.perf_counter() - start


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_counts() -> list[int]:
    """One, and torch's default where nothing else is set: all cores."""
    return sorted({1, cores()})


def _chunks(model: Model, x: Rows, draws: int) -> list[int]:
    steps = x.shape[1] if x.ndim == 3 else 1
    fitting = MOST_BYTES // bytes_per_draw(model.card, len(x), steps)
    return [chunk for chunk in (*(c for c in CHUNKS if c < draws), draws) if chunk <= fitting] or [1]


@dataclass
class Murho:
    """An artifact in murho's runtime, which chooses chunks and threads itself."""

    model: Model
    seed: int | None = None
    """In place of a new one for each call."""
    loops = False

    def prepare(self, x: Rows, draws: int) -> str:
        return ""

    def __call__(self, x: Rows, draws: int, seed: int) -> Intervals:
        return self.model.predict(x, draws, LEVEL, seed if self.seed is None else self.seed)


def without_c(path: Path) -> Model:
    """An artifact as it runs where murho was installed without a C compiler: all of it by its own nodes."""
    artifact = read(path)
    return Model(artifact, open_engine(artifact, "cpu", compiled=False), cores(), measure=True)


@dataclass
class Loop:
    """BLiTZ's own network, one forward pass after another."""

    blitz: BlitzLoop
    threads: tuple[int, ...]
    """Those to choose from."""
    mode: Callable[[], AbstractContextManager[None]] = torch.no_grad
    forward: Callable[[Tensor], Tensor] | None = None
    """In place of the network's."""
    loops = True

    def prepare(self, x: Rows, draws: int) -> str:
        choices = [Choice(threads, 8) for threads in self.threads]
        self._choice = fastest(choices, lambda choice: self._samples(x, choice.chunk, choice.threads))
        return _threads(self._choice.threads) if len(self.threads) > 1 else ""

    def __call__(self, x: Rows, draws: int, seed: int) -> Intervals:
        return summarise(self._samples(x, draws, self._choice.threads), LEVEL, np.arange(draws), seed)

    def _samples(self, x: Rows, draws: int, threads: int) -> Rows:
        with torch_threads(threads), self.mode():
            return self.blitz.samples(x, draws, self.forward)


class CompiledLoop(Loop):
    """The same with the forward pass compiled by torch.compile, for the thread count at which the plain one is faster.

    A change of threads compiles anew. The time that compiling takes is part of what is chosen.
    """

    def __init__(self, blitz: BlitzLoop) -> None:
        super().__init__(blitz, tuple(thread_counts()))
        torch._dynamo.reset()  # it counts the times that BLiTZ's code was compiled, in other networks too
        self._compiled = torch.compile(blitz.reference.network)

    def prepare(self, x: Rows, draws: int) -> str:
        self.forward = None
        chosen = super().prepare(x, draws)
        self.forward = self._compiled
        start = time.perf_counter()
        try:
            with _at_most(COMPILE_SECONDS):
                self._samples(x, 2, self._choice.threads)
        except Exception as error:  # torch.compile raises nearly anything
            text = str(error).strip().splitlines() or [""]
            raise Unusable(f"{type(error).__name__}: {text[0]}"[:200]) from None
        return f"{chosen or _threads(1)}, compiled in {time.perf_counter() - start:.0f} s"


@dataclass
class Hand:
    """All draws in batched PyTorch."""

    made: Made
    loops = False

    def prepare(self, x: Rows, draws: int) -> str:
        self._reference = self.made.loop.reference
        self.network = HandBatched(self._reference.network, self._reference.posteriors.values())
        chunks = _chunks(self.made.models["weights.onnx"], x, draws)
        choices = [Choice(threads, chunk) for chunk in chunks for threads in thread_counts()]
        self._choice = fastest(choices, lambda choice: self._samples(x, choice.chunk, choice))
        return f"{_threads(self._choice.threads)}, {self._choice.chunk} draws at once"

    def __call__(self, x: Rows, draws: int, seed: int) -> Intervals:
        return summarise(self._samples(x, draws, self._choice), LEVEL, np.arange(draws), seed)

    def _samples(self, x: Rows, draws: int, choice: Choice) -> Rows:
        with torch_threads(choice.threads), torch.inference_mode():
            rows = torch.from_numpy(x)
            scaled = self._reference.scaled(rows)
            parts = [self.network(scaled, size) for size in _sizes(draws, choice.chunk)]
            return self.in_raw_units(torch.cat(parts), rows).numpy()

    def in_raw_units(self, y: Tensor, x: Tensor) -> Tensor:
        """As the artifact: class probabilities, or values in the units of the data."""
        y = y.softmax(dim=-1) if self._reference.plan.softmax else y
        scale, offset = (torch.from_numpy(v).float() for v in raw_units(self._reference.plan.scaling, x.numpy()))
        return y * scale + offset


@dataclass
class RandomOnnx:
    """murho's file with ONNX's own random numbers in it, and ONNX Runtime as it comes, on all cores."""

    made: Made
    loops = False

    def prepare(self, x: Rows, draws: int) -> str:
        file = with_random_normals(onnx.load(self.made.paths["weights.onnx"]))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            file.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        choices = [Choice(cores(), chunk) for chunk in _chunks(self.made.models["weights.onnx"], x, draws)]
        self._choice = fastest(choices, lambda choice: self._samples(x, choice.chunk, choice.chunk))
        return f"{_threads(cores())}, {self._choice.chunk} draws at once"

    def __call__(self, x: Rows, draws: int, seed: int) -> Intervals:
        return summarise(self._samples(x, draws, self._choice.chunk), LEVEL, np.arange(draws), seed)

    def _samples(self, x: Rows, draws: int, chunk: int) -> Rows:
        feeds = {"x": x, "seed": np.array(0), "levels": np.array([LEVEL], np.float32)}
        parts = [self._session.run(["samples"], feeds | {"draws": np.arange(size)})[0] for size in _sizes(draws, chunk)]
        return np.concatenate(parts)


def with_random_normals(file: onnx.ModelProto) -> onnx.ModelProto:
    """The same file with RandomNormalLike in place of the generator."""
    (normals,) = (function for function in file.functions if function.name == "Normals")
    normals.CopyFrom(parse_function(RANDOM))
    return file


def _sizes(draws: int, chunk: int) -> list[int]:
    return [min(chunk, draws - start) for start in range(0, draws, chunk)]


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Entry:
    """One system of the benchmark, and how to make it for a network."""

    name: str
    make: Callable[[Made], System]
    local: bool = False
    """Whether it samples outputs in place of weights."""
    baseline: bool = False
    """Whether it is one of the loops that all are compared with: with the faster of them."""
    ours: bool = False
    """Whether it is an artifact of murho, whose draws are compared with BLiTZ's one by one."""
    fresh: bool = True
    """Whether each call draws anew."""


REFERENCE = Entry("murho ONNX", lambda made: Murho(made.models["weights.onnx"]), ours=True)
ENTRIES = {
    "loop": Entry("BLiTZ loop, 1 thread", lambda made: Loop(made.loop, (1,)), baseline=True),
    "threads": Entry(f"BLiTZ loop, {_threads(cores())}", lambda made: Loop(made.loop, (cores(),)), baseline=True),
    "inference": Entry(
        "BLiTZ loop, inference_mode",
        lambda made: Loop(made.loop, tuple(thread_counts()), torch.inference_mode),
    ),
    "compile": Entry("BLiTZ loop, torch.compile", lambda made: CompiledLoop(made.loop)),
    "hand": Entry("PyTorch, batched by hand", Hand),
    "random": Entry("ONNX, RandomNormalLike", RandomOnnx),
    "torchscript": Entry("murho TorchScript", lambda made: Murho(made.models["weights.pt"]), ours=True),
    "onnx": REFERENCE,
    "nodes": Entry("murho ONNX, without C", lambda made: Murho(without_c(made.paths["weights.onnx"])), ours=True),
    "same": Entry(
        "murho ONNX, same seed", lambda made: Murho(made.models["weights.onnx"], seed=0), ours=True, fresh=False
    ),
    "local-torchscript": Entry(
        "murho TorchScript, local", lambda made: Murho(made.models["local.pt"]), local=True, ours=True
    ),
    "local": Entry("murho ONNX, local", lambda made: Murho(made.models["local.onnx"]), local=True, ours=True),
}
if cores() == 1:
    del ENTRIES["threads"]
if drawing._compiled is None:
    del ENTRIES["nodes"]
