"""The compiled module, built with the address and undefined-behaviour sanitizers, called with sizes that lie."""

import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import SkipTest

import numpy as np

ABOUT = (
    "murho.runtime._compiled under the address and undefined-behaviour sanitizers: sizes, types and arrays that lie."
)
ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted((ROOT / "runtime" / "compiled").glob("*.[ch]"))
FLAGS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fPIC", "-shared")
SIZES = (0, 1, 2, 3, 5, 8, 9, 17)
LIES = (-1, 0, 1, 2, 2**31, 2**32 + 1, 2**61, 2**62, 2**62 + 1, 2**63 - 1, -(2**62), -(2**63))
REFUSED = (ValueError, TypeError, OverflowError, MemoryError, BufferError)


def environment() -> dict[str, str]:
    """The sanitizer's library comes before all others."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise SkipTest("there is no gcc")
    library = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    path = library.stdout.strip()
    if not os.path.isabs(path):
        raise SkipTest("gcc has no address sanitizer here")
    return {
        "LD_PRELOAD": os.path.realpath(path),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OPENBLAS_NUM_THREADS": "1",
    }


@functools.cache
def module() -> ModuleType:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]
    built = ROOT / "build" / "fuzz" / digest / "_compiled.abi3.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        temporary = built.with_suffix(f".{os.getpid()}")
        command = [
            "gcc",
            *FLAGS,
            f"-I{sysconfig.get_paths()['include']}",
            *(str(p) for p in SOURCES if p.suffix == ".c"),
        ]
        clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        done = subprocess.run([*command, "-o", temporary], env=clean, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SkipTest(f"gcc cannot build the module: {done.stderr[:500]}")
        temporary.rename(built)
    loader = importlib.machinery.ExtensionFileLoader("murho.runtime._compiled", str(built))
    spec = importlib.util.spec_from_file_location(loader.name, built, loader=loader)
    assert spec
    found = importlib.util.module_from_spec(spec)
    loader.exec_module(found)
    return found


def trial(random: np.random.Generator) -> str:
    return draw(random) if random.random() < 0.4 else lstm(random)


def draw(random: np.random.Generator) -> str:
    count, n = (int(random.choice((0, 1, 2, 3, 5, 16, 130, 517))) for _ in range(2))
    draws = random.integers(-(2**63), 2**63, count, dtype=np.int64, endpoint=False)
    mu, sigma = random.standard_normal(n, np.float32), random.random(n, np.float32)
    out = np.full((count, n), np.nan, np.float32)
    seed, stream = int(random.integers(-(2**63), 2**63)), int(random.integers(2**32))
    if lying := random.random() < 0.5:
        which = random.integers(5)
        if which == 4:
            stream = int(random.choice(np.array(LIES, dtype=object)))
        else:
            arrays = [draws, mu, sigma, out]
            arrays[which] = damaged(arrays[which], random)
            draws, mu, sigma, out = arrays
    try:
        module().draw(draws, seed, stream, mu, sigma, out)
    except REFUSED:
        assert lying, "a right call was refused"
        return "draw refused"
    if lying:
        return "draw accepted, changed"
    noise = np.empty_like(out)
    module().draw(draws, seed, stream, np.zeros_like(mu), np.ones_like(sigma), noise)
    assert np.isfinite(out).all(), "what was drawn is not finite"
    assert (np.abs(noise) < 6).all(), "a normal beyond what 24 bits give"
    want = mu.astype(np.float64) + sigma.astype(np.float64) * noise
    np.testing.assert_allclose(out.astype(np.float64).reshape(want.shape), want, rtol=1e-5, atol=1e-6)
    return "draw accepted"


def lstm(random: np.random.Generator) -> str:
    draws, rows, steps = (int(size) for size in random.choice(SIZES, 3))
    inputs, hidden = (int(size) for size in random.choice(SIZES[1:], 2))
    shared, state_shared, first, whole = (bool(random.integers(2)) for _ in range(4))
    x = random.standard_normal((rows, steps, inputs) if shared else (draws, rows, steps, inputs), np.float32)
    shape = (rows, hidden) if state_shared else (draws, rows, hidden)
    h, c = (random.standard_normal(shape, np.float32) for _ in range(2))
    weight = random.standard_normal((draws, 4 * hidden, inputs + hidden + 1), np.float32)
    given = np.ascontiguousarray(weight.transpose(0, 2, 1)) if first else weight
    sequence = np.full((draws, rows, steps, hidden) if whole else 0, np.nan, np.float32)
    ends = [np.full((draws, rows, hidden), np.nan, np.float32) for _ in range(2)]
    sizes: list[Any] = [draws, rows, steps, inputs, hidden]
    arrays = [x, h, c, given, sequence, *ends]
    if lying := random.random() < 0.6:
        for _ in range(random.integers(1, 4)):
            if random.random() < 0.6:
                sizes[random.integers(5)] = LIES[random.integers(len(LIES))]
            else:
                which = random.integers(len(arrays))
                arrays[which] = damaged(arrays[which], random)
    try:
        module().lstm(tuple(sizes), *arrays[:4], first, *arrays[4:])
    except REFUSED:
        assert lying, "a right call was refused"
        return "lstm refused"
    if lying:
        return "lstm accepted, changed"
    states = [np.broadcast_to(state, (draws, rows, hidden)).astype(np.float64) for state in (h, c)]
    want, last = reference(np.broadcast_to(x, (draws, rows, steps, inputs)).astype(np.float64), *states, weight)
    close = {"rtol": 1e-4, "atol": 1e-4}
    for found, expected in zip(ends, last, strict=True):
        np.testing.assert_allclose(found, expected, **close)
    if whole:
        np.testing.assert_allclose(sequence, want, **close)
    return "lstm accepted"


def reference(x: Any, h: Any, c: Any, weight: Any) -> tuple[Any, tuple[Any, Any]]:
    """The sequence [S, B, T, H] and the last states, in float64."""
    hidden, found = h.shape[-1], []
    for step in range(x.shape[2]):
        column = np.concatenate([x[:, :, step], h, np.ones((*h.shape[:2], 1))], axis=-1)
        gates = np.einsum("sgk,sbk->sbg", weight.astype(np.float64), column)
        i, f, g, o = (gates[..., k * hidden : (k + 1) * hidden] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        found.append(h)
    return np.stack(found, axis=2) if found else np.empty((*h.shape[:2], 0, hidden)), (h, c)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def damaged(array: Any, random: np.random.Generator) -> Any:
    """An array that is shorter, longer, of another type, not contiguous, not aligned, not writable, or none at all."""
    if not isinstance(array, np.ndarray):
        return array
    match random.integers(8):
        case 0:
            return array.reshape(-1)[: int(random.integers(array.size + 1))]
        case 1:
            return np.resize(array, array.size + int(random.integers(1, 20)))
        case 2:
            return array.astype(random.choice(["f8", "i4", "u8", "f2", "i1", ">f4", ">i8", "c8"]))
        case 3:
            return np.repeat(array.reshape(-1), 2)[::2]
        case 4:
            raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
            return raw.view(array.dtype)
        case 5:
            array = array.copy()
            array.flags.writeable = False
            return array
        case 6:
            return array.tobytes()
        case _:
            return None
