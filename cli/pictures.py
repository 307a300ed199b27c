"""The forecast demo's pictures: the whole series, and a close look at the forecast with its band."""

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..runtime.files import write_file
from ..train import Dataset

SHOWN = 63  # rows in the close look: nine forecasts of seven rows
TRUTH, FORECAST = "#222222", "#c2410c"
BANDS = ("#fde0cf", "#f9b48a", "#f08a4b")  # the widest interval first


def draw_series(data: Dataset, name: str, prediction: Any, levels: tuple[float, ...], path: Path) -> None:
    """The whole series, its parts, and the forecast of the test part."""
    figure, axes = plt.subplots(figsize=(11, 5), layout="constrained")
    for part, label, shade in (
        (data.train, "training", "#dbeafe"),
        (data.calibration, "calibration", "#fef3c7"),
        (data.test, "test", "#f3f4f6"),
    ):
        axes.axvspan(part.dates[0], part.dates[-1], color=shade, lw=0)
        axes.annotate(
            label, (part.dates[len(part) // 2], 1), (0, -12), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="top", color="#555555",
        )  # fmt: skip
        axes.plot(part.dates, part.y[:, 0], color=TRUTH, lw=0.8, label="truth" if part is data.test else None)
    dates = data.test.dates[: len(prediction.mean)]
    axes.fill_between(
        dates, prediction.lower[-1], prediction.upper[-1], color=FORECAST, alpha=0.3, lw=0,
        label=f"{levels[-1]:.0%} interval",
    )  # fmt: skip
    axes.plot(dates, prediction.mean, color=FORECAST, lw=0.8, label=f"forecast: {name}")
    axes.set_title(f"{data.name}: {data.target}, and its forecast on the test part")
    axes.set_ylabel(data.target)
    axes.margins(x=0.01)
    axes.legend(loc="upper left", frameon=False)
    save(figure, path)


def draw_forecasts(
    data: Dataset, predictions: dict[str, Any], levels: tuple[float, ...], path: Path, block: int
) -> None:
    """The last rows of the test part, a panel for each method: truth, forecasts of `block` rows, each level's band."""
    figure, panels = plt.subplots(
        len(predictions), figsize=(11, 4 * len(predictions)), sharex=True, sharey=True, layout="constrained"
    )
    for axes, (name, prediction) in zip(panels, predictions.items(), strict=True):
        rows = len(prediction.mean)
        truth, dates = data.test.y[:rows, 0], data.test.dates[:rows]
        first = max(0, rows - SHOWN)
        for start in range(first, rows, block):
            own = slice(start, start + block)
            labels = start == first
            bands = zip(levels[::-1], prediction.lower[::-1], prediction.upper[::-1], BANDS, strict=True)
            for level, lower, upper, shade in bands:
                axes.fill_between(
                    dates[own], lower[own], upper[own], color=shade, lw=0,
                    label=f"{level:.0%} interval" if labels else None,
                )  # fmt: skip
            axes.plot(
                dates[own], prediction.mean[own], color=FORECAST, lw=1.2, marker="o", ms=2.5,
                label="forecast" if labels else None,
            )  # fmt: skip
        axes.plot(dates[first:], truth[first:], color=TRUTH, lw=1.2, label="truth")
        inside = np.mean((prediction.lower[-1] <= truth) & (truth <= prediction.upper[-1]))
        axes.set_title(f"{name}: the {levels[-1]:.0%} interval covers {inside:.0%} of the test part")
        axes.set_ylabel(data.target)
    panels[0].legend(loc="center left", frameon=False)
    figure.suptitle(f"{data.name}: the last {min(SHOWN, rows)} rows")
    figure.autofmt_xdate(rotation=0, ha="center")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a picture whole or not at all, and close it. Raises InputError if it cannot."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    plt.close(figure)
    write_file(path, content.getvalue())
