"""`murho demo --task regression`: the whole job on a table, scikit-learn's diabetes data (Efron et al. 2004)."""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes

from .. import Noise
from ..models import Regressor
from ..train import Dataset, prepare_rows
from .demo import LEVELS, Demo, part_sizes, print_files, print_scores, print_times, scores, work
from .pictures_rows import draw_intervals
from .tables import console, write_json, write_text

ARTIFACTS = {"model.onnx": "weights", "model.pt": "weights", "model-local.onnx": "local"}
SETTINGS = {"epochs": 40, "batch_size": 32, "learning_rate": 0.01, "samples": 2, "patience": 20, "noise": Noise()}


def run(out: Path, epochs: int | None, draws: int, seed: int) -> dict[str, Any]:
    """Do everything and return the report that is written to report.json."""
    table = load_diabetes(scaled=False)
    data = prepare_rows(
        table.data, table.target, name="diabetes", names=table.feature_names, target="progression", seed=seed
    )
    settings = SETTINGS | ({"epochs": epochs} if epochs else {})
    network: dict[str, Any] = {"features": 10, "learned_noise": True, "posterior_rho_init": -3}
    demo = work(data, lambda: Regressor(**network), settings, ARTIFACTS, out, draws, seed)
    intervals, truth = demo.intervals, data.test.y[:, 0]
    report = {
        "data": data.name,
        "target": data.target,
        "rows": part_sizes(data),
        "test": {
            "murho": scores(intervals.mean[:, 0], intervals.lower[..., 0], intervals.upper[..., 0], truth),
            "without a network": _baseline(data),
        },
        **demo.report(),
    }
    draw_intervals(intervals, truth, LEVELS, out / "intervals.png")
    write_text(out / "intervals.csv", _csv(demo))
    write_json(out / "report.json", report)

    print_times(demo)
    print_scores("prediction", report["test"])
    console.print("Without a network: always the mean and the quantiles of the training part.")
    print_files(demo, "intervals.csv", "intervals.png", "report.json")
    return report


def _baseline(data: Dataset) -> dict[str, Any]:
    """The scores of the training part's mean, with central quantiles of its y as the intervals."""
    seen, truth = data.train.y[:, 0], data.test.y[:, 0]
    tails = (1 - np.array(LEVELS)) / 2
    ends = np.quantile(seen, [tails, 1 - tails]).astype(np.float32)  # (2, levels)
    lower, upper = np.broadcast_to(ends[..., np.newaxis], (*ends.shape, len(truth)))
    return scores(np.full_like(truth, seen.mean(dtype=np.float64)), lower, upper, truth)


def _csv(demo: Demo) -> str:
    test = demo.data.test
    frame = demo.intervals.to_frame()
    frame.insert(0, "row", test.dates)
    frame.insert(1, demo.data.target, test.y[:, 0])
    return frame.to_csv(index=False)
