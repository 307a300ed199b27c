"""An interval as BLiTZ's users get one: a forward pass per draw, then the statistics."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import Intervals
from ..export.montecarlo import Plan
from ..export.posterior import posterior_sha256
from ..export.reference import Reference, generator_epsilon, one_thread
from ..export.subject import examine
from ..runtime.contract import Card
from ..runtime.errors import InputError
from ..runtime.intervals import summarise
from ..train import load_checkpoint
from .tasks import example_inputs


class BlitzLoop:
    """BLiTZ's own network from a checkpoint, called like an artifact."""

    def __init__(self, checkpoint: Path, card: Card) -> None:
        self._checkpoint = load_checkpoint(checkpoint)
        self._network = self._checkpoint.network()
        self.card = card
        self._names, self._horizon, self._storage = card.output.names, card.horizon, card.storage
        posteriors = self.reference.posteriors
        if posterior_sha256(posteriors.values()) != card.posterior_sha256:
            raise InputError(f"{checkpoint} is not the network that the artifacts were made from.")

    @cache  # noqa: B019 - a loop lives as long as its command
    def _reference(self, local: bool) -> Reference:
        loaded = self._checkpoint
        plan = Plan(loaded.scaling, local, noise=loaded.noise, storage=self._storage, horizon=self._horizon)
        return examine(self._network, example_inputs(loaded), plan, loaded.task).reference

    def __call__(self, x: NDArray[np.float32], draws: int, level: float | tuple[float, ...] = 0.95) -> Intervals:
        """Intervals for x [B, …] in raw units, from `draws` forward passes, without observation noise."""
        with torch.no_grad(), one_thread():
            samples = self.samples(x, draws)
        return summarise(samples, level, np.arange(draws), 0, self._names)

    def samples(
        self, x: NDArray[np.float32], draws: int, forward: Callable[[Tensor], Tensor] | None = None
    ) -> NDArray[np.float32]:
        """BLiTZ's samples [S, B, …] in raw units; `forward` stands for the network's pass, where that was compiled."""
        rows, reference = torch.from_numpy(x), self.reference
        if self._horizon > 1:
            return next(iter(reference.free([rows], draws, seed=0).values())).astype(np.float32)
        scaled, once = reference.scaled(rows), reference.network if forward is None else forward
        outputs = np.stack([once(scaled).numpy() for _ in range(draws)])
        return reference.in_raw_units(outputs.astype(np.float64), rows).astype(np.float32)

    @property
    def reference(self) -> Reference:
        """The network as its users call it, with its posteriors and its scaling."""
        return self._reference(local=False)

    def given(
        self, x: NDArray[np.float32], draws: NDArray[np.int64], seed: int, local: bool = False
    ) -> NDArray[np.float64]:
        """BLiTZ's samples [S, B, …] in raw units with the generator's ε put in, as weights or as local ones."""
        samples = self._reference(local).given([torch.from_numpy(x)], draws.tolist(), generator_epsilon(seed))
        return next(iter(samples.values()))
