"""The generator pcg4d-boxmuller-1, whose streams are not independent, to show that such a one is noticed."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike

ARTIFACT = Path(__file__).parent / "paths.onnx"


def words(x: ArrayLike, y: ArrayLike, z: ArrayLike, w: ArrayLike) -> np.ndarray:
    """The four words uint32 [4, …] of counters: element, draw, stream xor the seed's upper half, its lower half."""
    with np.errstate(over="ignore"):
        x, y, z, w = (np.asarray(v, np.uint32) * np.uint32(1664525) + np.uint32(1013904223) for v in (x, y, z, w))
        for first in (True, False):
            x = x + y * w
            y = y + z * x
            z = z + x * y
            w = w + y * z
            if first:
                x, y, z, w = (v ^ (v >> np.uint32(16)) for v in (x, y, z, w))
    return np.stack([x, y, z, w])


def normals(draws: ArrayLike, seed: int, stream: int, n: int) -> np.ndarray:
    """Standard normals [S, n]."""
    quarter = -(-n // 4)
    key = (stream ^ (seed >> 32)) & 0xFFFFFFFF, seed & 0xFFFFFFFF
    column = (np.asarray(draws, np.int64) % 2**32).reshape(-1, 1)
    found = words(np.arange(quarter)[np.newaxis], column, np.full((1, 1), key[0]), np.full((1, 1), key[1]))
    u = ((found >> np.uint32(8)).astype(np.float32) * np.float32(2**-24) + np.float32(2**-25)).astype(np.float64)
    near, far = np.sqrt(-2 * np.log(u[0])), np.sqrt(-2 * np.log(u[2]))
    one, other = 2 * np.pi * u[1], 2 * np.pi * u[3]
    lanes = [near * np.cos(one), near * np.sin(one), far * np.cos(other), far * np.sin(other)]
    return np.concatenate(lanes, axis=1)[:, :n]


def function() -> onnx.FunctionProto:
    """Its ONNX form, from an artifact of its time."""
    (found,) = [f for f in onnx.load(ARTIFACT).functions if f.name == "Normals"]
    return found
