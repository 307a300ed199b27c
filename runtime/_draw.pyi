"""Weights drawn by compiled code; made from draw.c."""

import numpy as np
from numpy.typing import NDArray

def draw(
    draws: NDArray[np.int64],
    seed: int,
    stream: int,
    mu: NDArray[np.float32],
    sigma: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Fill `out` [S, n] with the weights μ + σ ⊙ ε of draws [S], for μ and σ [n]. Arrays are contiguous."""
