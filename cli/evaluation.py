"""The command that shows whether an artifact's intervals cover what they say."""

from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from .. import load
from ..data import Dataset, Part, Series, prepare
from ..evaluation import LEVELS, Scores, compare, score
from ..evaluation.evaluate import forecasts_of
from ..runtime.errors import InputError
from .examples import Asked, Read, examples, say
from .pictures_calibration import draw_calibration, draw_coverage
from .tables import console, write_json

SHOWN = (0.8, 0.9, 0.95)


def evaluate(
    artifact: Path,
    data: Path,
    *,
    asked: Asked,
    rows: str,
    baselines: bool,
    out: Path,
    draws: int,
    seed: int,
    trusted: bool,
) -> dict[str, Any]:
    model = load(artifact, trusted=trusted)
    card = model.card
    part, which, read = examples(card, data, asked, rows, "test")
    say(read.table.repairs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {out}: {error.strerror}. Choose another with --out.") from None
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"Forecasting {len(part)} rows", total=len(part))
        forecasts = forecasts_of(model, part.x, part.y, draws, advance=lambda n: progress.advance(task, n))
    about = card.training
    own = card.task == "forecast" and read.columns == (about.get("target"), *about.get("features", ()))
    if baselines and own and which.startswith("the test part"):
        with console.status("Forecasting the same windows by other methods; one of them is trained …"):
            forecasts |= dict(compare(*_dataset(read, part, card.scaling.values, about["splits"]), seed))
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


def _dataset(read: Read, part: Part, values: str, splits: list[float]) -> tuple[Series, Dataset]:
    """The file as the network was trained on it, for methods that are trained on its training part."""
    target, *features = read.columns
    table = read.table
    series = Series(table.name, target, tuple(features), table.values, table.dates, table.repairs)
    assert read.window is not None
    return series, prepare(series, read.window, part.y.shape[1], (splits[0], splits[1], splits[2]), values)


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
