"""`murho demo`: the whole job on real data, from a CSV file to intervals, pictures and a report."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from .. import Intervals, Model, load
from ..export import verify
from ..runtime.errors import InputError
from ..train import Dataset, builtin_series, prepare, read_series
from . import bench
from .loop import BlitzLoop
from .pictures import draw_forecast, draw_series
from .tables import console, write_json, write_text
from .tasks import example_inputs, export_checkpoint, fit_checkpoint

LEVELS = (0.5, 0.8, 0.95)
STEPS = 7  # days of a forecast, as in the BLiTZ tutorial


@dataclass(frozen=True)
class Prediction:
    """Intervals for the rows of the test part: [levels, rows] ends, [rows] everything else, raw units."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]

    def scores(self, truth: NDArray[np.float32]) -> dict[str, Any]:
        inside = (self.lower <= truth) & (truth <= self.upper)
        return {
            "rmse": float(np.sqrt(np.mean((self.mean - truth) ** 2))),
            "coverage": {f"{level:g}": float(share) for level, share in zip(LEVELS, inside.mean(1), strict=True)},
            "mean_width": {
                f"{level:g}": float(width)
                for level, width in zip(LEVELS, (self.upper - self.lower).mean(1), strict=True)
            },
        }


def run(
    csv: Path | None,
    target: str | None,
    features: list[str],
    out: Path,
    epochs: int,
    draws: int,
    relative: bool,
    seed: int,
) -> dict[str, Any]:
    """Do everything and return the report that is written to report.json."""
    series = builtin_series() if csv is None or target is None else read_series(csv, target, features)
    data = prepare(series, relative=relative)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {out}: {error.strerror}. Choose another with --out.") from None
    for repair in data.repairs:
        console.print(f"Repaired: {repair}")
    sizes = ", ".join(f"{len(part)} {name}" for name, part in _parts(data).items())
    console.print(f"1. {data.name}, column {data.target}: {sizes} windows of {data.window} rows.")

    checkpoint_path = out / "checkpoint.pt"
    console.print("2. Training BLiTZ's LSTM; Ctrl-C stops and keeps the best weights so far.")
    checkpoint = fit_checkpoint(data, {}, checkpoint_path, {"epochs": epochs, "seed": seed})

    models, proofs = {}, {}
    for name in ("model.onnx", "model.pt"):
        with console.status(Text(f"Exporting {name} and proving it against BLiTZ …")):
            export_checkpoint(checkpoint, out / name)
            proofs[name] = verify(out / name, checkpoint.network(), example_inputs(checkpoint))
        models[name] = load(out / name)
        difference = proofs[name]["exact"]["largest_error"]
        console.print(
            f"3. {out / name}: {(out / name).stat().st_size / 1000:.0f} kB. It says what BLiTZ says: "
            f"relative error {difference:.1e} at equal noise."
        )

    with console.status(Text("Predicting the test part with BLiTZ's loop and with murho …")):
        loop = BlitzLoop(checkpoint_path, models["model.onnx"].card)
        times, one_step = _time(models, loop, data, draws, seed)
    predictions = {"next row": _flat(one_step)}
    if not data.features:
        predictions[f"{STEPS} rows ahead"] = _blocks(models["model.onnx"], data, draws, seed)
    truth = data.test.y[:, 0]
    report = {
        "series": data.name,
        "target": data.target,
        "windows": {name: len(part) for name, part in _parts(data).items()},
        "draws": draws,
        "seed": seed,
        "relative": relative,
        "training": checkpoint.summary(),
        "seconds": times,
        "test": {name: prediction.scores(truth) for name, prediction in predictions.items()},
        "last_value_rmse": float(np.sqrt(np.mean((data.test.x[:, -1, 0] - truth) ** 2))),
        "outside_training_range": _outside(data),
        "proof": proofs,
        "machine": bench.machine(),
    }
    shown = list(predictions.items())[-1]
    draw_series(data, shown, LEVELS, out / "series.png")
    draw_forecast(data, shown, LEVELS, out / "forecast.png", block=STEPS if len(predictions) > 1 else 1)
    write_text(out / "intervals.csv", _frame(data, predictions).to_csv(index=False))
    write_json(out / "report.json", report)
    _print(report, len(data.test), out)
    return report


def _parts(data: Dataset) -> dict[str, Any]:
    return {"training": data.train, "calibration": data.calibration, "test": data.test}


def _time(
    models: dict[str, Model], loop: BlitzLoop, data: Dataset, draws: int, seed: int
) -> tuple[dict[str, float], Intervals]:
    """Seconds for the intervals of all test rows: BLiTZ's loop once, murho the median of five calls; all checked."""

    def call(model: Model) -> Callable[[], Intervals]:
        return lambda: model.predict(data.test.x, draws, LEVELS, seed)

    start = time.perf_counter()
    answers = {bench.LOOP: loop(data.test.x, draws, LEVELS)}
    seconds = {bench.LOOP: time.perf_counter() - start}
    for model in models.values():
        system, laps = call(model), []
        for _ in range(5):
            start = time.perf_counter()
            answers[f"murho {model.engine}"] = system()
            laps.append(time.perf_counter() - start)
        seconds[f"murho {model.engine}"] = float(np.median(laps))
    bench.check(answers, loop, data.test.x)
    return seconds, answers["murho onnxruntime"]


def _flat(intervals: Intervals) -> Prediction:
    """The first step of intervals [B, horizon]."""
    return Prediction(intervals.mean[:, 0], intervals.std[:, 0], intervals.lower[:, :, 0], intervals.upper[:, :, 0])


def _blocks(model: Model, data: Dataset, draws: int, seed: int) -> Prediction:
    """The test part in forecasts of seven rows each, every one from the window before its first row."""
    rows = len(data.test)
    intervals = model.forecast(data.test.x[::STEPS], STEPS, draws, LEVELS, seed)
    return Prediction(
        intervals.mean.reshape(-1)[:rows],
        intervals.std.reshape(-1)[:rows],
        intervals.lower.reshape(len(LEVELS), -1)[:, :rows],
        intervals.upper.reshape(len(LEVELS), -1)[:, :rows],
    )


def _outside(data: Dataset) -> float:
    """Share of the test rows outside the range of the training part."""
    seen = data.train.x[:, :, 0]
    truth = data.test.y[:, 0]
    return float(np.mean((truth < seen.min()) | (truth > seen.max())))


def _frame(data: Dataset, predictions: dict[str, Prediction]) -> pd.DataFrame:
    columns: dict[str, Any] = {"date": data.test.dates, data.target: data.test.y[:, 0]}
    for name, prediction in predictions.items():
        if name != "next row":
            columns["step of the forecast"] = np.arange(len(data.test)) % STEPS + 1
        columns[f"{name}: mean"], columns[f"{name}: std"] = prediction.mean, prediction.std
        for level, lower, upper in zip(LEVELS, prediction.lower, prediction.upper, strict=True):
            columns[f"{name}: lower {100 * level:g}%"], columns[f"{name}: upper {100 * level:g}%"] = lower, upper
    return pd.DataFrame(columns)


def _print(report: dict[str, Any], rows: int, out: Path) -> None:
    loop = report["seconds"][bench.LOOP]
    speed = Table(title=f"Intervals of {rows} rows from {report['draws']} draws", title_justify="left")
    for column in ("system", "time", "faster"):
        speed.add_column(column, justify="left" if column == "system" else "right")
    for name, seconds in report["seconds"].items():
        speed.add_row(name, f"{1000 * seconds:.0f} ms", f"{loop / seconds:.0f} ×")
    console.print(speed)
    quality = Table(title="The test part", title_justify="left")
    for column in ("forecast", "RMSE", "level", "covers", "mean width"):
        quality.add_column(column, justify="left" if column == "forecast" else "right")
    for name, scores in report["test"].items():
        for k, level in enumerate(f"{level:g}" for level in LEVELS):
            head = (name, f"{scores['rmse']:.3g}") if k == 0 else ("", "")
            cells = (f"{float(level):.0%}", f"{scores['coverage'][level]:.1%}", f"{scores['mean_width'][level]:.3g}")
            quality.add_row(*head, *cells, end_section=k == len(LEVELS) - 1)
    console.print(quality)
    console.print(f"The last value as the forecast of the next row has RMSE {report['last_value_rmse']:.3g}.")
    if report["outside_training_range"] > 0.05 and not report["relative"]:
        console.print(
            f"{report['outside_training_range']:.0%} of the test rows lie outside the range of the training part, "
            "where a network trained on absolute values cannot follow. Try --relative."
        )
    console.print(
        "The intervals show how unsure the network is of its weights, as BLiTZ's do, and not how noisy the series is: "
        "they cover fewer rows than their level says."
    )
    files = "checkpoint.pt, model.onnx, model.pt, intervals.csv, series.png, forecast.png, report.json"
    console.print(f"Written to {out}: {files}")
