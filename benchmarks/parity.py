"""The parity matrix: every BLiTZ layer and option, in each format, against BLiTZ's own forward pass.

Run: python benchmarks/parity.py [--write docs/parity.md] [--only LSTM] [--processes 2]. Takes some twenty minutes of
one core. Prints the matrix as markdown; exits with 1 where an export fails or differs.
"""

import argparse
import platform
import sys
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import CASES, Case
from rich.console import Console
from rich.progress import track
from torch import nn

import murho
from murho.export import to_onnx, to_pt2, to_torchscript
from murho.export.montecarlo import Plan
from murho.export.reference import generator_epsilon
from murho.export.subject import examine

EXPORTS = {"ONNX": (to_onnx, "onnx"), "TorchScript": (to_torchscript, "pt"), "torch.export": (to_pt2, "pt2")}
ROWS, DRAWS = (1, 3, 16), (2, 64, 256)
SEED = -(2**62) + 12345  # not the one of the export's own proof
TOLERANCE = 1e-5  # float32 arithmetic in another order, relative to the largest value of an output
PACKAGES = ("murho", "torch", "blitz-bayesian-pytorch", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Cell:
    """What one format of a case came to."""

    error: float = float("nan")
    """Largest difference at equal ε over ROWS × DRAWS, relative to the output's largest value."""
    smallest_p: float = float("nan")
    threshold: float = float("nan")
    failure: str = ""

    @property
    def passed(self) -> bool:
        return not self.failure and self.error <= TOLERANCE and self.smallest_p >= self.threshold

    def __str__(self) -> str:
        if self.failure:
            return f"**fails**: {self.failure.partition(' (')[0]} |"
        mark = "" if self.passed else "**differs** "
        return f"{mark}{self.error:.1e} | {self.smallest_p:.1e} ({self.threshold:.0e})"


def blitz_samples(
    case: Case, network: nn.Module, rows: int, draws: Sequence[int] | np.ndarray, seed: int
) -> tuple[Any, dict[str, np.ndarray]]:
    """Inputs of so many rows, unlike the example's, as `predict` takes them; and BLiTZ's samples for them at equal ε.

    Float64 [S, B, …] in raw units by output.
    """
    options = case.options
    plan = Plan(
        options.get("scaling", murho.Scaling()), options.get("sampling") == "local", outputs=options.get("outputs", ())
    )
    task, flipout = options.get("task", "regression"), options.get("flipout", "refuse")
    subject = examine(network, case.example, plan, task, flipout)
    inputs = subject.inputs(rows)
    want = subject.reference.given(inputs, draws, generator_epsilon(seed))
    given: Any = tuple(x.numpy() for x in inputs)
    if isinstance(case.example, dict):
        given = dict(zip(case.example, given, strict=True))
    return given if len(inputs) > 1 else given[0], want


def first_rows(inputs: Any, rows: int) -> Any:
    """The first rows of one input, or of each of several."""
    if isinstance(inputs, dict):
        return {name: x[:rows] for name, x in inputs.items()}
    return tuple(x[:rows] for x in inputs) if isinstance(inputs, tuple) else inputs[:rows]


def largest_error(got: dict[str, murho.Intervals], want: dict[str, np.ndarray]) -> float:
    """Over the outputs, relative to the largest value of each; infinite where names or shapes differ."""
    if list(got) != list(want) or any(got[name].samples.shape != want[name].shape for name in want):
        return float("inf")
    return max(float(np.abs(got[name].samples - want[name]).max() / np.abs(want[name]).max()) for name in want)


def measure(name: str) -> list[Cell]:
    """Export a case in each format and compare it."""
    torch.set_num_threads(1)
    case, cells = CASES[name], []
    draws = np.random.default_rng(1).integers(0, 2**32, max(DRAWS))

    @cache
    def answers(network: nn.Module) -> Any:
        return blitz_samples(case, network, max(ROWS), draws, SEED)

    with case.network() as network, tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for export, suffix in EXPORTS.values():
            path = Path(folder) / f"case.{suffix}"
            try:
                law = export(network, path, case.example, **case.options).verification["law"]
                inputs, want = answers(network)
            except murho.MurhoError as failure:
                cells.append(Cell(failure=str(failure)))
                continue
            model, error = murho.load(path, threads=1, trusted=True), 0.0
            for rows in ROWS:
                for count in DRAWS:
                    got = model.predict_all(first_rows(inputs, rows), draws[:count], seed=SEED)
                    error = max(error, largest_error(got, {key: y[:count, :rows] for key, y in want.items()}))
            cells.append(Cell(error, law["smallest_p"], law["threshold"]))
    return cells


def head() -> str:
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"""# Parity with BLiTZ

Every BLiTZ layer, every option, and the ways to build a network around them: each is exported and held against
BLiTZ's own forward pass, draw by draw.

- **error**: the largest difference from BLiTZ at equal ε, relative to the largest value of the output, over
  B = {", ".join(map(str, ROWS))} rows and S = {", ".join(map(str, DRAWS))} draws. At most {TOLERANCE:.0e} passes.
- **p**: the smallest p of the Kolmogorov-Smirnov tests against BLiTZ's free sampling; in brackets the threshold.

Made by `python benchmarks/parity.py --write docs/parity.md` with {versions}, Python {platform.python_version()}.
The networks are in `benchmarks/cases.py`. Each convolution is there twice: on an input that all draws share, and behind
another Bayesian layer. Networks drawn at random are held to the same in [studies.md](studies.md#random-networks), which
says in which formats and with how many draws: not all in all three, so that a thousand take some forty minutes.

| network | ONNX: error | p | TorchScript: error | p | torch.export: error | p |
|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the matrix there too")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name holds this")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    names = [name for name in CASES if arguments.only in name]
    cells: list[list[Cell]] = []
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        results = pool.map(measure, names)
        cells += track(results, "exporting", len(names), console=Console(stderr=True))
    lines = [f"| {name} | {' | '.join(map(str, row))} |" for name, row in zip(names, cells, strict=True)]
    text = "\n".join([head(), *lines, ""])
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")
    failed = [name for name, row in zip(names, cells, strict=True) if not all(cell.passed for cell in row)]
    if failed:
        sys.exit(f"{len(failed)} of {len(names)} networks differ: {', '.join(failed)}")


if __name__ == "__main__":
    main()
