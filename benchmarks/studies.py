"""What studies and tests share: Monte-Carlo errors over draws, a place in docs/studies.md."""

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


def write_section(path: Path | None, title: str, text: str, head: str = "# Studies") -> None:
    """Print a study, and put it into a file in place of the section with the same title; `head` is for a new file."""
    print(f"\n## {title}\n\n{text}")
    if path is not None:
        old_head, sections = read_sections(path)
        write_sections(path, old_head or head, {**sections, title: text})


def read_sections(path: Path) -> tuple[str, dict[str, str]]:
    """What stands before the first section of a file, and the sections by title; nothing where there is no file."""
    if not path.exists():
        return "", {}
    head, *sections = path.read_text(encoding="utf-8").split("\n## ")
    return head.rstrip(), {title: text for title, _, text in (section.partition("\n") for section in sections)}


def write_sections(path: Path, head: str, sections: dict[str, str]) -> None:
    parts = (f"{title}\n\n{text.strip()}" for title, text in sections.items())
    path.write_text("\n\n## ".join([head.rstrip(), *parts]) + "\n", encoding="utf-8")
