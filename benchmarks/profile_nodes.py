"""Where the time of an artifact goes: ONNX Runtime's own profile of its two halves, what draws and what computes, and
the time of the compiled code that murho's runtime takes in their place, where it does.

Run: python benchmarks/profile_nodes.py [ARTIFACT | --network lstm10] [--rows 1] [--draws 512] [--calls 30]
[--write docs/benchmark.md]. One thread, one chunk. Profiling itself adds about a microsecond to each node.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from networks import SUBJECTS, make
from studies import write_section

from murho.runtime import drawing, recurrent
from murho.runtime.artifact import read
from murho.runtime.contract import NOISE_INPUT, OUTPUTS
from murho.runtime.engines import first_states
from murho.runtime.split import split
from murho.runtime.typical import typical_inputs

LEAST = 0.02  # share of the time from which on a kind of node is named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path, nargs="?")
    parser.add_argument("--network", choices=SUBJECTS, default="lstm10", help="of the benchmark; without an artifact")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--draws", type=int, default=512)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--write", type=Path, help="put what is printed into this page")
    options = parser.parse_args()
    subject = SUBJECTS[options.network]
    title = options.artifact.name if options.artifact else subject.title
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = options.artifact or make(subject, folder).paths["weights.onnx"]
        lines = described(path, options.rows, options.draws, options.calls, folder)
    command = shlex.join(["python", *sys.argv]).partition(" --write")[0]
    text = "\n".join([f"`{command}`, one thread:", "", *lines])
    write_section(options.write, f"Profile: {title}, {options.rows} rows, {options.draws} draws", text)


def described(path: Path, rows: int, draws: int, calls: int, folder: Path) -> list[str]:
    """A line for each half of an artifact."""
    artifact = read(path)
    card, halves, names = artifact.card, split(artifact.content), np.arange(draws)
    feeds: dict[str, Any] = {"draws": names, "seed": np.array(0), "levels": np.float32([0.5])}
    feeds |= dict(zip((array.name for array in card.inputs), typical_inputs(card, rows), strict=True))
    states = first_states(card.states, draws, rows)
    feeds |= {array.name: state for array, state in zip(card.states, states, strict=True)}
    if card.noise:
        feeds[NOISE_INPUT] = np.array(1, dtype=np.float32)
    lines = []
    if halves.drawn:
        drawn, told = profiled(halves.sampler, feeds, calls, folder)
        sampler = drawing.compiled(halves.sampler, halves.drawn, session, {})
        lines.append(f"- what draws: {told}{compiled(sampler and (lambda: sampler(names, 0)), calls)}")
        feeds |= drawn
    _, told = profiled(halves.network, feeds, calls, folder)
    network = recurrent.compiled(halves.network, session)
    lines.append(f"- what computes: {told}{compiled(network and (lambda: network.run([OUTPUTS[0]], feeds)), calls)}")
    return lines


def profiled(model: bytes, feeds: dict[str, Any], calls: int, folder: Path) -> tuple[dict[str, Any], str]:
    """A model's outputs, and its median time with the shares of its kinds of nodes, in words."""
    plain = session(model)
    own = {value.name: feeds[value.name] for value in plain.get_inputs()}
    outputs = plain.run(None, own)
    whole = median(lambda: plain.run(None, own), calls)
    watched = session(model, folder)
    for _ in range(calls):
        watched.run(None, own)
    spent: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for event in json.loads(Path(watched.end_profiling()).read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
            count[event["args"]["op_name"]] += 1
    del spent["Scan"]  # its time is that of the nodes inside
    total = sum(spent.values())
    parts = [
        f"{kind} {time_ / total:.0%} ({count[kind] / calls:.0f} calls)"
        for kind, time_ in spent.most_common()
        if time_ >= LEAST * total
    ]
    names = (value.name for value in plain.get_outputs())
    return dict(zip(names, outputs, strict=True)), f"{whole:.2f} ms by its nodes: {', '.join(parts)}"


def compiled(call: Callable[[], object] | None, calls: int) -> str:
    return "" if call is None else f". By compiled code: {median(call, calls):.2f} ms"


def median(call: Callable[[], object], calls: int) -> float:
    """Milliseconds of a call."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


def session(model: bytes, profile_folder: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile_folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_folder / "profile")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
