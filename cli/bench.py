"""Time artifacts and BLiTZ's own loop side by side in one run, and check every result that was timed."""

import platform
import time
from collections.abc import Callable, Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from rich.table import Table

from .. import Intervals, Model, MurhoError, load
from ..runtime.compare import MULTIPLE, largest_value, raw_units, relative_error, tolerance_of
from ..runtime.contract import Card
from ..runtime.errors import InputError
from ..runtime.planner import cores
from ..runtime.typical import typical_inputs
from .entry import extra
from .tables import console, write_json

Inputs = NDArray[Any] | tuple[NDArray[Any], ...]
System = Callable[[Inputs, int, int], Intervals]  # of x, a number of draws, and a seed

LOOP = "BLiTZ loop"
LOCAL = ", local"  # ends the name of an artifact that samples outputs in place of weights
LEVEL = 0.95
SETTLING = 3  # calls before one that is timed
WARM_UP = 5  # calls: the first ones of a shape allocate, optimise, try sizes of chunks, and keep what they draw


def run(
    artifacts: list[Path],
    *,
    against: str | None,
    batches: list[int],
    draw_counts: list[int],
    rounds: int,
    json_path: Path | None = None,
    trusted: bool = False,
) -> list[dict[str, Any]]:
    """Print the table, write the JSON, and return its rows, one per system and shape; times in milliseconds.

    Raises MurhoError where a timed result is wrong.
    """
    if json_path is not None and not json_path.parent.is_dir():
        raise InputError(f"The folder {json_path.parent} does not exist. Make it first.")
    models = [load(path, trusted=trusted) for path in artifacts]
    card = models[0].card
    if len({model.card.posterior_sha256 for model in models}) > 1:
        raise InputError(
            "The artifacts were made from different networks, or store one differently. Benchmark artifacts of one "
            "network and storage together."
        )
    systems: dict[str, System] = {system_name(model): _murho(model) for model in models}
    loop = None
    if against is not None:
        network = extra(".networks", "train").network_of(against)
        loop = extra(".loop", "train").BlitzLoop(network, card, against)
    if loop is not None:
        systems[LOOP] = lambda x, draws, seed: loop(x, draws, LEVEL)
    turns = {name: max(1, rounds // 3) if name == LOOP else rounds for name in systems}
    results: list[dict[str, Any]] = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(batches) * len(draw_counts) * sum(turns.values()))
        for batch in batches:
            inputs = typical_inputs(card, batch)
            x = inputs if len(inputs) > 1 else inputs[0]
            for draws in draw_counts:
                progress.update(task, description=f"{batch} rows, {draws} draws")
                short = {name: system for name, system in systems.items() if name != LOOP}
                warm_up(short, x, draws)
                times, answers = timed(systems, turns, x, draws, lambda *_: progress.advance(task), settled=short)
                check(card, answers, loop, x)
                results += rows(times, batch, draws, float(np.median(times[LOOP])) if LOOP in times else None)
    console.print(_table(results, card))
    if json_path is not None:
        write_json(json_path, {"network": card.name, "machine": machine(), "results": results})
    return results


def system_name(model: Model) -> str:
    """What tables and JSON call an artifact, with compiled code or without."""
    engine = model.engine.partition(" ")[0]
    return f"murho {engine}{LOCAL if any(site.sampling == 'local' for site in model.card.sites) else ''}"


def warm_up(systems: dict[str, System], x: Inputs, draws: int) -> None:
    for system in systems.values():
        for call in range(WARM_UP):
            system(x, draws, _first_seed(x, draws) - 1 - call)


def timed(
    systems: dict[str, System],
    turns: dict[str, int],
    x: Inputs,
    draws: int,
    after: Callable[[str, Intervals], object] = lambda name, answer: None,
    settled: Collection[str] = (),
) -> tuple[dict[str, list[float]], dict[str, Intervals]]:
    """Milliseconds of each call, and each system's last answer. `after` sees every answer, its time is not counted.

    Before each call of a `settled` system come some that are not timed, so that the caches hold what this system works
    with and not what the one before it left, and its threads are awake.

    The systems go in turn, so that a slow moment of the machine hits all; one with fewer turns gets them spread over
    the others'. Every call of a system has a seed that it never had before, in another shape neither: nothing that
    was kept helps. Systems with as many turns have the same ones.
    """
    times: dict[str, list[float]] = {name: [] for name in systems}
    answers = {}
    most, first = max(turns.values()), _first_seed(x, draws)
    for turn in range(most):
        for name, system in systems.items():
            if (done := len(times[name])) < turns[name] * (turn + 1) // most:
                for call in range(SETTLING if name in settled else 0):
                    system(x, draws, first + most + SETTLING * done + call)
                start = time.perf_counter()
                answers[name] = system(x, draws, first + done)
                times[name].append(1000 * (time.perf_counter() - start))
                after(name, answers[name])
    return times, answers


def _first_seed(x: Inputs, draws: int) -> int:
    return (len(_first(x)) << 40) + (draws << 16)


def _first(x: Inputs) -> NDArray[Any]:
    return x[0] if isinstance(x, tuple) else x


def check(card: Card, answers: dict[str, Intervals], loop: Any, x: Inputs) -> None:
    """Compare what was timed: artifacts draw by draw, with BLiTZ at equal noise, and with BLiTZ's loop in law."""
    for local in (False, True):
        ours = {name: a for name, a in answers.items() if name != LOOP and name.endswith(LOCAL) == local}
        if ours:
            _check_alike(card, ours, answers.get(LOOP), loop, x, local)


def _check_alike(
    card: Card, ours: dict[str, Intervals], free: Intervals | None, loop: Any, x: Inputs, local: bool
) -> None:
    """Check artifacts that sample alike."""
    first = next(iter(ours.values()))
    scale, offset = raw_units(card.scaling, _first(x))
    for name, answer in ours.items():
        error, allowed = relative_error(
            answer.samples, first.samples, scale, offset, tolerance=tolerance_of(card, forms=2)
        )
        if error > allowed:
            raise MurhoError(
                f"{name} differs from the other artifact by {error:.2g} of the largest value (allowed: {allowed:.2g})."
            )
    if free is None:
        return
    check_at_equal_noise(card, first, loop, x, local)
    # Two means of S draws differ by √(std²/S + std²/S); seven such errors are beyond chance.
    chance = 7 * np.sqrt((first.std**2 + free.std**2) / len(first.draws))
    rounding = tolerance_of(card) * largest_value(first.samples, scale, offset) * np.abs(scale)
    rounding = rounding + 2 * np.spacing(np.abs(first.samples).max())
    if not (np.abs(first.mean - free.mean) <= chance + rounding).all():
        raise MurhoError("The artifact's mean differs from the mean of BLiTZ's loop by more than chance explains.")


def check_at_equal_noise(card: Card, answer: Intervals, loop: Any, x: Inputs, local: bool) -> None:
    """Compare an artifact's first draws with those of BLiTZ's own layers, the generator's noise put in."""
    if card.weakness:
        raise MurhoError(f"The artifact cannot be compared with BLiTZ at equal noise. {card.weakness}")
    few, units = answer.draws[:8], raw_units(card.scaling, _first(x))
    wanted, largest = loop.given(x, few, answer.seed, local), largest_value(answer.samples, *units)
    coarse = loop.given(x, few, answer.seed, local, float32=True)
    tolerance = max(tolerance_of(card), MULTIPLE * relative_error(coarse, wanted, *units, largest)[0])
    error, allowed = relative_error(answer.samples[: len(few)], wanted, *units, largest, tolerance=tolerance)
    if error > allowed:
        raise MurhoError(
            f"The artifact differs from BLiTZ at equal noise by {error:.2g} of the largest value (allowed: "
            f"{allowed:.2g})."
        )


def machine() -> dict[str, Any]:
    """What a reader must know to compare times."""
    versions = {}
    for package in ("murho", "numpy", "onnxruntime", "torch", "blitz-bayesian-pytorch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"processor": platform.processor() or platform.machine(), "cores": cores(), "versions": versions}


def _murho(model: Model) -> System:
    return lambda x, draws, seed: model.predict(x, draws, LEVEL, seed)


def rows(times: dict[str, list[float]], batch: int, draws: int, baseline: float | None) -> list[dict[str, Any]]:
    """What tables and JSON say of milliseconds by system; `baseline` is the median that they are compared with."""
    found = []
    for name, values in times.items():
        q25, median, q75, p95 = (float(value) for value in np.percentile(values, [25, 50, 75, 95]))
        found.append(
            {
                "rows": batch,
                "draws": draws,
                "system": name,
                "median_ms": median,
                "q25_ms": q25,
                "q75_ms": q75,
                "p95_ms": p95,
                "rounds": len(values),
                "times_faster_than_blitz": None if baseline is None else baseline / median,
            }
        )
    return found


def _table(results: list[dict[str, Any]], card: Card) -> Table:
    table = Table(title=f"{card.name}: time of one interval, results checked", title_justify="left")
    for column in ("rows", "draws", "system", "median", "p95", "faster than BLiTZ"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for row in results:
        ratio = row["times_faster_than_blitz"]
        cells = (
            str(row["rows"]),
            str(row["draws"]),
            row["system"],
            f"{row['median_ms']:.1f} ms",
            f"{row['p95_ms']:.1f} ms",
        )
        table.add_row(
            *cells, "" if ratio is None else f"{ratio:.3g} ×", end_section=row["system"] == results[-1]["system"]
        )
    return table
