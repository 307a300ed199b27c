"""The networks of the benchmarks, from a recurrent cell to convolutions, hardly trained: a call takes the same time
whatever the weights are.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from murho import Model, load
from murho.cli.loop import BlitzLoop
from murho.cli.tasks import export_checkpoint
from murho.models import Classifier, Forecaster, Regressor
from murho.train import Dataset, builtin_series, fit, load_checkpoint, prepare, prepare_rows

WEIGHTS = {"weights.onnx": "weights", "weights.pt": "weights"}
LOCAL = {"local.onnx": "local", "local.pt": "local"}


@dataclass(frozen=True)
class Subject:
    title: str
    network: Callable[[], nn.Module]
    data: Callable[[], Dataset]
    artifacts: dict[str, str]
    """File name: sampling."""


@dataclass(frozen=True)
class Made:
    """A subject, trained and exported."""

    loop: BlitzLoop
    paths: dict[str, Path]
    models: dict[str, Model]
    """Both by file name."""


def series() -> Dataset:
    return prepare(builtin_series())


def table() -> Dataset:
    random = np.random.default_rng(0)
    return prepare_rows(random.standard_normal((300, 13)), random.standard_normal(300), name="noise, 13 features")


def images() -> Dataset:
    random = np.random.default_rng(0)
    classes = [str(digit) for digit in range(10)]
    x, y = random.standard_normal((300, 1, 28, 28)), random.integers(0, 10, 300)
    return prepare_rows(x, y, name="noise, 28 × 28", classes=classes)


SUBJECTS = {
    "lstm10": Subject("LSTM, 10 hidden units, window 21", Forecaster, series, WEIGHTS),
    "lstm64": Subject("LSTM, 64 hidden units, window 21", lambda: Forecaster(hidden=64), series, WEIGHTS),
    "lstm128": Subject("LSTM, 128 hidden units, window 21", lambda: Forecaster(hidden=128), series, WEIGHTS),
    "gru64": Subject("GRU, 64 hidden units, window 21", lambda: Forecaster(hidden=64, cell="gru"), series, WEIGHTS),
    "mlp": Subject("3 × 512 on 13 features", lambda: Regressor(13, (512, 512, 512)), table, WEIGHTS | LOCAL),
    "lenet": Subject("LeNet on 28 × 28", Classifier, images, WEIGHTS | LOCAL),
}


def make(subject: Subject, folder: Path) -> Made:
    """Train for one epoch, and export every artifact, each proven against BLiTZ."""
    checkpoint = folder / "checkpoint"
    torch.manual_seed(0)
    fit(subject.network(), subject.data(), epochs=1, checkpoint=checkpoint, progress=False)
    paths = {name: folder / name for name in subject.artifacts}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is still where BLiTZ starts it")
        for name, sampling in subject.artifacts.items():
            export_checkpoint(load_checkpoint(checkpoint), paths[name], sampling=sampling)
    models = {name: load(path, trusted=True) for name, path in paths.items()}
    return Made(BlitzLoop(load_checkpoint(checkpoint).network(), models["weights.onnx"].card), paths, models)
