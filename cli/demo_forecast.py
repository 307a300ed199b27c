"""`murho demo`: the whole job on a series, from a CSV file to forecasts of seven days, pictures and a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import Intervals, Model
from ..models import Forecaster
from ..train import Dataset, builtin_series, prepare, read_series
from .demo import LEVELS, WEIGHTS_ONLY, Floats, part_sizes, print_files, print_scores, print_times, scores, work
from .pictures import draw_forecast, draw_series
from .tables import console, write_json, write_text

ARTIFACTS = {"model.onnx": "weights", "model.pt": "weights"}
STEPS = 7  # days of a forecast, as in the BLiTZ tutorial


@dataclass(frozen=True)
class Prediction:
    """Intervals for the rows of the test part: [levels, rows] ends, [rows] everything else, raw units."""

    mean: Floats
    std: Floats
    lower: Floats
    upper: Floats


def run(
    csv: Path | None,
    target: str | None,
    features: list[str],
    out: Path,
    epochs: int | None,
    draws: int,
    relative: bool,
    seed: int,
) -> dict[str, Any]:
    """Do everything and return the report that is written to report.json."""
    series = builtin_series() if csv is None or target is None else read_series(csv, target, features)
    data = prepare(series, relative=relative)
    demo = work(
        data, lambda: Forecaster(features=len(data.columns)), {"epochs": epochs or 120}, ARTIFACTS, out, draws, seed
    )
    predictions = {"next row": _flat(demo.intervals)}
    if not data.features:
        predictions[f"{STEPS} rows ahead"] = _blocks(demo.models["model.onnx"], data, draws, seed)
    truth = data.test.y[:, 0]
    report = {
        "series": data.name,
        "target": data.target,
        "windows": part_sizes(data),
        "relative": relative,
        "test": {name: scores(p.mean, p.lower, p.upper, truth) for name, p in predictions.items()},
        "last_value_rmse": float(np.sqrt(np.mean((data.test.x[:, -1, 0] - truth) ** 2))),
        "outside_training_range": _outside(data),
        **demo.report(),
    }
    shown = list(predictions.items())[-1]
    draw_series(data, shown, LEVELS, out / "series.png")
    draw_forecast(data, shown, LEVELS, out / "forecast.png", block=STEPS if len(predictions) > 1 else 1)
    write_text(out / "intervals.csv", _frame(data, predictions).to_csv(index=False))
    write_json(out / "report.json", report)

    print_times(demo)
    print_scores("forecast", report["test"])
    console.print(f"The last value as the forecast of the next row has RMSE {report['last_value_rmse']:.3g}.")
    if report["outside_training_range"] > 0.05 and not relative:
        console.print(
            f"{report['outside_training_range']:.0%} of the test rows lie outside the range of the training part, "
            "where a network trained on absolute values cannot follow. Try --relative."
        )
    console.print(WEIGHTS_ONLY.format(noisy="series is"))
    print_files(demo, "intervals.csv", "series.png", "forecast.png", "report.json")
    return report


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
