"""What the studies share: Monte-Carlo errors over draws, and their place in docs/studies.md."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GROUPS = 20
MOST_ERRORS = 5.0  # a difference of so many Monte-Carlo standard errors is beyond chance


def jackknife(statistic: Callable[[NDArray], float], samples: NDArray) -> tuple[float, float]:
    """(value, Monte-Carlo standard error) of a statistic of samples [S, …], leaving out a group of draws at a time."""
    groups = np.arange(len(samples)) % GROUPS
    left_out = np.array([statistic(samples[groups != group]) for group in range(GROUPS)])
    return statistic(samples), float(np.sqrt((GROUPS - 1) / GROUPS * ((left_out - left_out.mean()) ** 2).sum()))


def apart(one: tuple[float, float], other: tuple[float, float], smallest: float = 1e-12) -> float:
    """How many standard errors two values with theirs are apart; the error counts as `smallest` at least."""
    return abs(one[0] - other[0]) / max(float(np.hypot(one[1], other[1])), smallest)


def write_section(path: Path | None, title: str, text: str) -> None:
    """Print a study, and put it into a file in place of the section with the same title."""
    print(f"\n## {title}\n\n{text}")
    if path is None:
        return
    head, *sections = path.read_text(encoding="utf-8").split("\n## ") if path.exists() else ["# Studies\n"]
    others = {section.partition("\n")[0]: section.rstrip() for section in sections}
    others[title] = f"{title}\n\n{text.strip()}"
    path.write_text("\n\n## ".join([head.rstrip(), *(others[name] for name in others)]) + "\n", encoding="utf-8")
