"""What storage="half" saves and costs: bytes of a file, how far samples and interval ends move, time to load and call.

Run: python benchmarks/storage.py [--only NAME] [--json storage.json]. Takes some ten minutes on 2 cores, nearly all of
them the proofs of the exports. The networks are those of latency.py, trained a little longer: how far an interval moves
depends on σ beside μ.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latency import SUBJECTS, Subject
from rich.table import Table

import murho
from murho.cli.bench import machine
from murho.cli.tables import console, write_json
from murho.export import to_onnx, to_torchscript
from murho.runtime.contract import STORAGES
from murho.train import fit

EPOCHS, ROUNDS = 20, 9
WRITE = {"onnx": to_onnx, "pt": to_torchscript}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="a network; may be repeated")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    results = []
    for name in arguments.only or SUBJECTS:
        with tempfile.TemporaryDirectory() as folder, console.status(f"Exporting {SUBJECTS[name].title} …"):
            results += [{"network": name, **row} for row in measure(SUBJECTS[name], Path(folder))]
    show(results)
    if arguments.json:
        write_json(arguments.json, {"machine": machine(), "epochs": EPOCHS, "results": results})


def show(results: list[dict[str, Any]]) -> None:
    sizes = Table(title=f'storage="half", networks trained {EPOCHS} epochs', title_justify="left")
    costs = Table(title="Time of a thread: float32, half", title_justify="left")
    for table, columns in (
        (sizes, ("float32", "half", "", "samples", "ends", "at most")),
        (costs, ("load", "16 draws")),
    ):
        for column in ("network", "format", *columns):
            table.add_column(column, justify="left" if column in ("network", "format") else "right")
    for row in results:
        whole, half = (row["storage"][storage] for storage in STORAGES)
        share, moved = half["bytes"] / whole["bytes"], row["rounding"]
        ends = (f"{100 * moved[part]:.2g} %" for part in ("ends", "largest_end"))
        name = row["network"], row["format"]
        kilobytes = (f"{kept['bytes'] / 1000:.1f} kB" for kept in (whole, half))
        sizes.add_row(*name, *kilobytes, f"{share:.0%}", f"{moved['samples']:.1e}", *ends)
        costs.add_row(*name, *(f"{whole[part]:.1f}, {half[part]:.1f} ms" for part in ("load_ms", "call_ms")))
    console.print(sizes)
    console.print(
        "samples: largest difference at equal noise, relative to the largest output; ends: median and largest change "
        "of the ends of a 95 % interval, relative to its width."
    )
    console.print(costs)


def measure(subject: Subject, folder: Path) -> list[dict[str, Any]]:
    data = subject.data()
    torch.manual_seed(0)
    network = subject.network()
    fit(network, data, epochs=EPOCHS, samples=1, progress=False)
    rows = []
    for format, write in WRITE.items():
        paths = {storage: folder / f"{storage}.{format}" for storage in STORAGES}
        for storage, path in paths.items():
            card = write(network, path, data.train.x[:32], scaling=data.scaling, task=data.task, storage=storage)
        costs = timed(paths, data.train.x[:1])
        sizes = {storage: {"bytes": path.stat().st_size, **costs[storage]} for storage, path in paths.items()}
        rows.append({"format": format, "storage": sizes, "rounding": card.verification["storage"]})
    return rows


def timed(paths: dict[str, Path], x: np.ndarray) -> dict[str, dict[str, float]]:
    """Milliseconds to load a file, and for a chunk of 16 draws of one row, the storages in turn: medians.

    Time of this thread, since the machine may have other work.
    """
    models = {storage: murho.load(path, trusted=True) for storage, path in paths.items()}
    for model in models.values():
        for _ in range(3):  # TorchScript optimises in the first calls of a shape
            model.samples(x, 16)
    laps: dict[str, dict[str, list[float]]] = {storage: {"load_ms": [], "call_ms": []} for storage in paths}
    for _ in range(ROUNDS):
        for storage, path in paths.items():
            laps[storage]["load_ms"].append(milliseconds(lambda path=path: murho.load(path, trusted=True)))
            laps[storage]["call_ms"].append(milliseconds(lambda model=models[storage]: model.samples(x, 16)))
    return {
        storage: {part: float(np.median(times)) for part, times in parts.items()} for storage, parts in laps.items()
    }


def milliseconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return 1000 * (time.thread_time() - start)


if __name__ == "__main__":
    main()
