"""Which inputs, or which of their columns, hold tokens or categories: the rows of the embeddings that look them up.

An embedding may read an input whole, some of its columns, or a column that was a float; each shifted by a constant,
perhaps. What is found equal on the example is tried on other values, so that no chance decides.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from blitz.modules import BayesianEmbedding
from torch import Tensor, nn

from .posterior import Posterior
from .signature import Input, Limit

PROBES = 32
"""Rows of the other values."""


@dataclass(frozen=True)
class Read:
    """What an embedding of so many rows was given."""

    rows: int
    index: Tensor


@dataclass(frozen=True)
class Columns:
    """Columns of an input that an embedding reads, next to each other, and what is added to each."""

    input: int
    first: int
    shifts: tuple[int, ...]
    whole: bool
    """Whether it reads all of the input in one way, as tokens are read."""


def find_limits(
    network: nn.Module,
    posteriors: dict[str, Posterior],
    signature: Sequence[Input],
    run: Callable[[Sequence[Tensor]], object],
) -> list[Limit]:
    """For each input: how many different tokens it may hold, for each column perhaps; None where nothing tells.

    `run` calls the network on inputs; what it raises for the example, it raises here.
    """
    readers: dict[nn.Module, int]
    readers = {module: module.num_embeddings for module in network.modules() if isinstance(module, nn.Embedding)}
    bayesian = [posterior for posterior in posteriors.values() if posterior.kind.cls is BayesianEmbedding]
    readers |= {posterior.module: posterior.shapes["weight"][0] for posterior in bayesian}
    if not readers:
        return [None for _ in signature]
    inputs = [one.example for one in signature]
    with _recorded(readers) as reads:
        run(inputs)
    found = {k: list(_columns(read, inputs)) for k, read in enumerate(reads)}
    if any(found.values()):
        other = _other_values(signature, reads, found)
        try:
            with _recorded(readers) as again:
                run(other)
        except Exception:  # whatever the user's forward raises: the first run has to do
            again = []
        if len(again) == len(reads):
            found = {k: [one for one in _columns(read, other) if one in found[k]] for k, read in enumerate(again)}
    limits: list[dict[int, int]] = [{} for _ in signature]
    whole = [False for _ in signature]
    for k, places in found.items():
        for place in places:
            whole[place.input] = whole[place.input] or place.whole
            for column, shift in enumerate(place.shifts, place.first):
                most = reads[k].rows - shift
                limits[place.input][column] = min(most, limits[place.input].get(column, most))
    return [_limit(*parts) for parts in zip(signature, limits, whole, strict=True)]


def _limit(one: Input, limits: dict[int, int], whole: bool) -> Limit:
    several = tuple(limits.get(column) for column in range(_width(one.example)))
    if whole and not one.is_float:
        return min(limits.values())
    return several if limits else None


def _width(x: Tensor) -> int:
    return x.shape[-1] if x.dim() > 1 else 1


def _columns(read: Read, inputs: Sequence[Tensor]) -> Iterator[Columns]:
    """The columns that what an embedding was given are equal to, but for a constant added to each."""
    for k, x in enumerate(inputs):
        width = _width(x)
        rows = x.reshape(-1, width).long() if x.dtype != torch.bool else x.new_zeros(0, width)
        if not len(rows) or read.index.numel() % len(rows):
            continue
        some = read.index.numel() // len(rows)
        index = read.index.reshape(-1, some) if some else read.index
        for first in range(width - some + 1 if some else 0):
            off = index - rows[:, first : first + some]
            if bool((off == off[:1]).all()) and bool((read.rows - off[0] > 0).all()):
                shifts = tuple(off[0].tolist())
                whole = len(set(shifts)) == 1 and len(shifts) == width and (width > 1 or read.index.shape == x.shape)
                yield Columns(k, first, shifts, whole)


def _other_values(signature: Sequence[Input], reads: Sequence[Read], found: dict[int, list[Columns]]) -> list[Tensor]:
    """More rows than the example's, in which the columns that were found hold other categories, each its own."""
    inputs = [one.rows(PROBES).clone() for one in signature]
    random = torch.Generator().manual_seed(0)
    ends: dict[tuple[int, int], tuple[int, int]] = {}
    for k, places in found.items():
        for place in places:
            for column, shift in enumerate(place.shifts, place.first):
                least, most = ends.get((place.input, column), (0, reads[k].rows - shift))
                ends[place.input, column] = max(least, -shift), min(most, reads[k].rows - shift)
    for (k, column), (least, most) in ends.items():
        x = inputs[k].reshape(-1, _width(inputs[k]))
        x[:, column] = torch.randint(least, max(most, least + 1), (len(x),), generator=random).to(x.dtype)
        inputs[k] = x.reshape(inputs[k].shape)
    return inputs


@contextmanager
def _recorded(readers: dict[nn.Module, int]) -> Iterator[list[Read]]:
    reads: list[Read] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs:  # by its place, as is usual
            reads.append(Read(readers[module], inputs[0].detach().cpu().long().clone()))

    handles = [module.register_forward_pre_hook(note) for module in readers]
    try:
        yield reads
    finally:
        for handle in handles:
            handle.remove()
