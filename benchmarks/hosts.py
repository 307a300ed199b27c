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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from environment import described, environment
from studies import write_section

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
ARCHITECTURES = {"x86_64": "x64", "AMD64": "x64", "aarch64": "arm64", "arm64": "arm64"}
"""Node.js's names for machines."""
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
        for path in (*self.needs, *self.runtime):
            if not path.exists():
                return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
        return "" if shutil.which(self.command[0]) else self.command[0]


def hosts() -> list[Host]:
    python, node = sys.executable, "node"
    numpy, onnxruntime, torch_folder = (_package(name) for name in ("numpy", "onnxruntime", "torch"))
    web = (WEB / "ort.wasm.bundle.min.mjs", WEB / "ort-wasm-simd-threaded.wasm")
    runner = JAVASCRIPT / "test" / "conformance.mjs"
    browser, playwright = JAVASCRIPT / "test" / "chromium.mjs", MODULES / "playwright-core"
    native = MODULES / "onnxruntime-node" / "bin" / "napi-v6" / sys.platform / ARCHITECTURES[platform.machine()]

    def foreign(format: str) -> tuple[str, ...]:
        return python, str(PYTHON_HOST), "--format", format

    itself = (python, str(ROOT / "benchmarks" / "murho_host.py"))
    programs = (FOLDER / "lstm.pt2",)
    return [
        Host("Python, murho", itself, ".onnx", (), (onnxruntime, numpy)),
        Host("Python, ONNX Runtime", foreign("onnx"), ".onnx", (), (onnxruntime, numpy)),
        Host("Python, TorchScript", foreign("pt"), ".pt", (), (torch_folder,)),
        Host("Python, torch.export", foreign("pt2"), ".pt2", programs, (torch_folder,)),
        Host("Node.js, native", (node, str(runner), "native"), ".onnx", (runner,), (native,)),
        Host("Node.js, WebAssembly", (node, str(runner), "wasm"), ".onnx", (runner,), web),
        Host("Chromium, WebAssembly", (node, str(browser)), ".onnx", (browser, playwright, CHROMIUM), web),
        Host("C++, libtorch", (str(CPP),), ".pt", (CPP,), (torch_folder / "lib",)),
    ]  # fmt: skip


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


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
    wanted = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))
    complete = [case["name"] for case in report["cases"]] == [case["name"] for case in wanted["cases"]]
    right = complete and all(map(_right, report["cases"], wanted["cases"]))
    report["passed"] = report["passed"] and right and run.returncode == 0
    return report


def _right(case: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether every difference that a host reports is one that may be."""
    largest = {name: case["largest"].get(name) for name in wanted["expected"]}
    return all(value is not None and value <= wanted["expected"][name]["limit"] for name, value in largest.items())


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
        f"| host | version | runtime | integers | {' | '.join(artifacts)} | {''.join(f'{t} | ' for t in times)}|",
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
            for name, value in case["largest"].items():
                shares.append(float("inf") if value is None else value / expected["expected"][name]["limit"])
            failed = failed or not (case["passed"] and _right(case, expected))
    return f"**failed, {max(shares):.2g}**" if failed else f"{max(shares):.2g}"


def _milliseconds(report: dict[str, Any], count: int) -> str:
    times = report.get("latency_ms")
    return f"{times[str(count)]:.1f} ms" if times else ""


def _megabytes(paths: Sequence[Path]) -> str:
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.0f} MB"


METHOD = """Integers are the generator's raw words. Under each artifact stands the largest difference from the
reference in any output of its cases, as a share of what is allowed: 1e-5 of what the network adds, and what float32
loses by storing raw units. The runtime is what an application ships besides the artifact: the packages numpy and
onnxruntime, or torch, or onnxruntime-node's libraries, or the two files of onnxruntime-web, or libtorch's libraries."""

TIMED = f"""Times: the tutorial's network (LSTM, 10 hidden units, window 21), one row, no call going on from what
another drew; the median of warm calls, and of {ROUNDS} processes of each host in turn. murho, in Python and in
JavaScript (Node.js and Chromium), evaluates draws in chunks; ONNX Runtime and torch alone evaluate all in one call.
WebAssembly has one thread with SIMD, all others as many as they like."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", action="store_true", help="time the tutorial's network too")
    parser.add_argument("--all", action="store_true", help="fail where a host is not installed")
    parser.add_argument("--write", type=Path, help="put the table into this page")
    options = parser.parse_args()
    machine = environment()
    known = hosts()
    found = [host for host in known if not host.missing]
    with tempfile.TemporaryDirectory() as name:
        timed = tutorial(Path(name), sorted({host.suffix for host in found})) if options.latency else {}
        reports = measured(found, FOLDER, timed)
    flags = " --latency" * options.latency
    text = [
        f"`python benchmarks/hosts.py{flags}` on {described(machine)}",
        table(known, reports, FOLDER, options.latency),
    ]
    text += [METHOD, TIMED] if options.latency else [METHOD]
    write_section(options.write, TITLE, "\n\n".join(text), head="# Embed it")
    failed = [name for name, report in reports.items() if not report["passed"]]
    missing = [host.name for host in known if host.missing]
    if failed or (options.all and missing):
        sys.exit(f"Failed: {', '.join(failed) or 'none'}. Not installed: {', '.join(missing) or 'none'}.")


if __name__ == "__main__":
    main()
