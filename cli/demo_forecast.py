"""`murho demo`: the whole job on a series, from a CSV file to forecasts of seven rows, pictures and a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import Intervals, Noise
from ..evaluation import LEVELS as FORECAST_LEVELS
from ..evaluation import Forecasts, followed, of_model, tutorial
from ..models import Forecaster
from ..train import Dataset, builtin_series, prepare, read_series
from .demo import LEVELS, Floats, part_sizes, print_files, print_scores, print_times, scores, work
from .pictures import draw_forecasts, draw_series
from .tables import console, write_json, write_text

ARTIFACTS = {"model.onnx": "weights", "model.pt": "weights"}
STEPS = 7  # rows of a forecast, as in the BLiTZ tutorial
SETTINGS = {"epochs": 40, "patience": 10, "samples": 1, "noise": Noise("student-t", 5)}
TUTORIAL_EPOCHS = 40
AHEAD = f"{STEPS} rows ahead"
NEXT, SPLIT, ONLINE, TUTORIAL = (
    "murho, next row",
    f"murho, {AHEAD}",
    f"murho online, {AHEAD}",
    f"BLiTZ's tutorial, {AHEAD}",
)


@dataclass(frozen=True)
class Prediction:
    """Intervals for rows of the test part, one after another: [levels, rows] ends, [rows] means, raw units."""

    mean: Floats
    lower: Floats
    upper: Floats


def run(
    csv: Path | None,
    target: str | None,
    features: list[str],
    out: Path,
    epochs: int | None,
    draws: int,
    values: str | None,
    seed: int,
) -> dict[str, Any]:
    """Do everything and return the report that is written to report.json."""
    builtin = csv is None or target is None
    series = builtin_series() if builtin else read_series(csv, target, features)  # type: ignore[arg-type]
    values = values or ("returns" if builtin else "differences")
    data = prepare(series, horizon=STEPS, values=values)
    network = {"features": len(data.columns), "hidden": 10, "horizon": STEPS, "learned_noise": True}
    settings = SETTINGS | ({"epochs": epochs} if epochs else {})
    demo = work(data, lambda: Forecaster(**network, posterior_rho_init=-4.0), settings, ARTIFACTS, out, draws, seed)  # type: ignore[arg-type]
    console.print("5. Training the network of BLiTZ's tutorial, to compare.")
    theirs = tutorial(series, data, seed, min(epochs or TUTORIAL_EPOCHS, TUTORIAL_EPOCHS))[1]
    ours = of_model(demo.models["model.onnx"], data.test.x, draws, calibrated=True)
    predictions = {
        NEXT: _first_steps(demo.intervals),
        SPLIT: _blocks(demo.intervals.mean, demo.intervals.lower, demo.intervals.upper),
        ONLINE: _forecast_blocks(followed(ours, data.test.y)),
        TUTORIAL: _forecast_blocks(theirs),
    }
    truth = data.test.y[:, 0]
    report = {
        "series": data.name,
        "target": data.target,
        "windows": part_sizes(data),
        "values": values,
        "test": {name: scores(p.mean, p.lower, p.upper, truth[: len(p.mean)]) for name, p in predictions.items()},
        "last_value_rmse": float(np.sqrt(np.mean((data.test.x[:, -1, 0] - truth) ** 2))),
        **demo.report(),
    }
    draw_series(data, ONLINE, predictions[ONLINE], LEVELS, out / "series.png")
    draw_forecasts(data, {name: predictions[name] for name in (TUTORIAL, ONLINE)}, LEVELS, out / "forecast.png", STEPS)
    write_text(out / "intervals.csv", _frame(data, predictions).to_csv(index=False))
    write_json(out / "report.json", report)

    print_times(demo)
    print_scores("forecast", report["test"])
    console.print("Online: told each row's truth when it is known. The interval then follows a market that calms down.")
    console.print(f"The last value as the forecast of the next row has RMSE {report['last_value_rmse']:.3g}.")
    print_files(demo, "intervals.csv", "series.png", "forecast.png", "report.json")
    return report


def _first_steps(intervals: Intervals) -> Prediction:
    """The first step of intervals [rows, STEPS]."""
    return Prediction(intervals.mean[:, 0], intervals.lower[:, :, 0], intervals.upper[:, :, 0])


def _blocks(mean: Floats, lower: Floats, upper: Floats) -> Prediction:
    """Forecasts of seven rows each, one after another: the windows 0, 7, 14, … of all."""
    chosen = slice(0, len(mean) // STEPS * STEPS, STEPS)
    levels = len(lower)
    return Prediction(
        mean[chosen].reshape(-1), lower[:, chosen].reshape(levels, -1), upper[:, chosen].reshape(levels, -1)
    )


def _forecast_blocks(forecasts: Forecasts) -> Prediction:
    levels = [FORECAST_LEVELS.index(level) for level in LEVELS]
    parts = forecasts.median, forecasts.lower[levels], forecasts.upper[levels]
    return _blocks(*(part.astype(np.float32) for part in parts))


def _frame(data: Dataset, predictions: dict[str, Prediction]) -> pd.DataFrame:
    rows = min(len(prediction.mean) for prediction in predictions.values())
    columns: dict[str, Any] = {"date": data.test.dates[:rows], data.target: data.test.y[:rows, 0]}
    columns["step of the forecast"] = np.arange(rows) % STEPS + 1
    for name, prediction in predictions.items():
        columns[f"{name}: mean"] = prediction.mean[:rows]
        for level, lower, upper in zip(LEVELS, prediction.lower, prediction.upper, strict=True):
            columns[f"{name}: lower {100 * level:g}%"] = lower[:rows]
            columns[f"{name}: upper {100 * level:g}%"] = upper[:rows]
    return pd.DataFrame(columns)
