"""Which of ONNX Runtime's options make an artifact faster: its arena, memory patterns, optimisation level, spinning
threads, and an optimised model that was saved.

Run: python benchmarks/session_options.py [--write docs/benchmark.md]. The tutorial's LSTM, 1000 draws in chunks of 512
for one row and for 64, each call with a seed of its own; systems in turn, and every answer is compared with the first.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from networks import SUBJECTS, make
from studies import write_section

from murho.runtime.artifact import read
from murho.runtime.split import split
from murho.runtime.typical import typical_inputs

ROUNDS, CHUNK, DRAWS = 25, 512, 1000
LEVEL = np.array([0.95], np.float32)
LEVELS = onnxruntime.GraphOptimizationLevel

OPTIONS: dict[str, Callable[[onnxruntime.SessionOptions], None]] = {
    "as murho sets them: one thread": lambda _: None,
    "no arena": lambda options: setattr(options, "enable_cpu_mem_arena", False),
    "no memory pattern": lambda options: setattr(options, "enable_mem_pattern", False),
    "basic optimisation": lambda options: setattr(options, "graph_optimization_level", LEVELS.ORT_ENABLE_BASIC),
    "no optimisation": lambda options: setattr(options, "graph_optimization_level", LEVELS.ORT_DISABLE_ALL),
    "two threads inside, spinning": lambda options: setattr(options, "intra_op_num_threads", 2),
    "two threads inside, not spinning": lambda options: _not_spinning(options),
}
SAVED = "saved optimised models"


def _not_spinning(options: onnxruntime.SessionOptions) -> None:
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")


class System:
    """An artifact's two sessions."""

    def __init__(self, halves: list[Any], change: Callable[[onnxruntime.SessionOptions], None]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        change(options)
        began = time.perf_counter()
        self._sampler, self._network = (
            onnxruntime.InferenceSession(half, options, providers=["CPUExecutionProvider"]) for half in halves
        )
        self.loading = time.perf_counter() - began
        self._drawn = [value.name for value in self._sampler.get_outputs()]

    def __call__(self, x: Any, seed: int) -> Any:
        parts = []
        for start in range(0, DRAWS, CHUNK):
            names = {"draws": np.arange(start, min(start + CHUNK, DRAWS)), "seed": np.array(seed)}
            weights = self._sampler.run(self._drawn, names)
            feeds = {"x": x, **names, "levels": LEVEL, **dict(zip(self._drawn, weights, strict=True))}
            parts.append(self._network.run(["samples"], feeds)[0])
        return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="put what is printed into this page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact = read(make(SUBJECTS["lstm10"], folder).paths["weights.onnx"])
        halves = split(artifact.content)
        models = [halves.sampler, halves.network]
        systems = {name: System(models, change) for name, change in OPTIONS.items()}
        systems[SAVED] = System(saved(models, folder), lambda _: None)
        lines = [
            "`python benchmarks/session_options.py`: the tutorial's LSTM by its nodes, 1000 draws on one thread, "
            f"medians of {ROUNDS} calls in turn.",
            "",
            "| ONNX Runtime's options | load | 1 row | 64 rows |",
            "|---|---|---|---|",
        ]
        times = {batch: timed(systems, typical_inputs(artifact.card, batch)[0]) for batch in (1, 64)}
        for name, system in systems.items():
            cells = [f"{1000 * system.loading:.1f} ms", *(f"{1000 * times[batch][name]:.1f} ms" for batch in times)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        write_section(options.write, "ONNX Runtime's options", "\n".join(lines), head="# Benchmark")


def saved(models: list[bytes], folder: Path) -> list[Any]:
    """Paths of the models as ONNX Runtime writes them after optimising."""
    paths = []
    for k, model in enumerate(models):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(folder / f"{k}.onnx")
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        paths.append(options.optimized_model_filepath)
    return paths


def timed(systems: dict[str, System], x: Any) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(ROUNDS + 1):
        wanted = None
        for name, system in systems.items():
            began = time.perf_counter()
            found = system(x, turn)
            if turn:  # the first call allocates
                times[name].append(time.perf_counter() - began)
            wanted = found if wanted is None else wanted
            assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max(), name
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
