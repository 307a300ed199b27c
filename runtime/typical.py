"""Inputs as a network may see them, for proofs and benchmarks: drawn around the training part's mean and spread."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contract import Array, Card, Scaling

STEPS = 16  # of a sequence whose length nothing tells


def typical_inputs(card: Card, rows: int) -> tuple[NDArray[Any], ...]:
    """An array [rows, …] in raw units for each input of an artifact; the same ones for the same card."""
    window = card.training.get("window")
    return tuple(
        typical_input(array, card.scaling if k == 0 else Scaling(), rows, window) for k, array in enumerate(card.inputs)
    )


def typical_input(array: Array, scaling: Scaling, rows: int, window: int | None = None) -> NDArray[Any]:
    """[rows, …]: float32 around the scaling's mean and spread, int64 tokens, or bool. `window` is for free axes."""
    sizes = [size or window or STEPS for size in array.shape]
    if not array.shared:
        sizes[0] = rows
    generator = np.random.default_rng(0)
    if array.dtype == "bool":  # each row has both: a mask of one of them alone may leave nothing
        return np.asarray(np.indices(sizes).sum(axis=0) % 2 == 0)
    limits = array.limit if isinstance(array.limit, tuple) else (array.limit,)
    if array.dtype == "int64":
        return generator.integers(0, [limit or 2 for limit in limits], sizes)
    x = generator.standard_normal(sizes) * scaling.input_scale + scaling.input_mean
    x = (1 + x if scaling.values == "returns" else x).astype(np.float32)  # returns are of values around 1
    for column, limit in enumerate(limits):
        if limit is not None:
            part = x.reshape(-1, len(limits))[:, column]  # a view of x
            part[:] = generator.integers(0, limit, part.shape)
    return x
