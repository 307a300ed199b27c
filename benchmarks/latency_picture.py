"""The picture of the latency benchmark: a panel for each network, a line for each system, a mark for each batch."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from latency_page import by_shape, wrong
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from murho.cli.pictures import save

COLUMNS = 3
MARKS = "os^DvP"
GRID, PALE, STRONG = "#dddddd", "#8a8a8a", "#c2410c"


def draw(results: dict[str, Any], path: Path) -> None:
    """Times of an interval of the most draws, on a logarithmic scale; bars are quartiles."""
    networks = list(results["networks"].values())
    lines = -(-len(networks) // COLUMNS)
    columns = min(COLUMNS, len(networks))
    names = list(dict.fromkeys(row["system"] for network in networks for row in network["results"]))
    most = max(row["draws"] for network in networks for row in network["results"])
    size = 3.3 + 3.3 * columns, 1.2 + (0.27 * len(names) + 0.7) * lines
    figure, panels = plt.subplots(
        lines, columns, figsize=size, sharey=True, sharex=True, layout="constrained", squeeze=False
    )
    for axes, network in zip(panels.flat, networks, strict=False):
        _panel(axes, network, names, most)
    for label in (label for axes in panels[:, 0] for label in axes.get_yticklabels()):
        label.set_color(STRONG if label.get_text().startswith("murho") else "black")
    for axes in panels.flat[len(networks) :]:
        axes.set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(f"Time of a 95 % interval from {most} draws ({results['environment']['cores']} cores)")
    save(figure, path)


def _panel(axes: Axes, network: dict[str, Any], names: list[str], most: int) -> None:
    shapes = {rows: found for (rows, draws), found in by_shape(network["results"]).items() if draws == most}
    for (rows, found), mark in zip(shapes.items(), MARKS, strict=False):
        timed = [row for row in found if "problem" not in row]
        middles = [row["median_ms"] for row in timed]
        below = [row["median_ms"] - row["q25_ms"] for row in timed]
        above = [row["q75_ms"] - row["median_ms"] for row in timed]
        places = [names.index(row["system"]) for row in timed]
        label = f"{rows} row{'s' if rows > 1 else ''}"
        axes.errorbar(middles, places, xerr=[below, above], fmt="none", ecolor=GRID, lw=2, zorder=1)
        colors = [STRONG if row["system"].startswith("murho") else PALE for row in timed]
        faces = ["none" if wrong(row) else color for row, color in zip(timed, colors, strict=True)]
        axes.scatter(middles, places, s=26, marker=mark, c=faces, edgecolors=colors, label=label, zorder=2)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="both", color=GRID, lw=0.5)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(_time))
    axes.tick_params(axis="x", labelbottom=True)
    axes.set_title(network["title"], fontsize="medium")


def _time(value: float, _: object) -> str:
    return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"
