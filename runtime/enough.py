"""As many draws as an answer needs: until its ends are sure enough, or the time is up."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import log
from time import perf_counter

import numpy as np

from .planner import VECTOR, remember

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
        self._seconds: OrderedDict[tuple[int, ...], float] = OrderedDict()

    def draw(
        self,
        shape: tuple[int, ...],
        most: int,
        goal: Goal,
        evaluate: Callable[[int, int], None],
        settle: Callable[[bool], tuple[float, float]],
        evaluations: int = 1,
    ) -> int:
        """Add draws in batches until the goal is met; how many there are then, at most `most`.

        `evaluate(start, stop)` adds the samples of draws start … stop - 1. `settle(whole)` takes the statistics of all
        samples so far, of some rows alone where `whole` is false; it gives the largest error of an end over its
        interval's width, and the share of the rows that it took. A standard error falls with 1/√S, which says how many
        draws are missing. At the end come the statistics, and `evaluations` - 1 further evaluations of every draw: both
        are in the time.
        """
        began = perf_counter()
        done, aim = 0, self._first(shape, most, goal)
        while True:
            start = perf_counter()
            evaluate(done, aim)
            drawn = perf_counter()
            share, rows = settle(goal.tolerance is not None)
            now = perf_counter()
            drawing = max(drawn - start, SHORTEST) / (aim - done)
            done = aim
            ordering = (now - drawn) / rows / done
            self._seconds[shape] = evaluations * drawing + ordering
            remember(self._seconds, shape)
            if done >= most or (goal.tolerance is not None and share <= goal.tolerance):
                return done
            aim = GROWTH * done
            if goal.tolerance is not None and np.isfinite(share):
                ratio = min(share / goal.tolerance, float(GROWTH))  # more draws than that are not taken at once
                aim = int(min(aim, max(SPARE * done * ratio**2, done + VECTOR)))
            if goal.seconds is not None:
                ordering *= 1 + log(GROWTH) / log(done)  # S draws are ordered in S log S
                left = SHARE_OF_TIME * (goal.seconds - (now - began))
                left -= done * (ordering + (evaluations - 1) * drawing)  # for those that are there
                aim = min(aim, done + int(min(left / (evaluations * drawing + ordering), most)))
            aim = min(_whole(aim), most)
            if aim <= done:
                return done

    def _first(self, shape: tuple[int, ...], most: int, goal: Goal) -> int:
        aim = FIRST
        if goal.seconds is not None:
            known = self._seconds.get(shape)
            aim = FEWEST if known is None else max(FEWEST, int(min(0.5 * goal.seconds / known, most)))
        return min(_whole(aim), most)


def _whole(draws: int) -> int:
    """Whole vectors, no more than `draws`: see the planner."""
    return max(VECTOR, draws // VECTOR * VECTOR)
