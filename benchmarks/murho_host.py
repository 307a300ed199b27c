"""Run the conformance file through murho itself, which takes statistics and calibration outside the artifact.

    python benchmarks/murho_host.py FOLDER [--latency ARTIFACT]

Prints what tests/conformance/python_host.py prints. The generator's words come from ONNX Runtime alone.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import murho

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "conformance"))
import python_host  # which, like a foreign host, is no part of the package


def open_murho(path: Path) -> python_host.Run:
    model = murho.load(path, trusted=True)

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        x = {array.name: inputs[array.name] for array in model.card.inputs}
        noise = bool(inputs.get("noise", True))
        levels = [float(level) for level in inputs["levels"]]
        answer = model.predict(x, inputs["draws"], levels, int(inputs["seed"]), noise=noise)
        return [answer.samples, answer.mean, answer.std, answer.lower, answer.upper]

    return run


def checked(path: Path, case: dict[str, Any]) -> dict[str, Any]:
    return python_host.checked(open_murho(path), within_calibration(case, murho.load(path, trusted=True).card))


def within_calibration(case: dict[str, Any], card: murho.Card) -> dict[str, Any]:
    """The case without the levels beyond the artifact's calibrated ones, which murho refuses."""
    if card.calibration is None or case["noise"] == 0:
        return case
    kept = [k for k, level in enumerate(case["levels"]) if level <= card.calibration.levels[-1]]
    expected = dict(case["expected"])
    for name in ("lower", "upper"):
        ends = np.reshape(expected[name]["data"], expected[name]["shape"])[kept]
        expected[name] = expected[name] | {"shape": list(ends.shape), "data": ends.ravel().tolist()}
    return case | {"levels": [case["levels"][k] for k in kept], "expected": expected}


def report(folder: Path, timed: Path | None) -> dict[str, Any]:
    wanted = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))
    exact = python_host.words_exact(python_host.open_onnx(folder / "generator.onnx"), wanted["generator"])
    cases = [checked(folder / f"{case['artifact']}.onnx", case) for case in wanted["cases"]]
    found = {
        "host": "python-murho",
        "version": python_host.version("onnx"),
        "words_exact": exact,
        "cases": cases,
        "passed": exact and all(case["passed"] for case in cases),
    }
    if timed is not None:
        found["latency_ms"] = python_host.latencies(open_murho(timed), wanted)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=Path, metavar="ARTIFACT")
    options = parser.parse_args()
    found = report(options.folder, options.latency)
    print(json.dumps(found))
    sys.exit(not found["passed"])
