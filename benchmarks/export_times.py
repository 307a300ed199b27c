"""How long exports take, stage by stage, proof included: small networks, in a process of their own for each format.

Run: python benchmarks/export_times.py [--write docs/benchmark.md]. Each export is made twice: the first of a process
also imports what torch's exporters need, so both are shown. The processor's time beside the time that passed tells
how busy the machine was.
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from blitz.modules import BayesianLSTM
from cases import RHO, Forward, lenet, linear
from studies import write_section
from torch import Tensor, nn

from murho.export import progress, to_onnx, to_pt2, to_torchscript
from murho.models import Forecaster

EXPORTS = {"onnx": (to_onnx, "onnx"), "torchscript": (to_torchscript, "pt"), "pt2": (to_pt2, "pt2")}


def last_week() -> nn.Module:
    """An LSTM that also reads the value of seven days ago, so that its windows have one length."""

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(net.lstm(x)[0][:, -1]) + x[:, -7]

    return Forward(forward, lstm=BayesianLSTM(1, 10, **RHO), head=linear(10, 1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "the tutorial's LSTM": (Forecaster, (8, 21, 1)),
    "an MLP, 13 → 64 → 1": (lambda: nn.Sequential(linear(13, 64), nn.ReLU(), linear(64, 1)), (8, 13)),
    "LeNet, 28 × 28": (lenet, (3, 1, 28, 28)),
    "an LSTM with a fixed axis": (last_week, (8, 21, 1)),
}


class Watched:
    """The seconds of each stage, in place of what an export shows."""

    def __init__(self, monkeypatched: Any) -> None:
        self.stages: list[tuple[str, float]] = []
        monkeypatched.show = lambda _, text: self.stages.append((text, perf_counter()))

    def seconds(self, ended: float) -> dict[str, float]:
        """By stage; one that comes again, after an axis was fixed, counts with the first."""
        found: dict[str, float] = {}
        for (text, began), (_, following) in zip(self.stages, [*self.stages[1:], ("", ended)], strict=True):
            found[text] = found.get(text, 0.0) + following - began
        return found


def measure(format: str) -> None:
    export, suffix = EXPORTS[format]
    for name, (build, shape) in NETWORKS.items():
        torch.manual_seed(0)
        network, example = build().eval(), torch.randn(shape)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            times = []
            for _ in range(2):
                watched = Watched(progress.Stages)
                began, used = perf_counter(), process_time()
                export(network, Path(folder) / f"network.{suffix}", example)
                ended = perf_counter()
                times.append((ended - began, process_time() - used))
        parts = "; ".join(f"{stage} {seconds:.2f}" for stage, seconds in watched.seconds(ended).items())
        (first, _), (second, used) = times
        print(f"| {name} | {format} | {first:.1f} s | {second:.1f} s | {used:.1f} s | {parts} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=EXPORTS, help="measure this format in this process")
    parser.add_argument("--write", type=Path, help="put what is printed into this page")
    arguments = parser.parse_args()
    if arguments.format:
        measure(arguments.format)
        return
    lines = [
        "`python benchmarks/export_times.py`: the first export of a process, the second one, and the processor's time",
        "for that; the second one's stages in seconds. The proof, with 1000 draws of BLiTZ's own, is included.\n",
        "| network | format | first | second | processor | stages of the second |",
        "|---|---|---|---|---|---|",
    ]
    for format in EXPORTS:
        command = [sys.executable, __file__, "--format", format]
        lines.append(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    write_section(arguments.write, "Exports", "\n".join(lines), head="# Benchmark")


if __name__ == "__main__":
    main()
