"""Peak memory of 100,000 draws of the tutorial's network in one predict, in a process of its own.

Run: python benchmarks/memory.py [--write docs/benchmark.md], on Linux. The bound is the samples themselves, what the
statistics sort of them, and one chunk of draws per thread.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import murho
from murho.runtime import planner

MIB = 2**20


def measure(artifact: str, draws: int) -> None:
    """Predict in this process and print its peak before and after."""
    model = murho.load(artifact)
    x = np.zeros((1, 21, 1), np.float32)
    model.predict(x, draws=256)
    before = peak()
    answer = model.predict(x, draws=draws)
    after = peak()
    assert answer.samples.shape == (draws, 1, 1)
    assert np.isclose(answer.mean, answer.samples.mean(dtype=np.float64))
    per_draw = planner.bytes_per_draw(model.card, 1, 21)
    chunk = planner.chunk_size(draws, per_draw, planner.cores())
    print(
        f"{draws:>9,} draws: peak {after:.0f} MiB, {before:.0f} MiB before, so {after - before:.0f} MiB for the call; "
        f"the samples take {answer.samples.nbytes / MIB:.1f} MiB, a chunk of {chunk} draws about "
        f"{chunk * per_draw / MIB:.0f} MiB, on {planner.cores()} threads"
    )


def peak() -> float:
    """Largest resident memory of this process so far, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifact", help="measure this artifact in this process")
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--write", type=Path, help="put what is printed into this page")
    arguments = parser.parse_args()
    if arguments.artifact:
        measure(arguments.artifact, arguments.draws)
        return
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "tutorial.onnx"
        import torch  # here, so that the measured process stays without it
        from studies import write_section

        from murho.export import to_onnx
        from murho.models import Forecaster

        torch.manual_seed(0)
        to_onnx(Forecaster(), artifact, torch.randn(8, 21, 1))
        lines = ["`python benchmarks/memory.py`: the tutorial's network, one row, one call.\n"]
        for draws in (1000, 10_000, 100_000, 1_000_000):
            command = [sys.executable, __file__, "--artifact", str(artifact), "--draws", str(draws)]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            lines.append(f"- {run.stdout.strip()}")
        write_section(arguments.write, "Memory", "\n".join(lines), head="# Benchmark")


if __name__ == "__main__":
    main()
