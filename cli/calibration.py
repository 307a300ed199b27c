"""The commands that make intervals honest, and show whether they are: calibrate, evaluate."""

from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from .. import Card, load
from ..evaluation import LEVELS, Scores, compare, followed, of_model, score
from ..runtime.errors import InputError
from ..runtime.fingerprint import fingerprint
from ..train import Dataset, Part, Series, prepare, read_series
from ..train.data import all_windows
from .pictures_calibration import draw_calibration, draw_coverage
from .tables import console, read_table, write_json

SHOWN = (0.8, 0.9, 0.95)


def calibrate(
    artifact: Path,
    data: Path,
    *,
    date: str | None,
    out: Path | None,
    levels: list[float],
    half_life: float | None,
    rows: str,
    trusted: bool,
) -> None:
    model = load(artifact, trusted=trusted)
    part, which = _rows(model.card, data, date, rows, "calibration")
    found = model.calibrate(part.x, part.y, levels or None, half_life)
    model.save(out or artifact)
    table = Table(title=f"{found.rows} rows: {which}. The intervals are stretched by", title_justify="left")
    table.add_column("level")
    names = model.card.output.names or [str(k + 1) for k in range(len(found.factors[0]))]
    for name in names:
        table.add_column(name, justify="right")
    for level, factors in zip(found.levels, found.factors, strict=True):
        table.add_row(f"{100 * level:g}%", *(f"{factor:.3g}" for factor in factors))
    console.print(table)
    console.print(f"Written to {out or artifact}.")


def evaluate(
    artifact: Path,
    data: Path,
    *,
    date: str | None,
    rows: str,
    baselines: bool,
    out: Path,
    draws: int,
    seed: int,
    trusted: bool,
) -> dict[str, Any]:
    model = load(artifact, trusted=trusted)
    card = model.card
    part, which = _rows(card, data, date, rows, "test")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {out}: {error.strerror}. Choose another with --out.") from None
    name = "murho" if card.calibration else "murho, not calibrated"
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"Forecasting {len(part)} rows", total=len(part))
        ours = of_model(model, part.x, draws, calibrated=True, advance=lambda n: progress.advance(task, n))
    forecasts = {name: ours}
    if card.task == "forecast":
        forecasts["murho, online"] = followed(ours, part.y)
    if baselines and card.task == "forecast" and which.startswith("the test part"):
        with console.status("Forecasting the same windows by other methods; one of them is trained …"):
            forecasts |= dict(compare(*_dataset(card, data, date), seed))
    found = {method: score(one, part.y) for method, one in forecasts.items()}
    report = {
        "artifact": card.name,
        "data": data.name,
        "rows": which,
        "levels": LEVELS,
        "methods": {method: scores.as_json() for method, scores in found.items()},
    }
    write_json(out / "evaluation.json", report)
    draw_calibration(found, out / "calibration.png")
    draw_coverage(forecasts, part, out / "coverage.png")
    console.print(scores_table(found, f"{card.name}: {which}, {len(part)} rows"))
    console.print(f"Written to {out}: evaluation.json, calibration.png, coverage.png")
    return report


def scores_table(found: dict[str, Scores], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("method", "level", "covers", "worst step", "mean width", "interval score", "pinball", "CRPS"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, scores in found.items():
        for k, level in enumerate(SHOWN):
            key = f"{level:g}"
            worst = max(scores.coverage_per_step[key], key=lambda share: abs(share - level))
            table.add_row(
                method if k == 0 else "",
                f"{level:.0%}",
                f"{scores.coverage[key]:.1%} ± {scores.coverage_error[key]:.1%}",
                f"{worst:.1%}",
                *(f"{values[key]:.4g}" for values in (scores.width, scores.interval_score, scores.pinball)),
                f"{scores.crps:.4g}" if k == 0 else "",
                end_section=k == len(SHOWN) - 1,
            )
    return table


def _rows(card: Card, data: Path, date: str | None, rows: str, usual: str) -> tuple[Part, str]:
    """The rows of a file to use, and what to call them."""
    if card.task != "forecast":
        if rows not in ("auto", "all"):
            raise InputError(f"--rows {rows} is for forecasts; the rows of a table are taken all. Leave it out.")
        return _table_rows(card, data), f"all of {data.name}"
    series, dataset = _dataset(card, data, date)
    every = all_windows(series, dataset.shape[0], dataset.horizon)
    if rows == "auto":
        known = set(card.training.get("fingerprint", ()))
        rows = usual if known & set(fingerprint(every.x, len(every))) else "all"
    if rows == "all":
        return every, f"all of {data.name}"
    return getattr(dataset, rows), f"the {rows} part of {data.name}"


def _dataset(card: Card, data: Path, date: str | None) -> tuple[Series, Dataset]:
    about = card.training
    missing = [key for key in ("target", "features", "window", "splits") if key not in about]
    horizon = card.output.shape[1]
    if missing or horizon is None:
        raise InputError(
            f"The artifact's card does not say {', '.join(missing)} of its training, so rows cannot be cut from a "
            "file. Export it from a checkpoint of murho train, or call model.calibrate(x, y) from Python."
        )
    series = read_series(data, about["target"], about["features"], date)
    return series, prepare(series, about["window"], horizon, tuple(about["splits"]), card.scaling.values)


def _table_rows(card: Card, data: Path) -> Part:
    frame = read_table(data)
    inputs, outputs = list(card.input.names), list(card.output.names)
    if not inputs or not outputs:
        raise InputError(
            "The artifact's card does not name its columns, so rows cannot be read from a file. Call "
            "model.calibrate(x, y) from Python."
        )
    if missing := [name for name in inputs + outputs if name not in frame.columns]:
        raise InputError(f"{data} lacks the column(s) {', '.join(missing)}; it has {', '.join(frame.columns)}.")
    x, y = frame[inputs].to_numpy("float32"), frame[outputs].to_numpy("float32")
    return Part(x, y, frame.index.to_numpy())
