"""Instructions that a process executes for an interval, in place of time: they hardly depend on what else runs.

Run: python benchmarks/instructions.py [--write docs/benchmark.md]. By `perf stat` where the machine counts
instructions, else by valgrind's callgrind, which takes a quarter of an hour; where there is neither, the section says
so. A process that makes more calls executes these calls' instructions more: the difference of two processes, on one
thread. The tutorial's network, one row.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from murho.cli.tables import console

DRAWS, PASSES, CALLS = 1000, 20, 2
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SYSTEMS = {
    "BLiTZ loop": "loop", "PyTorch, batched by hand": "hand", "murho TorchScript": "tutorial.pt",
    "murho ONNX": "tutorial.onnx",
}  # fmt: skip
"""What the process is told, by the name in the table."""
COUNTERS: dict[str, tuple[list[str], str]] = {
    "perf": (["perf", "stat", "-x", ",", "-e", "instructions:u"], r"^(\d+),[^\n]*instructions:u"),
    "valgrind": (["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"], r"Collected : (\d+)"),
}
"""The command that counts, and what its report looks like."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="put the section into this page")
    parser.add_argument(
        "--process", nargs=3, metavar=("SYSTEM", "FOLDER", "CALLS"), help="make the calls in this process"
    )
    options = parser.parse_args()
    if options.process:
        system, folder, calls = options.process
        call(system, Path(folder), int(calls))
        return
    from studies import write_section

    with tempfile.TemporaryDirectory() as name:
        export(Path(name))
        text = section(Path(name))
    write_section(options.write, "Instructions", text, head="# Benchmark")


def export(folder: Path) -> None:
    import torch

    from murho.export import to_onnx, to_torchscript
    from murho.models import Forecaster

    torch.manual_seed(0)
    network = Forecaster()
    to_onnx(network, folder / "tutorial.onnx", torch.randn(8, 21, 1))
    to_torchscript(network, folder / "tutorial.pt", torch.randn(8, 21, 1))
    torch.save(network.state_dict(), folder / "state")


def call(system: str, folder: Path, calls: int) -> None:
    """Intervals from DRAWS draws, of a loop from PASSES, so many times, each with draws of its own."""
    import numpy as np

    x = np.zeros((1, 21, 1), np.float32)
    once = _artifact(folder / system, x) if system.startswith("tutorial") else _torch(system, folder, x)
    for seed in range(calls):
        once(seed)


def _artifact(path: Path, x: object) -> Callable[[int], object]:
    import murho

    model = murho.load(path, threads=1)
    return lambda seed: model.predict(x, DRAWS, seed=seed)


def _torch(system: str, folder: Path, x: object) -> Callable[[int], object]:
    import numpy as np
    import torch
    from hand_batched import HandBatched

    from murho.export.recognition import read_posteriors
    from murho.models import Forecaster
    from murho.runtime.intervals import summarise

    network = Forecaster().eval()
    network.load_state_dict(torch.load(folder / "state", weights_only=True))
    batched = HandBatched(network, read_posteriors(network).values())
    rows = torch.as_tensor(x)

    def once(seed: int) -> object:
        with torch.no_grad():
            samples = batched(rows, DRAWS) if system == "hand" else torch.stack([network(rows) for _ in range(PASSES)])
        return summarise(samples.numpy(), 0.95, np.arange(len(samples)), seed)

    return once


def section(folder: Path) -> str:
    counter = next((name for name in COUNTERS if shutil.which(name) and counted(name, ["true"]) is not None), None)
    if counter is None:
        return f"Not counted: neither {' nor '.join(COUNTERS)} counts instructions on this machine."
    per_draw = {}
    for name, system in SYSTEMS.items():
        with console.status(f"{name}, counted by {counter} …"):
            counts = [counted(counter, process(system, folder, calls)) for calls in (CALLS, 2 * CALLS)]
        draws = PASSES if system == "loop" else DRAWS
        fewer, more = counts
        per_draw[name] = None if fewer is None or more is None else (more - fewer) / CALLS / draws
    loop = per_draw["BLiTZ loop"]
    lines = [
        f"`python benchmarks/instructions.py`: the tutorial's network, one row, one thread, by {counter}: what {CALLS} "
        f"more calls add, after {CALLS}. Calls of {DRAWS} draws, of the loop {PASSES}.",
        "",
        "| system | instructions for a draw | fewer than the loop |",
        "|---|---|---|",
    ]
    for name, count in per_draw.items():
        if count is None:
            lines.append(f"| {name} | {counter} failed | |")
        else:
            lines.append(f"| {name} | {count:,.0f} | {f'{loop / count:.3g} ×' if loop else ''} |")
    return "\n".join(lines)


def process(system: str, folder: Path, calls: int) -> list[str]:
    return [sys.executable, __file__, "--process", system, str(folder), str(calls)]


def counted(counter: str, command: list[str]) -> int | None:
    """Instructions of a process, or None where it failed or was not counted."""
    prefix, report = COUNTERS[counter]
    run = subprocess.run([*prefix, *command], capture_output=True, text=True, env=os.environ | ONE_THREAD)
    found = re.search(report, run.stderr, re.MULTILINE)
    return int(found[1]) if found and run.returncode == 0 else None


if __name__ == "__main__":
    main()
