"""How fast an interval is, against BLiTZ's own loop, every result checked: the tutorial's network and a wider one, a
3 × 512 regressor on 13 features, and a LeNet on 28 × 28 pixels, the latter two also with local reparameterisation.

Run: python benchmarks/latency.py [--only NAME] [--json latency.json]. Takes some ten minutes on 2 cores. The weights
are hardly trained: a call takes the same time whatever they are.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from murho.cli import bench
from murho.cli.tables import console, write_json
from murho.cli.tasks import export_checkpoint
from murho.models import Classifier, Forecaster, Regressor
from murho.train import Dataset, builtin_series, fit, load_checkpoint, prepare, prepare_rows

WEIGHTS, LOCAL = {"weights.onnx": "weights", "weights.pt": "weights"}, {"local.onnx": "local", "local.pt": "local"}


@dataclass(frozen=True)
class Subject:
    title: str
    network: Callable[[], nn.Module]
    data: Callable[[], Dataset]
    artifacts: dict[str, str]
    """File name: sampling."""
    batches: tuple[int, ...] = (1, 64)


def table() -> Dataset:
    random = np.random.default_rng(0)
    return prepare_rows(random.standard_normal((300, 13)), random.standard_normal(300), name="noise, 13 features")


def images() -> Dataset:
    random = np.random.default_rng(0)
    classes = [str(digit) for digit in range(10)]
    x, y = random.standard_normal((300, 1, 28, 28)), random.integers(0, 10, 300)
    return prepare_rows(x, y, name="noise, 28 × 28", classes=classes)


SUBJECTS = {
    "lstm10": Subject("LSTM, 10 hidden units, window 21", Forecaster, lambda: prepare(builtin_series()), WEIGHTS),
    "lstm64": Subject(
        "LSTM, 64 hidden units, window 21", lambda: Forecaster(hidden=64), lambda: prepare(builtin_series()), WEIGHTS
    ),
    "mlp": Subject("3 × 512 on 13 features", lambda: Regressor(13, (512, 512, 512)), table, WEIGHTS | LOCAL),
    "lenet": Subject("LeNet on 28 × 28", Classifier, images, WEIGHTS | LOCAL),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="a network; may be repeated")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=9, help="timed calls of each system; BLiTZ's loop gets a third")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for name in arguments.only or SUBJECTS:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(SUBJECTS[name], Path(folder), arguments.rounds)
        results += [{"network": name, **row} for row in rows]
    if arguments.json:
        write_json(arguments.json, {"machine": bench.machine(), "results": results})


def measure(subject: Subject, folder: Path, rounds: int) -> list[dict[str, Any]]:
    console.rule(subject.title)
    checkpoint = folder / "checkpoint"
    torch.manual_seed(0)
    fit(subject.network(), subject.data(), epochs=1, checkpoint=checkpoint, progress=False)
    for artifact, sampling in subject.artifacts.items():
        with console.status(f"Exporting {artifact} …"):
            export_checkpoint(load_checkpoint(checkpoint), folder / artifact, sampling=sampling)
    artifacts = [folder / artifact for artifact in subject.artifacts]
    return bench.run(artifacts, against=checkpoint, batches=list(subject.batches), draw_counts=[1000], rounds=rounds)


if __name__ == "__main__":
    main()
