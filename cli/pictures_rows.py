"""The pictures of the demos without time: a table's intervals against the truth, and the digits in doubt."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from .. import Intervals
from .pictures import BANDS, FORECAST, TRUTH, save

RIGHT, QUIET, LINES = "#60a5fa", "#555555", "#e5e5e5"
UNSURE = (3, 5)  # rows and columns of the picture of digits
LEAST = 1e-3  # nats: below this an answer is as good as certain


def draw_intervals(intervals: Intervals, truth: NDArray[np.float32], levels: tuple[float, ...], path: Path) -> None:
    """Each row's interval at every level and its true value, rows in the order of their predicted mean."""
    order = np.argsort(intervals.mean[:, 0])
    places = np.arange(1, len(order) + 1)
    figure, axes = plt.subplots(figsize=(11, 5.8), layout="constrained")
    axes.use_sticky_edges = False  # or the lowest interval would stand on the frame
    bands = zip(levels[::-1], intervals.lower[::-1], intervals.upper[::-1], BANDS, strict=True)
    for level, lower, upper, shade in bands:
        height = (upper - lower)[order, 0]
        axes.bar(places, height, 0.8, lower[order, 0], color=shade, lw=0, label=f"{level:.0%} interval")
    axes.plot(places, intervals.mean[order, 0], color=FORECAST, lw=0, marker="_", ms=6, mew=1.4, label="predicted mean")
    axes.plot(places, truth[order], color=TRUTH, lw=0, marker="o", ms=3.5, label="truth")
    inside = np.mean((intervals.lower[-1, :, 0] <= truth) & (truth <= intervals.upper[-1, :, 0]))
    figure.suptitle(f"Diabetes: the {levels[-1]:.0%} interval covers {inside:.0%} of the {len(truth)} test patients")
    axes.set_ylabel("disease progression after one year (score)")
    axes.set_xlabel("test patients, by predicted mean")
    axes.set_xlim(0, len(order) + 1)
    axes.set_xticks([])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, ncols=5)
    _tidy(axes)
    save(figure, path)


def draw_unsure(
    images: NDArray[np.float32],
    truth: NDArray[np.int64],
    intervals: Intervals,
    levels: tuple[float, ...],
    path: Path,
) -> None:
    """The images [B, 1, H, W] that it is least sure of, each with the interval of every class's probability."""
    entropy = intervals.entropy()
    rows, columns = UNSURE
    figure = plt.figure(figsize=(13, 8.2), layout="constrained")
    figure.suptitle(f"The {rows * columns} test digits that it is least sure of, and its probability of each class")
    above, below = figure.subfigures(2, 1, height_ratios=(24, 1), squeeze=False)[:, 0]
    cells = above.subfigures(rows, columns, hspace=0.04, wspace=0.02, squeeze=False)
    for place, (cell, row) in enumerate(zip(cells.flat, np.argsort(-entropy), strict=False)):
        answer = int(intervals.mean[row].argmax())
        verdict, colour = ("right", QUIET) if answer == truth[row] else (f"taken for {answer}", FORECAST)
        cell.suptitle(f"a {truth[row]}, {verdict}", fontsize=10, color=colour)
        picture, bars = cell.subplots(2, 1, height_ratios=(1.15, 1))
        picture.imshow(images[row, 0], cmap="gray_r", vmin=0, vmax=1)
        picture.set_axis_off()
        picture.annotate(
            f"{entropy[row]:.2f}\nnats", (1, 0), (8, 0), xycoords="axes fraction", textcoords="offset points",
            color=QUIET, fontsize=8, va="bottom",
        )  # fmt: skip
        _draw_classes(bars, intervals, row, int(truth[row]), first_column=place % columns == 0)
    bands = zip(levels[::-1], BANDS, strict=True)
    patches = [Patch(color=shade, label=f"{level:.0%} interval") for level, shade in bands]
    mean = Line2D([], [], color=FORECAST, lw=0, marker="_", ms=8, mew=1.4, label="mean probability")
    below.legend(handles=[*patches, mean, Line2D([], [], lw=0, label="bold: the true class")], loc="center", ncols=5)
    below.legends[0].set_frame_on(False)
    save(figure, path)


def draw_certainty(intervals: Intervals, truth: NDArray[np.int64], path: Path) -> None:
    """Entropy of right and wrong answers, and the accuracy where the least sure ones are left to a person."""
    entropy, right = intervals.entropy(), intervals.mean.argmax(1) == truth
    figure, (left, curve) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    random = np.random.default_rng(0)
    for height, (own, colour) in enumerate(((~right, FORECAST), (right, RIGHT))):
        spread = height + random.uniform(-0.3, 0.3, own.sum())
        left.plot(np.maximum(entropy[own], LEAST), spread, color=colour, lw=0, marker="o", ms=3.5, alpha=0.6, mew=0)
    left.set_xscale("log")
    left.set_xlim(LEAST / 1.3, np.log(intervals.mean.shape[1]) * 1.1)
    left.set_xticks([0.001, 0.01, 0.1, 1], ["≤ 0.001", "0.01", "0.1", "1"])
    left.minorticks_off()
    left.set_yticks([0, 1], [f"{(~right).sum()}\nwrong", f"{right.sum()}\nright"])
    left.set_ylim(-0.5, 1.5)
    left.set_title("How unsure it is of each answer")
    left.set_xlabel("predictive entropy (nats)")
    answered = 100 * np.arange(1, len(truth) + 1) / len(truth)
    accuracy = 100 * np.cumsum(right[np.argsort(entropy)]) / np.arange(1, len(truth) + 1)
    curve.plot(answered, accuracy, color=FORECAST, lw=1.6)
    curve.set_xlim(0, 100)
    curve.annotate(
        f"all: {accuracy[-1]:.1f}%", (100, accuracy[-1]), (-14, 0), textcoords="offset points",
        color=FORECAST, ha="right", va="center",
    )  # fmt: skip
    curve.set_title("Accuracy where it answers only the surest")
    curve.set_xlabel("digits answered, the surest first (%)")
    curve.set_ylabel("accuracy (%)")
    _tidy(left)
    _tidy(curve)
    left.grid(visible=False)
    save(figure, path)


def _draw_classes(axes: Axes, intervals: Intervals, row: int, truth: int, first_column: bool) -> None:
    classes = np.arange(intervals.mean.shape[1])
    for lower, upper, shade in zip(intervals.lower[::-1], intervals.upper[::-1], BANDS, strict=True):
        axes.bar(classes, (upper - lower)[row], 0.7, lower[row], color=shade, lw=0)
    axes.plot(classes, intervals.mean[row], color=FORECAST, lw=0, marker="_", ms=6, mew=1.4)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"] if first_column else [""] * 3)
    axes.set_xlim(-0.6, len(classes) - 0.4)
    axes.set_xticks(classes, intervals.names)
    axes.tick_params(length=0, labelsize=8, labelcolor=QUIET)
    axes.get_xticklabels()[truth].set(color=TRUTH, weight="bold", size=9.5)
    _tidy(axes)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y", color=LINES, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
