"""Run the conformance file as a foreign Python host would: with onnxruntime or torch alone, and none of murho's code.

    python tests/conformance/python_host.py FOLDER --format onnx|pt|pt2 [--latency ARTIFACT]

The last line of its output is JSON: the host, and for each case the largest differences from the expected values. With
--latency it times calls of an artifact for one row, that of the case "lstm". Exits 1 where a case failed.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
"""One call of a program: inputs by name to its outputs, in order. The names are in the order of the signature."""

OUTPUTS = ("samples", "mean", "std", "lower", "upper")
CALLS = 50


def open_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def open_pt(path: Path) -> Run:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit")  # deprecated, and works
        module = torch.jit.load(str(path))
    return _by_torch(module)


def open_pt2(path: Path) -> Run:
    import torch

    return _by_torch(torch.export.load(str(path)).module())


def _by_torch(module: Callable[..., Any]) -> Run:
    import torch

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            found = module(*(torch.from_numpy(value) for value in inputs.values()))
        return [tensor.numpy() for tensor in (found if isinstance(found, tuple | list) else [found])]

    return run


OPEN = {"onnx": open_onnx, "pt": open_pt, "pt2": open_pt2}


def version(format: str) -> str:
    if format == "onnx":
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"
    import torch

    return f"torch {torch.__version__}"


def words_exact(run: Run, generator: dict[str, Any]) -> bool:
    inputs = {"draws": np.array(generator["draws"], np.int64), "seed": np.array(int(generator["seed"]), np.int64)}
    (words,) = run(inputs)
    return list(words.shape) == generator["shape"] and words.ravel().tolist() == generator["words"]


def inputs_of(case: dict[str, Any], draws: list[int]) -> dict[str, np.ndarray]:
    inputs = {name: tensor(array) for name, array in case["inputs"].items()}
    inputs |= {"draws": np.array(draws, np.int64), "seed": np.array(int(case["seed"]), np.int64)}
    inputs["levels"] = np.array(case["levels"], np.float32)
    return inputs if case["noise"] is None else inputs | {"noise": np.array(case["noise"], np.float32)}


def tensor(array: dict[str, Any]) -> np.ndarray:
    return np.array(array["data"], np.float32).reshape(array["shape"])


def checked(run: Run, case: dict[str, Any]) -> dict[str, Any]:
    """The case's line of the report."""
    largest, passed = {}, True
    found = run(inputs_of(case, case["draws"]))
    passed = len(found) == len(OUTPUTS)
    for name, values in zip(OUTPUTS, found, strict=False):
        expected = case["expected"][name]
        want = np.array(expected["data"]).reshape(expected["shape"])
        if values.shape != want.shape:
            return {"name": case["name"], "largest": largest, "passed": False}
        largest[name] = float(np.abs(values - want).max())
        passed = passed and largest[name] <= expected["limit"]  # NaN is not
    return {"name": case["name"], "largest": largest, "passed": passed}


def latencies(run: Run, wanted: dict[str, Any]) -> dict[str, float]:
    """Median times in ms by draws, of warm calls for one row."""
    case = next(case for case in wanted["cases"] if case["name"] == "lstm")
    return {str(count): latency(run, case, count) for count in (256, 1000)}


def latency(run: Run, case: dict[str, Any], count: int) -> float:
    inputs = inputs_of(case, list(range(count)))
    total, times = 0.0, []
    for call in range(CALLS):
        inputs["seed"] = np.array(call, np.int64)  # none may go on from what an earlier call drew
        start = time.perf_counter()
        total += float(run(inputs)[1].sum())
        if call >= CALLS // 5:
            times.append(time.perf_counter() - start)
    assert np.isfinite(total)
    return statistics.median(times) * 1000


def report(folder: Path, format: str, timed: Path | None) -> dict[str, Any]:
    wanted = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))
    artifacts = {case["artifact"] for case in wanted["cases"]}
    programs = {name: OPEN[format](folder / f"{name}.{format}") for name in artifacts}
    exact = words_exact(OPEN[format](folder / f"generator.{format}"), wanted["generator"])
    cases = [checked(programs[case["artifact"]], case) for case in wanted["cases"]]
    found = {
        "host": f"python-{format}",
        "version": version(format),
        "words_exact": exact,
        "cases": cases,
        "passed": exact and all(case["passed"] for case in cases),
    }
    if timed is not None:
        found["latency_ms"] = latencies(OPEN[format](timed), wanted)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=OPEN, required=True)
    parser.add_argument("--latency", type=Path, metavar="ARTIFACT")
    arguments = parser.parse_args()
    found = report(arguments.folder, arguments.format, arguments.latency)
    print(json.dumps(found))
    sys.exit(not found["passed"])


if __name__ == "__main__":
    main()
