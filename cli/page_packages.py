"""What a page needs from npm: ONNX Runtime for browsers, and a chart library, each in the version that is tested."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import InputError
from ..runtime.files import write_file

VERSIONS = {"onnxruntime-web": "1.30.0", "uplot": "1.6.32"}
INSTALL = "npm install --ignore-scripts " + " ".join(f"{name}@{version}" for name, version in VERSIONS.items())
_FILES = {
    "onnxruntime-web": ("package.json", "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"),
    "uplot": ("package.json", "LICENSE", "dist/uPlot.iife.min.js", "dist/uPlot.min.css"),
}
"""The few files of each package that are kept."""


@dataclass(frozen=True)
class Packages:
    """Contents of the packages' files."""

    runtime: bytes
    """ONNX Runtime's JavaScript, one module."""
    wasm: bytes
    """ONNX Runtime itself: WebAssembly, with SIMD."""
    chart: bytes
    chart_style: bytes
    licences: str


def packages(folder: Path | None) -> Packages:
    """Read them from a `node_modules` folder, or from the cache, which npm is asked to fill the first time.

    Raises InputError where the folder lacks one or has another version, and where npm is missing or fails.
    """
    root = folder or _cached()
    for name, version in VERSIONS.items():
        _check(root / name, name, version)
    runtime, chart = root / "onnxruntime-web", root / "uplot"
    licences = (
        f"The page itself and murho: Apache License 2.0.\n\nonnxruntime-web {VERSIONS['onnxruntime-web']}, packed in "
        "engine.js: MIT License, Copyright (c) Microsoft Corporation.\n\n"
        f"uPlot {VERSIONS['uplot']}:\n\n{(chart / 'LICENSE').read_text(encoding='utf-8')}"
    )
    return Packages(
        runtime=(runtime / "dist/ort.wasm.bundle.min.mjs").read_bytes(),
        wasm=(runtime / "dist/ort-wasm-simd-threaded.wasm").read_bytes(),
        chart=(chart / "dist/uPlot.iife.min.js").read_bytes(),
        chart_style=(chart / "dist/uPlot.min.css").read_bytes(),
        licences=licences,
    )


def _check(folder: Path, name: str, version: str) -> None:
    try:
        found = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        raise InputError(f"There is no package {name} in {folder.parent}. Make one with: {INSTALL}") from None
    if found != version:
        raise InputError(f"{folder} is {name} {found}; the page is made for {version}. Install it with: {INSTALL}")
    if missing := [file for file in _FILES[name] if not (folder / file).is_file()]:
        raise InputError(f"{folder} lacks {', '.join(missing)}. Install it again with: {INSTALL}")


def _cached() -> Path:
    """The cache's folder, filled."""
    cache = _cache_home() / "murho" / "-".join(f"{name}-{version}" for name, version in VERSIONS.items())
    if all((cache / name / file).is_file() for name, files in _FILES.items() for file in files):
        return cache
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "A page needs two packages from npm, and there is no npm here. Install Node.js, or fetch them elsewhere: "
            f"{INSTALL}; then name the folder with --packages node_modules"
        )
    try:
        with tempfile.TemporaryDirectory() as work:
            archives = {name: _pack(npm, f"{name}@{version}", Path(work)) for name, version in VERSIONS.items()}
            for name, archive in archives.items():
                _unpack(archive, cache / name, _FILES[name])
    except OSError as error:
        raise InputError(f"Cannot keep npm's packages in {cache}: {error.strerror or error}.") from None
    return cache


def _pack(npm: str, package: str, folder: Path) -> Path:
    """The package's archive, which runs nothing of it."""
    command = [npm, "pack", package, "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    archives = list(folder.glob(f"{package.rpartition('@')[0]}-*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"npm cannot get {package}: {reason[-1]}. Try '{INSTALL}', and --packages node_modules.")
    return archives[0]


def _unpack(archive: Path, folder: Path, wanted: tuple[str, ...]) -> None:
    with tarfile.open(archive) as tar:
        for file in wanted:
            member = tar.extractfile(f"package/{file}")
            assert member is not None
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, member.read())


def _cache_home() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local"))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
