"""The command that makes an artifact's intervals cover what they say."""

from pathlib import Path

from rich.table import Table

from .. import load
from .examples import Asked, examples, say
from .tables import console


def calibrate(
    artifact: Path,
    data: Path,
    *,
    asked: Asked,
    out: Path | None,
    levels: list[float],
    half_life: float | None,
    rows: str,
    trusted: bool,
) -> None:
    model = load(artifact, trusted=trusted)
    part, which, read = examples(model.card, data, asked, rows, "calibration")
    say(read.table.repairs)
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
