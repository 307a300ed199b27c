"""Where the time of an artifact goes: ONNX Runtime's own profile of its two halves, what draws and what computes, and
beside each the time of the compiled code that murho's runtime takes in its place, where it does.

Run: python benchmarks/profile_nodes.py [ARTIFACT] [--rows 1] [--draws 512] [--calls 30]. Without an artifact it takes
the tutorial's LSTM. One thread, one chunk. Profiling itself adds about a microsecond to each node.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from murho.export import to_onnx
from murho.models import Forecaster
from murho.runtime import drawing, recurrent
from murho.runtime.artifact import read
from murho.runtime.contract import NOISE_INPUT, OUTPUTS
from murho.runtime.engines import first_states
from murho.runtime.split import split
from murho.runtime.typical import typical_inputs
from murho.train import builtin_series, prepare

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--draws", type=int, default=512)
    parser.add_argument("--calls", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.artifact or tutorial(Path(folder))
        artifact = read(path)
        halves = split(artifact.content)
        inputs, draws = typical_inputs(artifact.card, arguments.rows), np.arange(arguments.draws)
        feeds: dict[str, Any] = {"draws": draws, "seed": np.array(0), "levels": np.float32([0.5])}
        feeds |= dict(zip((array.name for array in artifact.card.inputs), inputs, strict=True))
        states = first_states(artifact.card.states, len(draws), arguments.rows)
        feeds |= {array.name: state for array, state in zip(artifact.card.states, states, strict=True)}
        if artifact.card.noise:
            feeds[NOISE_INPUT] = np.array(1, dtype=np.float32)
        if halves.drawn:
            feeds |= profiled("what draws", halves.sampler, feeds, arguments.calls, folder)
            if sampler := drawing.compiled(halves.sampler, halves.drawn, session):
                compiled(lambda: sampler(draws, 0), arguments.calls)
        profiled("what computes", halves.network, feeds, arguments.calls, folder)
        if network := recurrent.compiled(halves.network, session):
            compiled(lambda: network([OUTPUTS[0]], feeds), arguments.calls)


def tutorial(folder: Path) -> Path:
    warnings.simplefilter("ignore", UserWarning)  # an untrained network is as fast as a trained one
    torch.manual_seed(0)
    data = prepare(builtin_series())
    to_onnx(Forecaster(), folder / "tutorial.onnx", data.train.x[:32], scaling=data.scaling)
    return folder / "tutorial.onnx"


def profiled(title: str, model: bytes, feeds: dict[str, Any], calls: int, folder: str) -> dict[str, Any]:
    """Print milliseconds of a call by kind of node; returns the outputs."""
    plain = session(model)
    own = {value.name: feeds[value.name] for value in plain.get_inputs()}
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        outputs = plain.run(None, own)
        times.append(1000 * (time.perf_counter() - start))
    watched = session(model, folder)
    for _ in range(calls):
        watched.run(None, own)
    events = json.loads(Path(watched.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
            count[event["args"]["op_name"]] += 1
    inside = sum(spent.values()) - spent["Scan"]  # a Scan's time is that of its nodes, and its own
    table = Table(title=f"{title}: {np.median(times):.2f} ms, [{min(times):.2f} … {max(times):.2f}]")
    for column in ("node", "ms", "share", "calls"):
        table.add_column(column, justify="left" if column == "node" else "right")
    for name, microseconds in spent.most_common(16):
        share = "" if name == "Scan" else f"{microseconds / inside:.0%}"
        table.add_row(name, f"{microseconds / 1000 / calls:.3f}", share, str(count[name] // calls))
    console.print(table)
    return dict(zip((value.name for value in plain.get_outputs()), outputs, strict=True))


def compiled(call: Callable[[], object], calls: int) -> None:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    console.print(f"compiled: {np.median(times):.2f} ms, [{min(times):.2f} … {max(times):.2f}]", markup=False)


def session(model: bytes, profile_folder: str | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile_folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(profile_folder) / "profile")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
