"""The machine that a benchmark ran on: what a reader must know to compare times."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from murho.runtime.planner import cores

PACKAGES = ("murho", "numpy", "onnxruntime", "torch", "blitz-bayesian-pytorch")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def environment() -> dict[str, Any]:
    """Processor, caches, memory, versions and the time; what Linux does not tell is left out."""
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    found: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": cores(),
        "caches_of_core_0": _caches(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": versions,
    }
    if hasattr(os, "getloadavg"):
        found["load_average_at_start"] = os.getloadavg()[0]
    if hasattr(os, "sysconf"):
        found["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return found


def described(found: dict[str, Any]) -> str:
    """The same in two sentences."""
    caches = ", ".join(f"{name} {size}" for name, size in found["caches_of_core_0"].items())
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    memory = f", {found['memory_gib']} GiB" if "memory_gib" in found else ""
    load = f" at a load of {found['load_average_at_start']:.1f}" if "load_average_at_start" in found else ""
    cores = f"{found['cores']} core{'s' if found['cores'] > 1 else ''}"
    return (
        f"{found['processor']}, {cores} ({caches or 'caches unknown'}){memory}, {found['system']}; {versions}. "
        f"Started {found['started']}{load}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _caches() -> dict[str, str]:
    """Sizes by name, L1d for example."""
    found = {}
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        found[f"L{level}{kind[0].lower() if kind != 'Unified' else ''}"] = size
    return found
