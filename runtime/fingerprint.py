"""A sample of the rows that a network was trained on, by their hashes: enough to recognise them in other data."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 256
"""Of N training rows any M others that are among them are missed with a chance of about (1 - M/N)^256."""


def fingerprint(x: NDArray[Any], rows: int = ROWS) -> list[str]:
    """Hashes of the rows of x [N, …] in raw units, float32: the `rows` smallest ones, which are a random sample."""
    contiguous = np.ascontiguousarray(x)
    return sorted({hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in contiguous})[:rows]
