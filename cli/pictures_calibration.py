"""The pictures of an evaluation: whether intervals cover what they say, at every level and at every time."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ..evaluation import LEVELS, Forecasts, Scores
from ..train import Part
from .pictures import save

SHOWN_LEVEL = 0.9
WINDOW = 100  # rows of the moving average
DASHED = "dashed"


def draw_calibration(found: dict[str, Scores], path: Path) -> None:
    """Share covered against level: honest intervals lie on the diagonal."""
    figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#888888", lw=1, label="as they say")
    for k, (method, scores) in enumerate(found.items()):
        shares = [scores.coverage[f"{level:g}"] for level in LEVELS]
        errors = [2 * scores.coverage_error[f"{level:g}"] for level in LEVELS]
        axes.errorbar(
            LEVELS, shares, errors, color=f"C{k}", lw=_width(method), marker="o", ms=3, capsize=2, label=method
        )
    axes.set(xlabel="level", ylabel="share of the truth inside", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title("Do the intervals cover what they say? (bars: two standard errors)")
    axes.legend(loc="upper left", frameon=False, fontsize="small")
    save(figure, path)


def draw_coverage(forecasts: dict[str, Forecasts], part: Part, path: Path) -> None:
    """The share covered of the last 100 rows, as time goes by."""
    figure, axes = plt.subplots(figsize=(11, 5), layout="constrained")
    level = LEVELS.index(SHOWN_LEVEL)
    window = min(WINDOW, max(1, len(part) // 3))
    for k, (method, one) in enumerate(forecasts.items()):
        inside = ((one.lower[level] <= part.y) & (part.y <= one.upper[level])).mean(axis=1)
        share = np.convolve(inside, np.ones(window) / window, mode="valid")
        axes.plot(part.dates[window - 1 :], share, color=f"C{k}", lw=_width(method), label=method)
    axes.axhline(SHOWN_LEVEL, color="#888888", lw=1, linestyle=DASHED)
    axes.set(ylim=(0, 1.02), ylabel=f"share inside, last {window} rows")
    axes.set_title(f"Coverage of the {SHOWN_LEVEL:.0%} interval over time")
    axes.legend(loc="lower left", frameon=False, fontsize="small", ncols=2)
    save(figure, path)


def _width(method: str) -> float:
    return 2.2 if method.startswith("murho") else 1.0
