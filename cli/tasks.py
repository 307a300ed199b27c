"""The commands that need BLiTZ and torch: train, export, verify."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import nn

from .. import Card, Noise
from ..data import forecast_names
from ..export import required_operators, to_onnx, to_ort, to_pt2, to_torchscript
from ..export import verify as prove
from ..models import Forecaster
from ..runtime.artifact import read
from ..runtime.contract import Array
from ..runtime.errors import InputError
from ..runtime.typical import typical_input
from ..train import (
    Checkpoint,
    Dataset,
    fit,
    load_checkpoint,
    prepare,
    read_series,
    residual_noise,
    save_checkpoint,
)
from .examples import say
from .networks import example_of, network_of
from .tables import changes, console, write_json

WRITERS = {".onnx": to_onnx, ".pt": to_torchscript, ".pt2": to_pt2}


def train(
    csv: Path,
    target: str,
    features: list[str],
    date: str | None,
    out: Path,
    window: int,
    horizon: int,
    values: str,
    noise: str,
    degrees: int,
    network: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    distribution = "student-t" if degrees else "gaussian"
    learned = Noise(distribution, degrees) if noise == "learned" else None
    data = prepare(read_series(csv, target, features, date), window, horizon, values=values)
    say(data.repairs)
    network |= {"features": len(data.columns), "horizon": data.horizon, "learned_noise": learned is not None}
    checkpoint = fit_checkpoint(data, lambda: Forecaster(**network), out, {**settings, "noise": learned})
    if noise == "constant":
        fitted = residual_noise(checkpoint.network(), data, distribution, degrees)
        save_checkpoint(out, dataclasses.replace(checkpoint, noise=fitted))
    console.print(f"The best weights are in {out}. Next: murho export {out} model.onnx")


def fit_checkpoint(data: Dataset, make: Callable[[], nn.Module], path: Path, settings: dict[str, Any]) -> Checkpoint:
    """Train what `make` builds and return its checkpoint. Raises KeyboardInterrupt after Ctrl-C, the best one kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])  # for the initial weights
        made = make()
    history = fit(made, data, checkpoint=path, **settings)
    if history.interrupted:
        if history.best_epoch:
            console.print(f"Interrupted after {history.epochs} epochs; the best weights so far are in {path}.")
        raise KeyboardInterrupt
    loss = "cross entropy, nats" if data.task == "classification" else "squared error, standardised units"
    loss = "negative log likelihood, nats" if settings.get("noise") else loss
    console.print(
        f"Trained {history.epochs} epochs in {history.seconds:.0f} s; the best was {history.best_epoch}, with a "
        f"validation loss of {history.best_validation:.4g} ({loss})."
    )
    return load_checkpoint(path)


def export(checkpoint: Path, out: list[Path], options: dict[str, Any]) -> None:
    for path in out:
        if path.suffix not in WRITERS:
            names = " or ".join(WRITERS)
            raise InputError(f"The name of an artifact ends in {names}, not {path.suffix or 'nothing'}: {path}.")
    loaded = load_checkpoint(checkpoint)
    for path in out:
        with console.status(Text(f"Exporting and proving {path} …")):
            card = export_checkpoint(loaded, path, **options)
        error = card.verification["exact"]["largest_error"]
        console.print(f"{path}: {path.stat().st_size / 1000:.0f} kB, within {error:.1e} of BLiTZ at equal noise.")
        if rounding := card.verification.get("storage"):
            console.print(f"Stored in half: {changes(rounding)}.")


def minimal(artifact: Path, out: Path | None) -> None:
    folder = out or artifact.parent
    operators, converted = folder / f"{artifact.stem}.required_operators.config", folder / f"{artifact.stem}.ort"
    required_operators(artifact, operators)
    to_ort(artifact, converted)
    sizes = (f"{path.stat().st_size / 1000:.0f} kB" for path in (converted, artifact))
    console.print(f"{converted}: {next(sizes)}, of {artifact} {next(sizes)}; both give the same numbers.")
    console.print(f"{operators}: for the build of ONNX Runtime with --include_ops_by_config.")


def export_checkpoint(checkpoint: Checkpoint, path: Path, *, horizon: int = 1, **options: Any) -> Card:
    """Write a checkpoint's network as an artifact; the path's suffix chooses the format, `options` are `to_onnx`'s."""
    about = {**export_options(checkpoint, horizon), **options}
    return WRITERS[path.suffix](checkpoint.network(), path, example_inputs(checkpoint), **about)


def export_options(checkpoint: Checkpoint, horizon: int = 1) -> dict[str, Any]:
    """What a checkpoint says of its export, as options of `to_onnx`."""
    names = checkpoint.output_names
    if horizon > 1 and len(names) == 1:
        names = forecast_names(checkpoint.target, horizon)
    return {
        "scaling": checkpoint.scaling,
        "name": checkpoint.name,
        "task": checkpoint.task,
        "input_names": checkpoint.input_names,
        "output_names": names,
        "noise": checkpoint.noise,
        "horizon": horizon,
        "training": checkpoint.summary(),
    }


def example_inputs(checkpoint: Checkpoint, rows: int = 32) -> NDArray[Any]:
    """Inputs [rows, …] in raw units, drawn around the training part's mean and spread."""
    axes = ("batch", *(f"axis{k}" for k in range(1, len(checkpoint.shape) + 1)))
    return typical_input(Array("x", axes, (None, *checkpoint.shape)), checkpoint.scaling, rows)


def verify(artifact: Path, network: str, example: Path | None, json_path: Path | None, trusted: bool) -> None:
    trained = network_of(network)
    inputs = None if example is None else example_of(read(artifact).card, example)
    with console.status(Text(f"Proving {artifact} against BLiTZ …")):
        report = prove(artifact, trained, inputs, trusted=trusted)
    table = Table(title=f"{artifact} says what BLiTZ says", title_justify="left")
    for column in ("proof", "result", "allowed"):
        table.add_column(column)
    for case in report["exact"]["cases"]:
        name = f"equal noise: {case['draws']} draws, {case['batch']} rows" + (
            f", {case['steps']} steps" if case["steps"] else ""
        )
        table.add_row(name, f"relative error {case['error']:.1e}", f"{case['allowed']:.1e}")
    alive, streams, rows = report["alive"], report["streams"], report["rows"]
    name = f"each of {rows['rows']} rows asked alone"
    table.add_row(name, f"relative error {rows['error']:.1e}", f"{rows['allowed']:.1e}")
    for key, what in (("law", "law"), ("law_with_noise", "law with noise")):
        if law := report.get(key):
            name = f"{what}: {law['tests']} Kolmogorov-Smirnov tests of {law['draws']} draws"
            table.add_row(name, f"smallest p {law['smallest_p']:.2g}", f"{law['threshold']:.1g}")
    table.add_row(f"alive: {alive['seeds']} seeds and {alive['draws']} draws differ, equal ones agree", "they do", "")
    table.add_row(
        f"independent: {streams['streams']} streams of numbers, sites and noise",
        f"correlation {streams['largest_correlation']:.2g}",
        f"{streams['bound']:.2g}",
    )
    console.print(table)
    if rounding := report.get("storage"):
        console.print(f"Stored in half: {changes(rounding)}.")
    if json_path is not None:
        write_json(json_path, report)
