"""The compiled code of compiled/, where it was built, and only if it computes what it should.

It may have been built with flags that change results, from other sources, or for another machine. So it has to pass a
test of some microseconds before it is used.
"""

import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS, SEED, STREAM = (7, 2**31 + 5), 2**40 + 3, 5
WEIGHTS = 0x8848F934
"""CRC-32 of the weights that the generator must draw in `_weights`: tests/test_native.py computes it in numpy."""


def opened() -> Any:
    """The compiled module, or None where there is none or a wrong one, the latter with a warning."""
    try:
        from . import _compiled
    except ImportError:  # it was installed where no C compiler is
        _warn_of_a_shadow()
        return None
    if fault := found_fault(_compiled):
        warnings.warn(
            f"The compiled code {_compiled.__file__} is not used, since it {fault}; ONNX Runtime does its work, "
            "several times slower. Install murho anew, without CFLAGS of your own.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return _compiled


def found_fault(module: Any) -> str:
    """What is wrong with a compiled module, "" where nothing is."""
    try:
        if zlib.crc32(_weights(module).tobytes()) != WEIGHTS:
            return "draws other weights than it should"
        got, wanted = _lstm(module)
        if not np.allclose(got, wanted, rtol=0, atol=1e-5):  # float32 against float64: some 1e-6; NaN is not close
            return "computes LSTMs wrongly"
    except Exception as error:  # of other sources than murho's Python code: its functions take something else
        return f"does not fit this murho ({error})"
    return ""


def _weights(module: Any) -> NDArray[np.float32]:
    """Weights of 2 draws, enough for every rounding that flags can change; two are smaller than a normal float32."""
    n = 130
    mu, sigma = np.arange(n, dtype=np.float32) / 64 - 1, np.arange(1, n + 1, dtype=np.float32) / 64
    mu[:2], sigma[:2] = 1e-40, 1e-42
    out = np.empty((len(DRAWS), n), np.float32)
    module.draw(np.array(DRAWS, np.int64), SEED, STREAM, mu, sigma, out)
    return out


def _lstm(module: Any) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The last h and c of an LSTM of 1 input and 2 hidden units after 2 steps: computed by it, and in float64."""
    weight = np.linspace(-3, 3, 3 * 8 * 4, dtype=np.float32).reshape(3, 8, 4)
    weight[1] *= 100  # gates beyond all that exp can hold
    x = np.array([[[0.5], [-2.0]]], np.float32)
    h, c = np.array([[0.25, -0.5]], np.float32), np.array([[1.0, -0.125]], np.float32)
    got = np.empty((2, 3, 2), np.float32)
    module.lstm((3, 1, 2, 1, 2), x, h, c, weight, False, np.empty(0, np.float32), *got)
    states, cells = np.repeat(h, 3, axis=0).astype(np.float64), np.repeat(c, 3, axis=0).astype(np.float64)
    for value in x[0, :, 0]:
        column = np.column_stack([np.full(3, value), states, np.ones(3)])
        i, f, g, o = np.einsum("sgk,sk->sg", weight.astype(np.float64), column).reshape(3, 4, 2).transpose(1, 0, 2)
        cells = _sigmoid(f) * cells + _sigmoid(i) * np.tanh(g)
        states = _sigmoid(o) * np.tanh(cells)
    return got, np.stack([states, cells])


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 + 0.5 * np.tanh(x / 2)


def _warn_of_a_shadow() -> None:
    """A folder murho, a clone, hides the installed package from processes that start beside it."""
    from importlib import metadata

    here = Path(__file__).resolve().parents[1]
    try:
        files = metadata.files("murho") or ()
    except metadata.PackageNotFoundError:
        return
    built = [file for file in files if file.match("runtime/_compiled.*") and file.suffix != ".pyi"]
    if built and (installed := Path(str(built[0].locate())).resolve().parents[1]) != here:
        warnings.warn(
            f"murho is imported from the folder {here}, which hides the installed package {installed} and lacks its "
            "compiled code: answers are the same to rounding, and several times slower. Start Python elsewhere, or "
            f"install the folder: pip install -e {here}",
            RuntimeWarning,
            stacklevel=3,
        )
