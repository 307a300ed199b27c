"""An interval as BLiTZ's users get one: a forward pass per draw, then the statistics."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import Intervals
from ..export.posterior import posterior_sha256
from ..export.reference import generator_noise, given_samples
from ..export.subject import examine
from ..runtime.contract import Card
from ..runtime.errors import InputError
from ..runtime.intervals import summarise
from ..train import load_checkpoint
from .tasks import example_inputs


class BlitzLoop:
    """BLiTZ's own network from a checkpoint, called like an artifact."""

    def __init__(self, checkpoint: Path, card: Card) -> None:
        loaded = load_checkpoint(checkpoint)
        self._network = loaded.network()
        self._subject = examine(self._network, example_inputs(loaded), loaded.scaling)
        if posterior_sha256(list(self._subject.posteriors.values())) != card.posterior_sha256:
            raise InputError(f"{checkpoint} is not the network that the artifacts were made from.")

    def __call__(self, x: NDArray[np.float32], draws: int, level: float | tuple[float, ...] = 0.95) -> Intervals:
        """Intervals for x [B, …] in raw units, from `draws` forward passes."""
        rows = torch.from_numpy(x)
        with torch.no_grad(), _one_thread():
            scaled = self._subject.scaled(rows)
            outputs = np.stack([self._network(scaled).numpy() for _ in range(draws)])
        samples = self._subject.raw(outputs, rows).astype(np.float32)
        return summarise(samples, level, np.arange(draws), 0)

    def given(self, x: NDArray[np.float32], draws: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        """BLiTZ's samples [S, B, …] in raw units with the generator's ε put in."""
        rows = torch.from_numpy(x)
        subject = self._subject
        outputs = given_samples(
            self._network, subject.posteriors, subject.scaled(rows), draws.tolist(), generator_noise(seed)
        )
        return subject.raw(outputs, rows)


@contextmanager
def _one_thread() -> Iterator[Any]:
    """torch on one thread: BLiTZ's operations are too small to share, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
