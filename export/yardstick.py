"""How far a file's samples may be from the truth: BLiTZ's forward in float64, measured by what BLiTZ's float32 is off.

Allowed is 1e-5 of the largest value, or MULTIPLE times what BLiTZ's own float32 is off on the same inputs and noise,
whichever is larger. Where the multiple comes from stands in docs/design.md, "The yardstick".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.compare import MULTIPLE, NETWORK_UNITS, TOLERANCE, Units, largest_value, raw_units, relative_error
from .reference import Epsilon, Samples, generator_epsilon
from .subject import Subject

SEED = 20240229
MOST_PASSES = 8
"""Of BLiTZ's float32 over the cases: one as it is, more with other roundings where that does not explain an error."""
MOST_KEPT = 2**24  # bytes of ε, of each case, that a second pass need not make again
LARGE = 10**6
"""Weights of a draw, from which on a case has few draws, of which float32 at first takes FEW: each takes its time."""
FEW = 2


def units_of(subject: Subject, x: NDArray[Any]) -> list[Units]:
    """Of each output, for first inputs x: the scaling is the first one's."""
    return [raw_units(subject.plan.scaling, x), *[NETWORK_UNITS] * (len(subject.plan.outputs) - 1)]


def names_of(draws: int) -> NDArray[np.int64]:
    return np.arange(7, 7 + draws, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Case:
    """Inputs of one shape, and the truth for them."""

    draws: int
    rows: int
    lengths: Mapping[str, int]
    """Of free axes."""
    inputs: tuple[Tensor, ...]
    want: Samples
    units: dict[str, Units]
    epsilon: Epsilon


def case_of(subject: Subject, draws: int, rows: int, lengths: Mapping[str, int]) -> Case:
    inputs, epsilon = subject.inputs(rows, lengths), remembered(generator_epsilon(SEED))
    want = subject.reference.given(inputs, names_of(draws), epsilon)
    units = dict(zip(want, units_of(subject, inputs[0].numpy()), strict=True))
    return Case(draws, rows, lengths, inputs, want, units, epsilon)


class Yardstick:
    """The cases that a file is held against, and what may be between it and them."""

    def __init__(self, subject: Subject, shapes: Sequence[tuple[int, int, Mapping[str, int]]]) -> None:
        self.reference = subject.reference
        self._large = sum(subject.site_sizes) > LARGE
        self.cases = [case_of(subject, *shape) for shape in shapes]
        self.largest = {  # over all cases: a few values alone may nearly cancel
            name: max(largest_value(case.want[name], *case.units[name]) for case in self.cases)
            for name in subject.plan.outputs
        }
        self.passes = 0
        self._off = [dict.fromkeys(subject.plan.outputs, 0.0) for _ in self.cases]
        if subject.plan.precise:
            self.refine()

    @property
    def float32_error(self) -> float | None:
        """What BLiTZ's float32 is off, at most, of the largest value; None where that is the truth."""
        return max(value for off in self._off for value in off.values()) if self.reference.plan.precise else None

    def tolerance(self, name: str, lengths: Mapping[str, int] | None = None, forms: int = 1) -> float:
        """What may be between an output's samples and the truth, or between those of two float32 forms of ours.

        By the cases that are no longer than `lengths`, or by all: errors grow along a sequence.
        """
        known = zip(self.cases, self._off, strict=True)
        off = max(off[name] for case, off in known if lengths is None or _no_longer(case.lengths, lengths))
        return max(TOLERANCE, forms * MULTIPLE * off)

    def loose(self, name: str) -> bool:
        """Whether more than 1e-5 is allowed."""
        return self.tolerance(name) > TOLERANCE

    def refine(self) -> bool:
        """Run BLiTZ's float32 over the cases, from the second time on with other roundings; False when it is done."""
        if not self.reference.plan.precise or self.passes == MOST_PASSES:
            return False
        for number, (case, off) in enumerate(zip(self.cases, self._off, strict=True)):
            epsilon = nudged(case.epsilon, (self.passes, number)) if self.passes else case.epsilon
            draws = FEW if self._large and not self.passes else case.draws
            got = self.reference.given(case.inputs, names_of(draws), epsilon, precision=torch.float32)
            for name, want in case.want.items():
                error, _ = relative_error(got[name], want[:draws], *case.units[name], self.largest[name])
                off[name] = max(off[name], error)
        self.passes += 1
        return True

    def compare(
        self,
        name: str,
        got: NDArray[Any],
        want: NDArray[Any],
        units: Units,
        lengths: Mapping[str, int] | None = None,
        largest: float | None = None,
        forms: int = 1,
    ) -> tuple[float, float]:
        """(error, allowed) of an output's samples; `forms` says how many of the two are float32 forms of ours."""
        while True:
            tolerance = self.tolerance(name, lengths, forms)
            error, allowed = relative_error(got, want, *units, largest, tolerance=tolerance)
            if error <= allowed or not self.refine():
                return error, allowed


def _no_longer(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return all(length <= other.get(name, length) for name, length in one.items())


def remembered(epsilon: Epsilon, most: int = MOST_KEPT) -> Epsilon:
    """The same ε, kept for the next pass up to so many bytes."""
    kept: dict[tuple[int, int, int], NDArray[np.floating[Any]]] = {}
    left = most

    def recalled(draw: int, stream: int, n: int) -> NDArray[np.floating[Any]]:
        nonlocal left
        values = kept.get((draw, stream, n))
        if values is None:
            values = epsilon(draw, stream, n)
            if values.nbytes <= left:
                kept[draw, stream, n], left = values, left - values.nbytes
        return values

    return recalled


def nudged(epsilon: Epsilon, key: tuple[int, ...]) -> Epsilon:
    """The same ε, two units in the last place off, as in the generator's other forms; all after it rounds anew."""

    def neighbour(draw: int, stream: int, n: int) -> NDArray[np.floating[Any]]:
        values = np.asarray(epsilon(draw, stream, n), np.float32)
        up = np.random.default_rng((*key, draw, stream)).random(n) < 0.5
        end = np.where(up, np.float32(np.inf), np.float32(-np.inf))
        return np.nextafter(np.nextafter(values, end), end)

    return neighbour
