"""What the demos of all tasks share: train, export, prove, time BLiTZ's loop and murho side by side, and score."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import nn

from .. import Intervals, Model, load
from ..runtime.errors import InputError
from ..train import Checkpoint, Dataset
from . import bench
from .loop import BlitzLoop
from .tables import console
from .tasks import export_checkpoint, fit_checkpoint

Floats = NDArray[np.float32]

LEVELS = (0.6, 0.8, 0.95)


@dataclass(frozen=True)
class Demo:
    """A demo after its work is done, before its own scores and pictures."""

    data: Dataset
    out: Path
    draws: int
    seed: int
    checkpoint: Checkpoint
    models: dict[str, Model]
    """Artifacts by the names of their files, model.onnx first."""
    proofs: dict[str, dict[str, Any]]
    seconds: dict[str, float]
    """For the intervals of all test rows: BLiTZ's loop once, murho the median of five calls."""
    intervals: Intervals
    """What model.onnx says of the test part, at `LEVELS`."""

    def report(self) -> dict[str, Any]:
        """What every report.json tells of the work."""
        return {
            "draws": self.draws,
            "seed": self.seed,
            "training": self.checkpoint.summary(),
            "seconds": self.seconds,
            "proof": self.proofs,
            "machine": bench.machine(),
        }


def work(
    data: Dataset,
    make: Callable[[], nn.Module],
    settings: dict[str, Any],
    artifacts: dict[str, str],
    out: Path,
    draws: int,
    seed: int,
) -> Demo:
    """Train what `make` builds, export, prove and calibrate `artifacts` (file to sampling), predict the test part."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {out}: {error.strerror}. Choose another with --out.") from None
    for repair in data.repairs:
        console.print(f"Repaired: {repair}")
    rows = "rows" if data.window is None else f"windows of {data.window} rows"
    sizes = ", ".join(f"{size} {name}" for name, size in part_sizes(data).items())
    console.print(f"1. {data.name}, predicting {data.target}: {sizes} {rows}.")

    path = out / "checkpoint.pt"
    console.print("2. Training with BLiTZ; Ctrl-C stops and keeps the best weights so far.")
    checkpoint = fit_checkpoint(data, make, path, {**settings, "seed": seed})

    models, proofs = {}, {}
    for name, sampling in artifacts.items():
        with console.status(Text(f"Exporting {name} and proving it against BLiTZ …")):
            proofs[name] = export_checkpoint(checkpoint, out / name, sampling=sampling).verification
        models[name] = load(out / name, trusted=True)
        if data.task != "classification":
            models[name].calibrate(data.calibration.x, data.calibration.y, draws=draws)
            models[name].save(out / name)
        difference = proofs[name]["exact"]["largest_error"]
        console.print(
            f"3. {out / name}: {(out / name).stat().st_size / 1000:.0f} kB. It says what BLiTZ says: "
            f"relative error {difference:.1e} at equal noise."
        )
    if data.task != "classification":
        console.print(f"4. Calibrated on {len(data.calibration)} rows that training did not see.")
    with console.status(Text("Predicting the test part with BLiTZ's loop and with murho …")):
        seconds, intervals = _timed(
            models, BlitzLoop(checkpoint.network(), models["model.onnx"].card), data.test.x, draws, seed
        )
    return Demo(data, out, draws, seed, checkpoint, models, proofs, seconds, intervals)


def part_sizes(data: Dataset) -> dict[str, int]:
    return {"training": len(data.train), "calibration": len(data.calibration), "test": len(data.test)}


def scores(mean: Floats, lower: Floats, upper: Floats, truth: Floats) -> dict[str, Any]:
    """Error [rows] of the mean, and how often and how widely the intervals [levels, rows] cover; in raw units."""
    inside = (lower <= truth) & (truth <= upper)
    return {
        "rmse": float(np.sqrt(np.mean((mean - truth) ** 2))),
        "coverage": {f"{level:g}": float(share) for level, share in zip(LEVELS, inside.mean(1), strict=True)},
        "mean_width": {
            f"{level:g}": float(width) for level, width in zip(LEVELS, (upper - lower).mean(1), strict=True)
        },
    }


def print_times(demo: Demo) -> None:
    loop = demo.seconds[bench.LOOP]
    table = Table(title=f"Intervals of {len(demo.data.test)} rows from {demo.draws} draws", title_justify="left")
    for column in ("system", "time", "faster"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for name, seconds in demo.seconds.items():
        table.add_row(name, f"{1000 * seconds:.0f} ms", f"{loop / seconds:.0f} ×")
    console.print(table)


def print_scores(kind: str, by_name: dict[str, dict[str, Any]]) -> None:
    """A table of `scores`; `kind` is what their names name."""
    table = Table(title="The test part", title_justify="left")
    for column in (kind, "RMSE", "level", "covers", "mean width"):
        table.add_column(column, justify="left" if column == kind else "right")
    for name, found in by_name.items():
        for k, level in enumerate(f"{level:g}" for level in LEVELS):
            head = (name, f"{found['rmse']:.3g}") if k == 0 else ("", "")
            cells = (f"{float(level):.0%}", f"{found['coverage'][level]:.1%}", f"{found['mean_width'][level]:.3g}")
            table.add_row(*head, *cells, end_section=k == len(LEVELS) - 1)
    console.print(table)


def print_files(demo: Demo, *others: str) -> None:
    console.print(f"Written to {demo.out}: {', '.join(('checkpoint.pt', *demo.models, *others))}")


def _timed(
    models: dict[str, Model], loop: BlitzLoop, x: Floats, draws: int, seed: int
) -> tuple[dict[str, float], Intervals]:
    def murho(model: Model) -> bench.System:
        return lambda x, draws, seed: model.predict(x, draws, LEVELS, seed)

    ours = {bench.system_name(model): murho(model) for model in models.values()}
    systems: dict[str, bench.System] = {bench.LOOP: lambda x, draws, seed: loop(x, draws, LEVELS), **ours}
    bench.warm_up(ours, x, draws)
    times, answers = bench.timed(systems, {name: 1 if name == bench.LOOP else 5 for name in systems}, x, draws)
    bench.check(models["model.onnx"].card, answers, loop, x)
    seconds = {name: float(np.median(laps)) / 1000 for name, laps in times.items()}
    return seconds, models["model.onnx"].predict(x, draws, LEVELS, seed)
