"""As many draws as an answer needs: until its ends are sure enough, or the time is up."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from .planner import VECTOR

Samples = tuple[NDArray[np.float32], ...]

FIRST = 128
"""Draws of the first batch."""
FEWEST = 2 * VECTOR
"""Draws that an answer has at least, however little time there is."""
GROWTH = 4
"""Times as many draws after a further batch, at most: one of a few draws says little of how many are missing."""
SPARE = 1.1
"""More draws than the error so far calls for, since it is an estimate."""
SHARE_OF_TIME = 0.75
"""Of the time left, for a further batch; the rest is for statistics and for a slow moment."""
SHORTEST = 1e-9
"""Seconds that a batch takes at least, whatever the clock says."""


@dataclass(frozen=True)
class Goal:
    """When to stop."""

    tolerance: float | None
    """Largest Monte-Carlo error of an end, as a share of the interval's width."""
    seconds: float | None
    """Time for all of it."""


class Pace:
    """Seconds per draw of earlier calls, by the shape of their input: what a first batch may cost."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, ...], float] = {}

    def draw(
        self,
        shape: tuple[int, ...],
        most: int,
        goal: Goal,
        evaluate: Callable[[int, int], Samples],
        unsureness: Callable[[NDArray[np.float32]], float],
    ) -> Samples:
        """Samples of the first draws, in batches: `evaluate(start, stop)` computes those of draws start … stop - 1.

        `unsureness` is the largest error of an end over its interval's width, of samples [S, B, …]. At most `most`
        draws. A standard error falls with 1/√S, which says how many draws are missing.
        """
        began = perf_counter()
        batches: list[Samples] = []
        done, aim = 0, self._first(shape, most, goal)
        samples: Samples = ()
        while True:
            start = perf_counter()
            batches.append(evaluate(done, aim))
            samples = batches[0] if len(batches) == 1 else tuple(np.concatenate(p) for p in zip(*batches, strict=True))
            batches = [samples]
            share = unsureness(samples[0]) if goal.tolerance is not None else np.inf
            now = perf_counter()
            self._seconds[shape] = per_draw = max(now - start, SHORTEST) / (aim - done)
            done = aim
            if done >= most or (goal.tolerance is not None and share <= goal.tolerance):
                return samples
            aim = GROWTH * done
            if goal.tolerance is not None and np.isfinite(share):
                ratio = min(share / goal.tolerance, float(GROWTH))  # more draws than that are not taken at once
                aim = int(min(aim, max(SPARE * done * ratio**2, done + VECTOR)))
            if goal.seconds is not None:
                left = SHARE_OF_TIME * (goal.seconds - (now - began))
                aim = min(aim, done + int(min(left / per_draw, most)))
            aim = min(_whole(aim), most)
            if aim <= done:
                return samples

    def _first(self, shape: tuple[int, ...], most: int, goal: Goal) -> int:
        aim = FIRST
        if goal.seconds is not None:
            known = self._seconds.get(shape)
            aim = FEWEST if known is None else max(FEWEST, int(min(0.5 * goal.seconds / known, most)))
        return min(_whole(aim), most)


def _whole(draws: int) -> int:
    """Whole vectors, no more than `draws`: see the planner."""
    return max(VECTOR, draws // VECTOR * VECTOR)
