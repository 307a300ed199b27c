"""Do intervals cover what they say, and how narrow are they? One series: train, export, calibrate, test.

Trained on the first 60 % of the rows, calibrated on the next 15 %, tested on the last 25 %; every forecast is of the
next `--horizon` rows. Returns are read by a Bayesian LSTM of 21 rows, as in BLiTZ's tutorial, with Student-t noise.
Differences and levels, which may have a season, by that LSTM or an autoregression of 168 rows, with Student-t or
Gaussian noise: the one whose intervals score best on the validation rows. The same windows are forecast by what a user
might take instead.
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import murho
from murho.cli.evaluation import scores_table
from murho.data import with_validation
from murho.evaluation import Scores, compare, followed, of_model, score, split_conformal
from murho.export import to_onnx
from murho.models import Autoregressor, Forecaster
from murho.train import Dataset, Series, fit, prepare, read_series

DRAWS = 256
NETWORKS = ("lstm", "autoregression")
console = Console(markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", required=True, type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--date", help="the date column, if murho should not look for it")
    parser.add_argument("--name", help="what to call the series; the file's name if not given")
    parser.add_argument("--horizon", type=int, default=7)
    parser.add_argument("--values", choices=("levels", "differences", "returns"), help="returns if all are positive")
    parser.add_argument("--network", choices=NETWORKS, help="the only one to try")
    parser.add_argument("--degrees", type=int, help="of freedom of Student-t noise, 0: Gaussian; the only ones to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="of the other methods only those that need no training")
    parser.add_argument("--json", required=True, type=Path)
    arguments = parser.parse_args()
    try:
        series = read_series(arguments.csv, arguments.target, date=arguments.date)
        report = protocol(series, arguments)
    except murho.MurhoError as error:
        sys.exit(f"Error: {error}")
    arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    title = "{series}: {target}; {values}, {network}".format(**report)
    methods = {name: Scores(**found) for name, found in report["methods"].items()}
    console.print(scores_table(methods, f"{title}, {report['rows']['test']} test rows"))


@dataclass(frozen=True)
class Candidate:
    """A network with its noise, trained and exported."""

    network: str
    degrees: int
    data: Dataset
    model: murho.Model
    validation: dict[str, Any]
    """Scores of its intervals on the rows that stopped its training."""

    @property
    def merit(self) -> float:
        """The interval score, mean over the levels that are asked for."""
        return sum(self.validation["interval_score"][level] for level in ("0.8", "0.9", "0.95")) / 3


def protocol(series: Series, arguments: argparse.Namespace) -> dict[str, Any]:
    values = arguments.values or ("returns" if series.values.min() > 0 else "differences")
    returns = values == "returns"
    networks = (arguments.network,) if arguments.network else ("lstm",) if returns else NETWORKS
    degrees = (5,) if returns else (5, 0)
    if arguments.degrees is not None:
        degrees = (arguments.degrees,)
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    candidates = [
        train(name, freedom, series, arguments.horizon, values, arguments.seed)
        for name, freedom in itertools.product(networks, degrees)
    ]
    chosen = min(candidates, key=lambda candidate: candidate.merit)
    seconds["training, export and proof"] = time.perf_counter() - began

    data, model = chosen.data, chosen.model
    y, yc = data.test.y, data.calibration.y
    began = time.perf_counter()
    raw = of_model(model, data.test.x, DRAWS)
    calibrated = split_conformal(of_model(model, data.calibration.x, DRAWS), yc, raw)
    seconds["forecasts"] = time.perf_counter() - began
    found = {"murho, not calibrated": raw, "murho, split": calibrated, "murho, online": followed(calibrated, y)}
    began = time.perf_counter()
    found |= dict(compare(series, data, arguments.seed, arguments.quick))
    seconds["other methods"] = time.perf_counter() - began
    return {
        "series": arguments.name or series.name,
        "target": series.target,
        "rows": {"training": len(data.train), "calibration": len(yc), "test": len(y)},
        "horizon": arguments.horizon,
        "values": values,
        "network": chosen.network,
        "noise": noise_of(chosen.degrees).distribution,
        "window": data.window,
        "validation": {f"{c.network}, {noise_of(c.degrees).distribution}": c.merit for c in candidates},
        "seconds": seconds,
        "methods": {name: score(forecasts, y).as_json() for name, forecasts in found.items()},
    }


def train(name: str, degrees: int, series: Series, horizon: int, values: str, seed: int) -> Candidate:
    torch.manual_seed(seed)
    noise = noise_of(degrees)
    network: torch.nn.Module
    if name == "lstm":
        data = prepare(series, 21, horizon, values=values)
        network = Forecaster(hidden=16, horizon=horizon, learned_noise=True, posterior_rho_init=-4.0)
        settings = {"epochs": 40, "batch_size": 128, "learning_rate": 0.01, "patience": 10}
    else:
        data = prepare(series, 168, horizon, values=values)
        network = Autoregressor(168, horizon=horizon, learned_noise=True)
        settings = {"epochs": 60, "batch_size": 256, "learning_rate": 0.002, "patience": 12}
    history = fit(network, data, noise=noise, samples=1, seed=seed, **settings)
    assert math.isfinite(history.best_validation)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        to_onnx(network, path, data.train.x[:32], scaling=data.scaling, task="forecast", noise=noise)
        model = murho.load(path)
    validation = with_validation(data)[1]
    return Candidate(name, degrees, data, model, score(of_model(model, validation.x, DRAWS), validation.y).as_json())


def noise_of(degrees: int) -> murho.Noise:
    return murho.Noise("student-t", degrees) if degrees else murho.Noise()


if __name__ == "__main__":
    main()
