"""What is faster in C; made from the files in compiled/. Arrays are contiguous."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

def draw(draws: NDArray[np.int64], seed: int, stream: int, mu: Floats, sigma: Floats, out: Floats) -> None:
    """Fill `out` [S, n] with the weights μ + σ ⊙ ε of draws [S], for μ and σ [n]."""

def lstm(
    sizes: tuple[int, int, int, int, int],
    x: Floats,
    h: Floats,
    c: Floats,
    weight: Floats,
    inputs_first: bool,
    sequence: Floats,
    h_last: Floats,
    c_last: Floats,
) -> None:
    """Evaluate an LSTM for `sizes` S draws, B rows, T steps, F inputs, H hidden units.

    x [S, B, T, F] or [B, T, F]; first states h, c [S, B, H] or [B, H]; weight [S, 4H, F + H + 1], gates i, f, g, o of
    (x, h, 1), or with `inputs_first` [S, F + H + 1, 4H]. Fills `h_last`, `c_last` [S, B, H], and `sequence`
    [S, B, T, H] unless it is empty.
    """
