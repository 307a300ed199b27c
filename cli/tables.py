"""What the commands without torch print and write: predictions of a CSV file, and an artifact's card."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .. import load
from ..runtime.artifact import Artifact, read
from ..runtime.contract import Array, Card
from ..runtime.engines import open_engine
from ..runtime.files import write_file
from .examples import Asked, read_for, say

console = Console(markup=False)  # paths and names of columns may hold brackets


def predict(
    artifact: Path,
    csv: Path,
    *,
    asked: Asked,
    latest: bool,
    out: Path | None,
    draws: int | None,
    tolerance: float | None,
    levels: list[float],
    seed: int | None,
    device: str,
    trusted: bool,
) -> None:
    model = load(artifact, device, trusted=trusted)
    read = read_for(model.card, csv, asked)
    say(read.table.repairs)
    x, rows = read.inputs(latest)
    level = (levels[0] if len(levels) == 1 else levels) if levels else None
    answer = model.predict(x, draws, level, seed, tolerance=tolerance).to_frame(rows)
    if out is None:
        print(answer.to_string())
    else:
        write_text(out, answer.to_csv())
        console.print(f"{len(answer)} rows written to {out}.")


def info(path: Path, as_json: bool) -> None:
    artifact = read(path)
    card = artifact.card
    if as_json:
        print(card.to_json())
        return
    table = Table(title=card.name, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("task", card.task)
    table.add_row("created", card.created)
    for array in card.inputs:
        table.add_row(f"input {array.name}", _described(array))
    for array in card.outputs:
        table.add_row(f"output {array.name}", _described(array))
    for name, value in card.constants.items():
        table.add_row(f"constant {name}", described_constant(value))
    table.add_row("defaults", f"{card.draws} draws, level {', '.join(f'{v:g}' for v in card.levels)}, seed {card.seed}")
    table.add_row("generator", card.generator)
    table.add_row("posterior SHA-256", card.posterior_sha256)
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items()))
    table.add_row("engine here", _engine(artifact))
    table.add_row("noise", _noise(card))
    table.add_row("horizon", f"{card.horizon} steps, each draw fed back" if card.horizon > 1 else "no path")
    table.add_row("stream", f"carries {len(card.states)} states from row to row" if card.states else "no states")
    table.add_row("calibration", _calibration(card))
    table.add_row("storage", "half: μ in float16, log σ in 8 bits" if card.storage == "half" else card.storage)
    training = {key: value for key, value in card.training.items() if key != "fingerprint"}
    table.add_row("training", "\n".join(f"{key}: {value}" for key, value in training.items()) or "none")
    table.add_row("proof", _proof(card.verification))
    console.print(table)
    sites = Table(title="Sites: calls of Bayesian layers", title_justify="left")
    for column in ("site", "layer", "kind", "tensors", "n", "σ / |μ|"):
        numeric = column in ("site", "n", "σ / |μ|")
        sites.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for number, site in enumerate(card.sites):
        shapes = "\n".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in site.shapes.items())
        kind = f"{site.kind}, local" if site.sampling == "local" else site.kind
        ratio = f"{site.relative_sigma:.2g}{'' if site.trained else ' !'}"
        sites.add_row(str(number), site.layer, kind, shapes, f"{site.n:,}", ratio)
    console.print(sites)
    if any(site.sampling == "local" for site in card.sites):
        console.print("local: draws outputs in place of weights; each row has the same law, rows together have not.")
    if card.weakness:
        console.print(f"! Warning: {card.weakness}", style="yellow", markup=False)
    if still := sorted({site.layer for site in card.sites if not site.trained}):
        console.print(
            f"! Warning: in {', '.join(still)} σ never left the value that BLiTZ starts it at, so the intervals say "
            "nothing about the data. Train longer, or with a larger learning rate for ρ.",
            style="yellow",
        )


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises InputError if it cannot."""
    write_file(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _described(array: Array) -> str:
    axes = ", ".join(a if size is None else f"{a} {size}" for a, size in zip(array.axes, array.shape, strict=True))
    names = f": {', '.join(array.names)}" if array.names else ""
    return f"{array.dtype} [{axes}]{names}{f' in {array.unit}' if array.unit else ''}"


def described_constant(value: Any) -> str:
    if isinstance(value, dict) and "sha256" in value:
        return f"{value['dtype']} {value['shape']}, SHA-256 {value['sha256'][:12]}…"
    return json.dumps(value, ensure_ascii=False)


def _engine(artifact: Artifact) -> str:
    """What would evaluate it; for a format of torch, that is not opened to find out."""
    return open_engine(artifact, "cpu").name if artifact.format == "onnx" else artifact.format


def _noise(card: Card) -> str:
    if card.noise is None:
        return "none: the interval shows the weights' doubt alone"
    law = "Gaussian" if not card.noise.degrees else f"Student-t, {card.noise.degrees} degrees of freedom"
    scales = ", ".join(f"{scale:.3g}" for scale in card.noise.scale)
    return f"{law}, {'learned by the network' if card.noise.learned else f'scale {scales} in its units'}"


def _calibration(card: Card) -> str:
    if (found := card.calibration) is None:
        return "none: murho calibrate"
    levels = ", ".join(f"{level:g}" for level in found.levels)
    age = f", weight halved every {found.half_life:g} rows" if found.half_life else ""
    return f"split conformal on {found.rows} rows{age}, levels {levels}"


def _proof(report: dict[str, Any]) -> str:
    if not report:
        return "none"
    exact, law = report["exact"], report["law"]
    rounding = f"\nstorage: {changes(report['storage'])}" if "storage" in report else ""
    return (
        f"equal noise: within {exact['largest_error']:.1e} of BLiTZ in {len(exact['cases'])} shapes\n"
        f"own noise: smallest p {law['smallest_p']:.2g} of {law['tests']} Kolmogorov-Smirnov tests{rounding}"
    )


def changes(rounding: dict[str, Any]) -> str:
    """How far a rounded posterior is from the trained one, in words."""
    return (
        f"samples within {rounding['samples']:.1e} of the trained posterior's, ends of a {100 * rounding['level']:g} % "
        f"interval within {100 * rounding['largest_end']:.2g} % of its width (median {100 * rounding['ends']:.2g} %)"
    )
