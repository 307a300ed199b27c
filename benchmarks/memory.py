"""Peak memory of the tutorial's network in one predict of many draws, or of many rows, each in a process of its own.

Run: python benchmarks/memory.py [--write docs/benchmark.md], on Linux. The bound, which each process checks, is the
answer itself and the part that the design allows beside it: for each thread a chunk's weights and a block of rows, and
the statistics of a block of rows, or of one row where that is more.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import murho
from murho.runtime import memory, planner

MIB = 2**20
CALLS = ((1, 1000, 1), (1, 100_000, 1), (1, 1_000_000, 1), (20_000, 250, 1), (100_000, 250, 1), (50_000, 32, 1000))
"""Rows, draws and levels."""


def measure(artifact: str, rows: int, draws: int, levels: int) -> None:
    """Predict in this process and print its peak before and after."""
    model = murho.load(artifact)
    x = np.zeros((rows, 21, 1), np.float32)
    model.predict(x[:2], draws=256)
    before = peak()
    answer = model.predict(x, draws=draws, level=np.linspace(0.01, 0.99, levels) if levels > 1 else 0.95)
    after = peak()
    assert answer.samples.shape == (draws, rows, 1)
    assert np.allclose(answer.mean, answer.samples.mean(axis=0, dtype=np.float64))
    size = sum(value.nbytes for value in vars(answer).values() if isinstance(value, np.ndarray)) / MIB
    block = min(rows, planner.rows_per_block(model.card, 21))
    per_draw = planner.bytes_per_draw(model.card, block, 21)
    chunk = planner.chunk_size(draws, per_draw, planner.cores()) * per_draw / MIB
    statistics = max(memory.STATISTICS_BYTES, memory.statistics_bytes(draws, levels)) / MIB
    bound = size + planner.cores() * 2 * chunk + 2 * statistics
    print(
        f"{rows:>7,} rows, {draws:>9,} draws, {levels:>4} levels: {after - before:.0f} MiB for the call "
        f"({before:.0f} MiB before it), of which the answer has {size:.0f}; at most {bound:.0f} are allowed"
    )
    assert after - before < bound


def peak() -> float:
    """Largest resident memory of this process so far, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifact", help="measure this artifact in this process")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--levels", type=int, default=1)
    parser.add_argument("--write", type=Path, help="put what is printed into this page")
    arguments = parser.parse_args()
    if arguments.artifact:
        measure(arguments.artifact, arguments.rows, arguments.draws, arguments.levels)
        return
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "tutorial.onnx"
        import torch  # here, so that the measured process stays without it
        from studies import write_section

        from murho.export import to_onnx
        from murho.models import Forecaster

        torch.manual_seed(0)
        to_onnx(Forecaster(), artifact, torch.randn(8, 21, 1))
        lines = ["`python benchmarks/memory.py`: the tutorial's network, one call.\n"]
        for rows, draws, levels in CALLS:
            command = [sys.executable, __file__, "--artifact", str(artifact), "--rows", str(rows)]
            command += ["--draws", str(draws), "--levels", str(levels)]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            lines.append(f"- {run.stdout.strip()}")
        write_section(arguments.write, "Memory", "\n".join(lines), head="# Benchmark")


if __name__ == "__main__":
    main()
