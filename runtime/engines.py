"""The engines behind `Model`: ONNX Runtime, TorchScript on CPU or CUDA, and programs of torch.export.

An engine evaluates one chunk of draws. The statistics over all draws are taken outside, so that they do not depend on
how the draws were split.
"""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock, local
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import drawing, pt2, recurrent, torchscript
from .artifact import KINDS, Artifact
from .contract import GENERATOR, NEXT, NOISE_INPUT, OUTPUTS, Array, Card
from .errors import ArtifactError, InputError, MissingExtra
from .forking import is_forked, renewed_in_a_child, working
from .kept import Arrays, Kept
from .split import split

Samples = NDArray[np.float32]
Inputs = tuple[NDArray[Any], ...]

_here = local()
"""`single` on threads on which torch computes with one thread."""

_MOST_FOLDED = 2**26
"""Bytes of one tensor that ONNX Runtime may make of constants when it opens a file, or four times the file's."""
_MOST_SAID = 2000  # characters
GPU_ROOM = 2**30
"""Bytes that a chunk of draws may take on a GPU, which wants few large calls and has no use for the cache's size."""


class Engine(Protocol):
    name: str
    room: int | None
    """Bytes that a chunk of draws may take; None for what fits a core's cache."""
    joins: bool
    """Whether the calling thread takes chunks too. On it torch would compute with threads of its own."""

    def pool(self, threads: int) -> Executor | None:
        """Threads to run chunks on, or None where one chunk at a time is best."""

    def samples(
        self, inputs: Inputs, draws: NDArray[np.int64], seed: int, observed: bool, keep: bool = True
    ) -> tuple[Samples, ...]:
        """Samples [S, B, …] of draws [S], one array for each output of the card, for validated inputs [B, …].

        `observed`: with observation noise, where the artifact has any. Without `keep`, what is drawn is not kept.
        """

    def drawn(self, draws: NDArray[np.int64], seed: int) -> Arrays | None:
        """What a stream of these draws reads at every step, to be drawn once; None where a step draws it itself."""

    def step(
        self,
        inputs: Inputs,
        draws: NDArray[np.int64],
        seed: int,
        observed: bool,
        states: Inputs | None,
        drawn: Arrays | None = None,
    ) -> tuple[tuple[Samples, ...], Inputs]:
        """The same of a streaming artifact, from its states [S, B, H] or from zeros, and the states that follow.

        `drawn` is what `self.drawn` gave for these draws, where the caller keeps it.
        """


def open_engine(artifact: Artifact, device: str, keep: int = 0, compiled: bool = True) -> Engine:
    """The engine for the artifact's format on a device: "cpu", "cuda" or "cuda:N". It keeps up to `keep` bytes.

    Without `compiled`, an ONNX artifact is evaluated by its own nodes alone, as on any other host.
    """
    if artifact.format == "torchscript":
        return TorchScriptEngine(artifact, device)
    if artifact.format == "onnx":
        return OnnxEngine(artifact, device, keep, compiled)
    if device != "cpu":
        raise InputError(
            f"device={device!r} needs a TorchScript or ONNX artifact; {artifact.path} is {KINDS[artifact.format]}. "
            'Export with to_torchscript, or use device="cpu".'
        )
    return ProgramEngine(artifact)


class Helpers:
    """A pool of threads, made when it is first asked for, and anew in the child of a fork, which has no threads."""

    def __init__(self) -> None:
        self.renew()
        renewed_in_a_child(self)

    def renew(self) -> None:
        self._lock = Lock()
        self._pool: Executor | None = None

    def of(self, engine: Engine, threads: int) -> Executor | None:
        with self._lock:
            if self._pool is None:
                self._pool = engine.pool(threads)
            return self._pool


class OnnxEngine:
    name = "onnxruntime"  # with " + compiled" where compiled code does a part of the work
    joins = True

    def __init__(self, artifact: Artifact, device: str, keep: int, compiled: bool) -> None:
        import onnxruntime

        providers = _providers(device, onnxruntime.get_available_providers())
        self.room = None if device == "cpu" else GPU_ROOM
        options = onnxruntime.SessionOptions()
        # Threads inside the ops hardly help at small batches; whole chunks of draws run on threads instead.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # What is made of constants when the file is opened may grow; versions that do not know this bound ignore it.
        most = max(_MOST_FOLDED, 4 * len(artifact.content))
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(most))

        def opened(model: bytes) -> onnxruntime.InferenceSession:
            return onnxruntime.InferenceSession(model, options, providers=providers)

        try:
            halves = split(artifact.content)
            compiled = compiled and device == "cpu"  # on a GPU all runs there
            compute = recurrent.compiled(halves.network, opened) if compiled else None
            self._network = compute.run if compute else opened(halves.network).run
            draw = None
            if halves.drawn:
                parts, views = (halves.sampler, halves.drawn, opened), compute.views if compute else {}
                known = artifact.card.generator == GENERATOR
                draw = drawing.compiled(*parts, views) if compiled and known else None
                self._sampler = draw or drawing.by_nodes(*parts)
            if compute or draw:
                self.name = f"{OnnxEngine.name} + compiled"
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base
            raise ArtifactError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {artifact.path}: {_said(error)}"
            ) from None
        self._path = artifact.path
        self._card = artifact.card
        self._names = [array.name for array in artifact.card.inputs]
        further = artifact.card.outputs[1:]
        self._fetches = [OUTPUTS[0], *(f"{array.name}.{OUTPUTS[0]}" for array in further)]
        self._levels = np.array([0.5], dtype=np.float32)
        self._noisy = artifact.card.noise is not None
        self._states = artifact.card.states
        self._drawn = halves.drawn
        self._kept = Kept(keep)
        self._process = os.getpid()

    def pool(self, threads: int) -> Executor | None:
        return ThreadPoolExecutor(threads, "murho") if self.room is None else None

    def samples(
        self, inputs: Inputs, draws: NDArray[np.int64], seed: int, observed: bool, keep: bool = True
    ) -> tuple[Samples, ...]:
        drawn = None if keep else self.drawn(draws, seed)
        return tuple(self._run(self._fetches, inputs, draws, seed, observed, None, drawn))

    def drawn(self, draws: NDArray[np.int64], seed: int) -> Arrays | None:
        with working:
            return self._sampler(draws, seed) if self._drawn else None

    def step(
        self,
        inputs: Inputs,
        draws: NDArray[np.int64],
        seed: int,
        observed: bool,
        states: Inputs | None,
        drawn: Arrays | None = None,
    ) -> tuple[tuple[Samples, ...], Inputs]:
        fetches = self._fetches + [f"{NEXT}{k}" for k in range(len(self._states))]
        results = self._run(fetches, inputs, draws, seed, observed, states, drawn)
        count = len(self._fetches)
        return tuple(results[:count]), tuple(results[count:])

    def _run(
        self,
        fetches: list[str],
        inputs: Inputs,
        draws: NDArray[np.int64],
        seed: int,
        observed: bool,
        states: Inputs | None,
        drawn: Arrays | None,
    ) -> Sequence[Samples]:
        if self.room is not None:
            _check_not_forked(self._process)
        feeds = {"draws": draws, "seed": np.array(seed, dtype=np.int64), "levels": self._levels}
        feeds |= dict(zip(self._names, inputs, strict=True))
        if self._noisy:
            feeds[NOISE_INPUT] = np.array(observed, dtype=np.float32)
        if self._states:
            states = states or first_states(self._states, len(draws), len(inputs[0]))
            feeds |= {array.name: state for array, state in zip(self._states, states, strict=True)}
        try:
            with working:
                if self._drawn:
                    feeds |= dict(zip(self._drawn, drawn or self._draw(draws, seed), strict=True))
                results = self._network(fetches, feeds)
        except MemoryError:
            raise
        except Exception as error:  # as above
            _check_looked_up(error)
            raise ArtifactError(f"ONNX Runtime cannot evaluate {self._path}: {_said(error)}") from None
        _check_results(self._path, self._card, results, len(draws), len(inputs[0]))
        return results

    def _draw(self, draws: NDArray[np.int64], seed: int) -> Arrays:
        key = seed, draws.tobytes()
        arrays = self._kept.get(key)
        if arrays is None:
            arrays = self._sampler(draws, seed)
            self._kept.put(key, arrays)
        return arrays


class _TorchEngine:
    """What the engines of torch share: how they pass arrays, and the threads to do so on."""

    name: str
    joins = False

    def __init__(self, artifact: Artifact, device: str) -> None:
        try:
            import torch
        except ImportError:
            raise MissingExtra(
                f'{artifact.path} is {KINDS[artifact.format]} and needs torch: pip install "murho[torchscript]"'
            ) from None
        self._torch = torch
        self._path = artifact.path
        self._card = artifact.card
        self._noisy = artifact.card.noise is not None
        self._states = artifact.card.states
        self._count = len(artifact.card.outputs)
        try:
            self._device = torch.device(device)
        except RuntimeError:
            raise InputError(f'device must be "cpu", "cuda" or "cuda:N", not {device!r}.') from None
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(
                f"device={device!r} needs an NVIDIA GPU and a CUDA build of torch; torch {torch.__version__} sees "
                'none. Use device="cpu".'
            )
        self.room = None if self._device.type == "cpu" else GPU_ROOM
        self._process = os.getpid()
        self._aside = Helpers()
        try:
            self._samples = self._opened(artifact)
        except Exception as error:  # torch raises nearly anything for a file that it cannot read
            raise ArtifactError(f"torch {torch.__version__} cannot load {artifact.path}: {_said(error)}") from None

    def _opened(self, artifact: Artifact) -> Callable[..., Any]:
        """A function (inputs …, draws, seed[, noise][, states …]) -> samples of each output and next states."""
        raise NotImplementedError

    def pool(self, threads: int) -> Executor | None:
        """Threads on which torch computes with one thread each: its own threads would fight over the cores.

        torch keeps that number per thread, but also as the start value of threads to come; that is put back.
        """
        if self._device.type != "cpu":
            return None
        torch, started = self._torch, Barrier(threads)

        def enter() -> None:
            with working:
                torch.get_num_threads()  # makes torch initialise this thread now, and not over the next line
                torch.set_num_threads(1)
            _here.single = True

        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads, "murho", initializer=enter)
        list(pool.map(lambda _: started.wait(), range(threads)))
        torch.set_num_threads(before)
        return pool

    def samples(
        self, inputs: Inputs, draws: NDArray[np.int64], seed: int, observed: bool, keep: bool = True
    ) -> tuple[Samples, ...]:
        return self.step(inputs, draws, seed, observed, None)[0]

    def drawn(self, draws: NDArray[np.int64], seed: int) -> Arrays | None:
        return None

    def step(
        self,
        inputs: Inputs,
        draws: NDArray[np.int64],
        seed: int,
        observed: bool,
        states: Inputs | None,
        drawn: Arrays | None = None,
    ) -> tuple[tuple[Samples, ...], Inputs]:
        if self.room is not None:
            _check_not_forked(self._process)
        elif is_forked() and not getattr(_here, "single", False):
            # This thread may believe in threads of torch's that the fork did not copy, and wait for them for ever.
            aside = self._aside.of(self, 1)
            assert aside is not None
            return aside.submit(self.step, inputs, draws, seed, observed, states).result()
        with working:
            return self._step(inputs, draws, seed, observed, states)

    def _step(
        self, inputs: Inputs, draws: NDArray[np.int64], seed: int, observed: bool, states: Inputs | None
    ) -> tuple[tuple[Samples, ...], Inputs]:
        torch = self._torch
        states = states or first_states(self._states, len(draws), len(inputs[0]))
        noise = (torch.tensor(float(observed), device=self._device),) if self._noisy else ()
        given = (
            *(torch.from_numpy(x).to(self._device) for x in (*inputs, draws)),
            torch.tensor(seed, dtype=torch.int64, device=self._device),
            *noise,
            *(torch.from_numpy(state).to(self._device) for state in states),
        )
        with torch.inference_mode():
            try:
                result = self._samples(*given)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # torch raises nearly anything
                _check_looked_up(error)
                raise ArtifactError(f"torch {torch.__version__} cannot evaluate {self._path}: {_said(error)}") from None
        results = tuple(part.cpu().numpy() for part in (result if isinstance(result, tuple) else (result,)))
        _check_results(self._path, self._card, results, len(draws), len(inputs[0]))
        return results[: self._count], results[self._count :]


class TorchScriptEngine(_TorchEngine):
    name = "torchscript"

    def _opened(self, artifact: Artifact) -> Callable[..., Any]:
        self.module = torchscript.loaded(artifact.content, self._device)
        samples: Callable[..., Any] = self.module.samples
        return samples


class ProgramEngine(_TorchEngine):
    name = "torch.export"

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact, "cpu")

    def _opened(self, artifact: Artifact) -> Callable[..., Any]:
        self.module = pt2.sampler(pt2.loaded(artifact.content), artifact.card)
        return self.module


def _check_not_forked(process: int) -> None:
    """Refuse to go on with a GPU in another process than the one that opened it."""
    if os.getpid() != process:
        raise InputError(
            "This model was loaded on a GPU before the process was forked, and a GPU does not follow into a child. "
            'the model in the child, or start processes with multiprocessing\'s "spawn".'
        )


def _check_results(path: Path, card: Card, results: Sequence[Any], draws: int, rows: int) -> None:
    """Raises ArtifactError where samples and states are not what the card says."""
    wanted = [(array, (draws, rows, *array.shape[1:])) for array in card.outputs]
    wanted += [(state, (draws, rows, state.shape[2])) for state in card.states]
    for (array, shape), result in zip(wanted, results, strict=False):
        fits = isinstance(result, np.ndarray) and result.dtype == np.float32 and result.ndim == len(shape)
        if not fits or any(want not in (None, have) for have, want in zip(result.shape, shape, strict=True)):
            raise ArtifactError(
                f"{path} answers with {array.name} {getattr(result, 'shape', type(result).__name__)} where its card "
                f"says float32 [draws = {draws}, rows = {rows}, {', '.join(map(str, shape[2:]))}]. Export it again."
            )


def _check_looked_up(error: Exception) -> None:
    """Raises InputError where an engine says that an index is out of range: only inputs hold such."""
    if re.search(r"out of data bounds|index out of range|is out of bounds for dimension", str(error)):
        raise InputError(
            "The inputs hold a category or token, or a sequence is longer, than what the network has an embedding or "
            "place for. Compare them with the data that the network was trained on."
        ) from None


def _said(error: Exception) -> str:
    """What an error of ONNX Runtime's or torch's says, in a bounded line."""
    said = " ".join(str(error).split())
    return said if len(said) < _MOST_SAID else f"{said[:_MOST_SAID]} …"


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    """ONNX Runtime's execution providers for a device, the preferred one first."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    number = re.fullmatch(r"cuda(?::(\d+))?", device)
    if not number:
        raise InputError(f'device must be "cpu", "cuda" or "cuda:N", not {device!r}.')
    if "CUDAExecutionProvider" not in available:
        raise InputError(
            f"device={device!r} needs a CUDA build of ONNX Runtime; this one has {', '.join(available)}. Install "
            'onnxruntime-gpu in place of onnxruntime, export with to_torchscript, or use device="cpu".'
        )
    # TF32 keeps 10 bits of a product's factors: too few for the parity that is promised.
    return [("CUDAExecutionProvider", {"device_id": number[1] or "0", "use_tf32": "0"}), "CPUExecutionProvider"]


def first_states(states: Sequence[Array], draws: int, rows: int) -> Inputs:
    """The zeros [S, B, H] that a stream begins with."""
    return tuple(np.zeros((draws, rows, state.shape[2] or 0), dtype=np.float32) for state in states)
