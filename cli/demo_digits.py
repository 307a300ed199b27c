"""`murho demo --task digits`: the whole job on images, scikit-learn's handwritten digits of 8 × 8 pixels."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from sklearn.datasets import load_digits

from ..models import Classifier
from ..train import prepare_rows
from .demo import LEVELS, Demo, part_sizes, print_files, print_times, work
from .pictures_rows import draw_certainty, draw_unsure
from .tables import console, write_json, write_text

ARTIFACTS = {"model.onnx": "weights", "model.pt": "weights", "model-local.onnx": "local"}
SETTINGS = {"epochs": 20, "batch_size": 64, "learning_rate": 0.005, "samples": 1}
BINS = 15  # of the calibration error, as usual


def run(out: Path, epochs: int | None, draws: int, seed: int) -> dict[str, Any]:
    """Do everything and return the report that is written to report.json."""
    digits = load_digits()
    data = prepare_rows(
        digits.images[:, np.newaxis] / 16,
        digits.target,
        name="digits",
        target="digit",
        classes=[str(name) for name in digits.target_names],
        seed=seed,
    )
    # A tenth of the usual weight: at the full one the prior of so many weights outweighs a thousand images.
    settings: dict[str, Any] = {**SETTINGS, "complexity_weight": 0.1 / round(0.85 * len(data.train))}
    if epochs:
        settings["epochs"] = epochs
    demo = work(data, lambda: Classifier(size=8, kernel=3, padding=1), settings, ARTIFACTS, out, draws, seed)
    intervals, truth = demo.intervals, data.test.y
    report = {
        "data": data.name,
        "target": data.target,
        "rows": part_sizes(data),
        "test": _scores(intervals.mean, truth)
        | _doubts(intervals.entropy(), intervals.mutual_information(), intervals.mean.argmax(1) == truth),
        **demo.report(),
    }
    draw_unsure(data.test.x, truth, intervals, LEVELS, out / "unsure.png")
    draw_certainty(intervals, truth, out / "certainty.png")
    write_text(out / "intervals.csv", _csv(demo))
    write_json(out / "report.json", report)

    print_times(demo)
    _print(report["test"])
    print_files(demo, "intervals.csv", "unsure.png", "certainty.png", "report.json")
    return report


def _scores(p: NDArray[np.float32], truth: NDArray[np.int64]) -> dict[str, float]:
    """Of class probabilities [rows, classes]; the calibration error in equal bins (Guo et al. 2017, equation 3)."""
    confidence, right = p.max(1).astype(np.float64), p.argmax(1) == truth
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs((right[bins == k] - confidence[bins == k]).sum()) for k in range(BINS)]
    true_class = p[np.arange(len(p)), truth].astype(np.float64)
    return {
        "accuracy": float(right.mean()),
        "negative_log_likelihood": float(-np.log(np.maximum(true_class, np.finfo(np.float32).tiny)).mean()),
        "calibration_error": float(sum(gaps) / len(p)),
    }


def _doubts(
    entropy: NDArray[np.float32], information: NDArray[np.float32], right: NDArray[np.bool_]
) -> dict[str, dict[str, Any]]:
    """How many answers are right and wrong, and the mean doubt about them in nats, None where there are none."""
    return {
        name: {
            "rows": int(rows.sum()),
            "entropy": float(entropy[rows].mean()) if rows.any() else None,
            "mutual_information": float(information[rows].mean()) if rows.any() else None,
        }
        for name, rows in (("right", right), ("wrong", ~right))
    }


def _csv(demo: Demo) -> str:
    test, intervals = demo.data.test, demo.intervals
    frame = intervals.to_frame()
    first = {
        "row": test.dates,
        "digit": test.y,
        "answer": intervals.mean.argmax(1),
        "entropy": intervals.entropy(),
        "mutual information": intervals.mutual_information(),
    }
    for place, (name, column) in enumerate(first.items()):
        frame.insert(place, name, column)
    return frame.to_csv(index=False)


def _print(found: dict[str, Any]) -> None:
    console.print(
        f"The test part: accuracy {found['accuracy']:.1%}, negative log likelihood "
        f"{found['negative_log_likelihood']:.3g} nats, expected calibration error {found['calibration_error']:.2%}."
    )
    table = Table(title="How unsure it is, in nats (a blind guess: 2.3)", title_justify="left")
    for column in ("answers", "digits", "entropy", "of it from the weights"):
        table.add_column(column, justify="left" if column == "answers" else "right")
    for name in ("right", "wrong"):
        own = found[name]
        doubts = (own["entropy"], own["mutual_information"])
        table.add_row(name, str(own["rows"]), *("" if doubt is None else f"{doubt:.3f}" for doubt in doubts))
    console.print(table)
