"""Cold start in an environment that has only the base install: import, load, first interval of 256 draws.

Run: python benchmarks/cold_start.py [--write docs/benchmark.md]. Makes a fresh virtual environment, installs murho
without extras, and compares it, process by process in turn, with a bare onnxruntime script that does the same. Prints
the environment's size too.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import torch
from studies import write_section

from murho.cli.tables import console
from murho.export import to_onnx
from murho.models import Forecaster

ROUNDS = 15
ROOT = Path(__file__).resolve().parents[1]

MURHO = """
import time
start = time.perf_counter()
import numpy as np
import murho
imported = time.perf_counter()
model = murho.load({path!r}, trusted=True)
loaded = time.perf_counter()
answer = model.predict(np.zeros((1, 21, 1), np.float32), draws=256)
done = time.perf_counter()
print(imported - start, loaded - imported, done - loaded, answer.mean[0, 0], answer.lower[0, 0])
"""

BARE = """
import time
start = time.perf_counter()
import numpy as np
import onnxruntime
imported = time.perf_counter()
session = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
loaded = time.perf_counter()
feeds = dict(
    x=np.zeros((1, 21, 1), np.float32), draws=np.arange(256), seed=np.array(0), levels=np.array([0.95], np.float32)
)
samples, mean, std, lower, upper = session.run(None, feeds)
done = time.perf_counter()
print(imported - start, loaded - imported, done - loaded, mean[0, 0], lower[0, 0, 0])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="put what is printed into this page")
    options = parser.parse_args()
    lines = ["`python benchmarks/cold_start.py`: a fresh environment without extras, medians of processes in turn.\n"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact = folder / "tutorial.onnx"
        torch.manual_seed(0)
        to_onnx(Forecaster(), artifact, torch.randn(8, 21, 1))
        environment = folder / "base"
        with console.status("Installing murho without extras into a fresh environment …"):
            venv.create(environment, with_pip=True)
            python = str(environment / "bin" / "python")
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), _wheel(folder)], check=True)
        scripts = {"murho": MURHO.format(path=str(artifact)), "bare onnxruntime": BARE.format(path=str(artifact))}
        times: dict[str, list[list[float]]] = {name: [] for name in scripts}
        for turn in range(ROUNDS + 1):
            answers = {}
            for name, script in scripts.items():
                run = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True, cwd=folder)
                *parts, mean, lower = map(float, run.stdout.split())
                answers[name] = (mean, lower)
                if turn:  # the first start of each compiles bytecode and reads the disk
                    times[name].append([*parts, sum(parts)])
            (mean, lower), (bare_mean, bare_lower) = answers.values()
            assert abs(mean - bare_mean) < 1e-5, answers
            assert abs(lower - bare_lower) < 1e-5, answers
        totals = {}
        for name, rows in times.items():
            imports, load, first, total = (statistics.median(column) for column in zip(*rows, strict=True))
            totals[name] = total
            lines.append(
                f"- {name}: import {imports:.3f} s, load {load:.3f} s, first interval of 256 draws {first:.3f} s, "
                f"in all {total:.3f} s"
            )
        ratio = totals["murho"] / totals["bare onnxruntime"]
        lines.append(f"- murho takes {ratio:.2f} times a bare onnxruntime script.")
        site = next((environment / "lib").glob("python*")) / "site-packages"
        sizes = {entry.name: _size(entry) / 1e6 for entry in site.iterdir()}
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:8]
        parts = ", ".join(f"{name} {sizes[name]:.1f}" for name in largest)
        lines.append(f"- The environment takes {_size(environment) / 1e6:.0f} MB on disk: {parts}.")
        write_section(options.write, "Cold start", "\n".join(lines), head="# Benchmark")


def _wheel(folder: Path) -> str:
    source = folder / "source"  # setuptools would leave a build folder, and reuse it the next time
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "demo-output"))
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "wheel"), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return str(next((folder / "wheel").glob("*.whl")))


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(entry.lstat().st_size for entry in path.rglob("*") if entry.is_file() and not entry.is_symlink())
    return path.stat().st_size


if __name__ == "__main__":
    main()
