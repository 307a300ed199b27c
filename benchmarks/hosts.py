"""Every host that is installed, checked against the conformance file: one table, and with --latency its times.

Run: python benchmarks/hosts.py [--latency] [--all] [--write docs/embedding.md]. A host that is not installed is left
out, and with --all an error. Exits 1 where a host fails.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import described, environment
from studies import write_section

import murho
import murho.export
from murho.models import Forecaster

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "conformance"
PYTHON_HOST = FOLDER / "python_host.py"
JAVASCRIPT = ROOT / "runtime" / "js"
MODULES = JAVASCRIPT / "node_modules"
WEB = MODULES / "onnxruntime-web" / "dist"
CPP = ROOT / "examples" / "cpp" / "build" / "conformance"
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))

TITLE = "Checked and timed"
DRAWS = (256, 1000)
ROUNDS = 3
LONGEST = 600
"""Seconds that a host may take."""
WRITERS = {".onnx": "to_onnx", ".pt": "to_torchscript", ".pt2": "to_pt2"}


@dataclass(frozen=True)
class Host:
    name: str
    command: tuple[str, ...]
    """Takes the folder, and perhaps --latency and an artifact; prints a report as its last line."""
    suffix: str
    """Of the artifacts that it runs."""
    needs: tuple[Path, ...]
    """What is there where it is installed."""
    runtime: tuple[Path, ...]
    """What of it an application ships, besides the language itself and the artifact."""

    @property
    def missing(self) -> str:
        """What it lacks; empty where it is installed."""
        program = self.command[0]
        if shutil.which(program) is None:
            return program
        absent = [path for path in (*self.needs, *self.runtime) if not path.exists()]
        return str(absent[0].relative_to(ROOT) if absent[0].is_relative_to(ROOT) else absent[0]) if absent else ""


def hosts() -> list[Host]:
    python, node = sys.executable, "node"
    numpy, onnxruntime, torch_folder = (_package(name) for name in ("numpy", "onnxruntime", "torch"))
    web = (WEB / "ort.wasm.bundle.min.mjs", WEB / "ort-wasm-simd-threaded.wasm")
    runner = JAVASCRIPT / "test" / "conformance.mjs"
    browser = JAVASCRIPT / "test" / "chromium.mjs"
    native = MODULES / "onnxruntime-node" / "bin"

    def foreign(format: str) -> tuple[str, ...]:
        return python, str(PYTHON_HOST), "--format", format

    itself = (python, __file__, "--itself")
    murho_parts = (ROOT / "runtime", onnxruntime, numpy)
    programs = (FOLDER / "lstm.pt2",)
    return [
        Host("Python, murho", itself, ".onnx", (), murho_parts),
        Host("Python, ONNX Runtime", foreign("onnx"), ".onnx", (), (onnxruntime, numpy)),
        Host("Python, TorchScript", foreign("pt"), ".pt", (), (torch_folder,)),
        Host("Python, torch.export", foreign("pt2"), ".pt2", programs, (torch_folder,)),
        Host("Node.js, native", (node, str(runner), "native"), ".onnx", (runner,), (native,)),
        Host("Node.js, WebAssembly", (node, str(runner), "wasm"), ".onnx", (runner,), web),
        Host("Chromium, WebAssembly", (node, str(browser)), ".onnx", (browser, MODULES / "playwright-core", CHROMIUM), web),
        Host("C++, libtorch", (str(CPP),), ".pt", (CPP,), (torch_folder / "lib",)),
    ]  # fmt: skip


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def open_murho(path: Path) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """An artifact through murho, as a conformance host's program: its inputs by name to its five outputs."""
    model = murho.load(path)

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        x = {array.name: inputs[array.name] for array in model.card.inputs}
        noise = bool(inputs.get("noise", True))
        levels = [float(level) for level in inputs["levels"]]
        answer = model.predict(x, inputs["draws"], levels, int(inputs["seed"]), noise=noise)
        return [answer.samples, answer.mean, answer.std, answer.lower, answer.upper]

    return run


def within_calibration(case: dict[str, Any], path: Path) -> dict[str, Any]:
    """The case without the levels beyond the artifact's calibrated ones, which murho refuses."""
    calibration = murho.load(path).card.calibration
    if calibration is None or case["noise"] == 0:
        return case
    count = sum(level <= calibration.levels[-1] for level in case["levels"])  # they ascend
    expected = dict(case["expected"])
    for name in ("lower", "upper"):
        array = expected[name]
        size = len(array["data"]) // len(case["levels"])
        data = array["data"][: count * size]
        expected[name] = array | {"shape": [count, *array["shape"][1:]], "data": data}
    return case | {"levels": case["levels"][:count], "expected": expected}


def itself(folder: Path, timed: Path | None) -> dict[str, Any]:
    """murho's own report. The generator's words are the business of ONNX Runtime alone."""
    sys.path.insert(0, str(FOLDER))
    import python_host

    wanted = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))
    cases = []
    for case in wanted["cases"]:
        path = folder / f"{case['artifact']}.onnx"
        cases.append(python_host.checked(open_murho(path), within_calibration(case, path)))
    exact = python_host.words_exact(python_host.open_onnx(folder / "generator.onnx"), wanted["generator"])
    found = {"host": "python-murho", "version": f"murho {murho.__version__}", "words_exact": exact, "cases": cases}
    found["passed"] = exact and all(case["passed"] for case in cases)
    if timed is not None:
        case = next(case for case in wanted["cases"] if case["name"] == "lstm")
        run = open_murho(timed)
        found["latency_ms"] = {str(count): python_host.latency(run, case, count) for count in DRAWS}
    return found


def run_host(host: Host, folder: Path, timed: Path | None) -> dict[str, Any]:
    """The report of a host; one that says what went wrong where there is none."""
    command = [*host.command, str(folder), *(["--latency", str(timed)] if timed else [])]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
        report: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"passed": False, "problem": f"no answer in {LONGEST} s"}
    except (IndexError, ValueError):
        last = run.stderr.strip().splitlines()[-1:] or ["nothing printed"]
        return {"passed": False, "problem": f"{last[0][:200]} (exit status {run.returncode})"}
    if run.returncode or not report["cases"]:
        report["passed"] = False
    return report


def tutorial(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The tutorial's network as an artifact of each suffix that murho can write, untrained: weights change no time."""
    torch.manual_seed(0)
    network, example = Forecaster(), torch.randn(8, 21, 1)
    paths = {}
    for suffix in suffixes:
        if writer := getattr(murho.export, WRITERS[suffix], None):
            paths[suffix] = folder / f"tutorial{suffix}"
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*is still where BLiTZ starts it")
                writer(network, paths[suffix], example)
    return paths


def measured(found: list[Host], folder: Path, timed: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Reports by host; with artifacts to time the median of their times over several rounds, the hosts in turn."""
    reports: dict[str, list[dict[str, Any]]] = {host.name: [] for host in found}
    for turn in range(ROUNDS if timed else 1):
        for host in found:
            print(f"{host.name}, round {turn + 1} …", file=sys.stderr)
            reports[host.name].append(run_host(host, folder, timed.get(host.suffix)))
    merged = {}
    for name, rounds in reports.items():
        report = dict(min(rounds, key=lambda one: one["passed"]))
        times = [one["latency_ms"] for one in rounds if "latency_ms" in one]
        if times:
            report["latency_ms"] = {str(n): statistics.median(one[str(n)] for one in times) for n in DRAWS}
        merged[name] = report
    return merged


def table(known: list[Host], reports: dict[str, dict[str, Any]], folder: Path, timed: bool) -> str:
    wanted = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))
    artifacts = list(dict.fromkeys(case["artifact"] for case in wanted["cases"]))
    times = [f"{count} draws" for count in DRAWS] if timed else []
    lines = [
        f"| host | version | its runtime | integers | {' | '.join(artifacts)} | {''.join(f'{t} | ' for t in times)}|",
        "|---|---|---|---|" + "---|" * len([*artifacts, *times]) + "---|",
    ]
    for host in known:
        report = reports.get(host.name)
        if report is None:
            cells = [host.name, f"not installed: no `{host.missing}`"]
        elif "problem" in report:
            cells = [host.name, f"**{report['problem']}**"]
        else:
            cells = [host.name, report["version"], _megabytes(host.runtime)]
            cells.append("exact" if report["words_exact"] else "**wrong**")
            cells += [_share(wanted, report, artifact) for artifact in artifacts]
            cells += [_milliseconds(report, count) for count in DRAWS] if timed else []
            cells.append("passed" if report["passed"] else "**failed**")
        cells += [""] * (4 + len([*artifacts, *times]) + 1 - len(cells))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(wanted: dict[str, Any], report: dict[str, Any], artifact: str) -> str:
    """The largest difference in any of the artifact's cases and outputs, as a share of its limit."""
    limits = {case["name"]: case for case in wanted["cases"]}
    shares, failed = [0.0], False
    for case in report["cases"]:
        expected = limits[case["name"]]
        if expected["artifact"] == artifact:
            shares += [value / expected["expected"][name]["limit"] for name, value in case["largest"].items()]
            failed = failed or not case["passed"]
    return f"**failed, {max(shares):.2g}**" if failed else f"{max(shares):.2g}"


def _milliseconds(report: dict[str, Any], count: int) -> str:
    times = report.get("latency_ms")
    return f"{times[str(count)]:.1f} ms" if times else ""


def _megabytes(paths: Sequence[Path]) -> str:
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    own = [file for file in files if file.is_file() and "__pycache__" not in file.parts and "node_modules" not in
           file.relative_to(ROOT / "runtime").parts] if False else [f for f in files if f.is_file()]  # fmt: skip
    return f"{sum(file.stat().st_size for file in own) / 1e6:.0f} MB"


if __name__ == "__main__":
    pass
