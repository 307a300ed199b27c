"""The proof's test that the streams of an artifact, its sites' and the observation noise's, are independent.

That the file draws the numbers which are tested here follows from the comparison with BLiTZ at equal noise.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..runtime.contract import NOISE_STREAM
from ..runtime.errors import ExportError
from .generator import normals

DRAWS, ELEMENTS, AT_ONCE = 512, 256, 64
PAIRS = DRAWS * ELEMENTS // 4
"""Numbers of a lane, by which two lanes are compared."""
BOUND = 7 / math.sqrt(PAIRS)
"""Seven standard errors of a correlation of zero: among a million correlations one is beyond with a chance of 3e-6."""
GROUP = 64
"""Sites that are compared with each other; each site is compared with the noise."""


def check_streams(sites: int, noise: bool, seed: int) -> dict[str, Any]:
    """Compare the streams of `sites` sites, and of observation noise if there is `noise`; return the report.

    Numbers are paired by draw and word, lane by lane, as the generator makes them, since what two streams have in
    common they have there. Compared are the numbers and their squares: streams that share the radius of a lane, and
    not its angle, are uncorrelated, and their squares are not. Raises ExportError where a correlation is beyond chance.
    """
    largest = 0.0
    for first in range(0, sites, GROUP):
        streams = [*range(first, min(first + GROUP, sites)), *([NOISE_STREAM] if noise else [])]
        found, pair = _largest_correlation(streams, seed)
        largest = max(largest, found)
        if found > BOUND:
            one, other = ("observation noise" if stream == NOISE_STREAM else f"site {stream}" for stream in pair)
            raise ExportError(
                f"The numbers of {one} and {other} are not independent: they, or their squares, correlate by "
                f"{found:.3f} (allowed: {BOUND:.3f}), so that intervals would be wrong. "
                "No network causes that: this copy of murho is not what was released. Install it again."
            )
    return {"streams": sites + noise, "largest_correlation": largest, "bound": BOUND}


def _largest_correlation(streams: Sequence[int], seed: int) -> tuple[float, tuple[int, int]]:
    """The largest correlation of two streams, and which they are."""
    size = 8 * len(streams)
    products = np.zeros((size, size))
    for first in range(0, DRAWS, AT_ONCE):
        draws = np.arange(first, first + AT_ONCE, dtype=np.int64)
        values = np.concatenate([_lanes(normals(draws, seed, stream, ELEMENTS)) for stream in streams])
        tensor = torch.from_numpy(values)  # numpy's product has threads of its own, which wait for busy cores
        products += (tensor @ tensor.T).numpy()
    between = np.abs(products / PAIRS).reshape(len(streams), 8, len(streams), 8).max(axis=(1, 3))
    np.fill_diagonal(between, 0)
    one, other = sorted(np.unravel_index(between.argmax(), between.shape))
    return float(between[one, other]), (streams[one], streams[other])


def _lanes(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The four lanes of numbers [S, n], and their squares, all with mean 0 and variance 1: [8, S · n / 4]."""
    lanes = numbers.reshape(len(numbers), 4, -1).transpose(1, 0, 2).reshape(4, -1)
    return np.concatenate([lanes, (lanes**2 - 1) / math.sqrt(2)])
