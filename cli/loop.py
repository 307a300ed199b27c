"""An interval as BLiTZ's users get one: a forward pass per draw, then the statistics."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import Intervals
from ..export.arguments import plain_constants
from ..export.modes import evaluating
from ..export.montecarlo import Plan
from ..export.posterior import posterior_sha256
from ..export.recognition import read_posteriors
from ..export.reference import Reference, generator_epsilon, one_thread
from ..export.subject import examine
from ..export.writer import as_forward_takes
from ..runtime.contract import Card
from ..runtime.errors import InputError
from ..runtime.intervals import summarise
from ..runtime.typical import typical_inputs

Inputs = NDArray[Any] | tuple[NDArray[Any], ...]


class BlitzLoop:
    """BLiTZ's own network, called like an artifact that was made from it.

    Raises InputError for a network that the artifact was not made from, whose `name` the message says.
    """

    def __init__(self, network: nn.Module, card: Card, name: str = "this") -> None:
        self._network = network
        self.card = card
        self._names, self._horizon = card.output.names, card.horizon
        posteriors = read_posteriors(network, "plain", card.storage)
        if posterior_sha256(posteriors.values()) != card.posterior_sha256:
            raise InputError(f"{name} is not the network that the artifacts were made from.")

    @cache  # noqa: B019 - a loop lives as long as its command
    def _reference(self, local: bool) -> Reference:
        card = self.card
        names = tuple(array.name for array in card.outputs)
        plan = Plan(card.scaling, local, outputs=names, noise=card.noise, storage=card.storage, horizon=card.horizon)
        example = as_forward_takes(self._network, card, typical_inputs(card, 32))
        shared = [array.name for array in card.inputs if array.shared]
        constants = plain_constants(card)
        subject = examine(self._network, example, plan, card.task, "plain", constants=constants, shared_inputs=shared)
        return subject.reference

    def __call__(self, x: Inputs, draws: int, level: float | tuple[float, ...] = 0.95) -> Intervals:
        """Intervals for x [B, …] in raw units, several inputs a tuple, from `draws` forward passes without noise."""
        with torch.no_grad(), one_thread():
            samples = self.samples(x, draws)
        return summarise(samples, level, np.arange(draws, dtype=np.int64), 0, self._names)

    def samples(self, x: Inputs, draws: int, forward: Callable[[Tensor], Tensor] | None = None) -> NDArray[np.float32]:
        """BLiTZ's samples [S, B, …] in raw units; `forward` stands for the network's pass, where that was compiled."""
        inputs, reference = _tensors(x), self.reference
        if self._horizon > 1 or len(inputs) > 1 or not reference.plan.arguments.alone:
            return next(iter(reference.free(inputs, draws, seed=0).values())).astype(np.float32)
        rows = inputs[0]
        scaled, once = reference.scaled(rows), reference.network if forward is None else forward
        with evaluating(reference.network):
            outputs = np.stack([once(scaled).numpy() for _ in range(draws)])
        return reference.in_raw_units(outputs.astype(np.float64), rows).astype(np.float32)

    @property
    def reference(self) -> Reference:
        """The network as its users call it, with its posteriors and its scaling."""
        return self._reference(local=False)

    def given(
        self, x: Inputs, draws: NDArray[np.int64], seed: int, local: bool = False, float32: bool = False
    ) -> NDArray[np.float64]:
        """BLiTZ's samples [S, B, …] in raw units with the generator's ε put in, as weights or as local ones.

        Computed in float64 where the network's forward can, unless in `float32`.
        """
        precision = torch.float32 if float32 else None
        samples = self._reference(local).given(
            _tensors(x), draws.tolist(), generator_epsilon(seed), precision=precision
        )
        return next(iter(samples.values()))


def _tensors(x: Inputs) -> list[Tensor]:
    return [torch.from_numpy(part) for part in (x if isinstance(x, tuple) else (x,))]
