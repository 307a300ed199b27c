"""The compiled code is used only where it computes what it should: builds with odd flags, wrong ones, a hidden one."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference

import murho
from murho.runtime import drawing, native, recurrent

ROOT = Path(__file__).resolve().parents[1]
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
compilers_only = pytest.mark.skipif(not COMPILERS, reason="needs gcc or clang")

F = np.float32


def transcribed(draws: np.ndarray, seed: int, stream: int, mu: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """docs/generator.md with the series of compiled/draw.c, in numpy's float32: each operation rounded by itself."""
    n = len(mu)
    quarter = -(-n // 4)
    words = reference.words(draws.tolist(), seed, stream, quarter).astype(np.uint32)
    x, y, z, w = np.moveaxis(words, 1, 0)
    near, far = _radius(_uniform(x)), _radius(_uniform(z))
    (one, two), (three, four) = _turned(_uniform(y)), _turned(_uniform(w))
    noise = np.concatenate([near * one, near * two, far * three, far * four], axis=1)[:, :n]
    return mu + sigma * noise


def _uniform(v: np.ndarray) -> np.ndarray:
    return (v >> np.uint32(8)).astype(F) * F(2**-24) + F(2**-25)


def _radius(u: np.ndarray) -> np.ndarray:
    half = np.uint32(0x3F3504F3)
    bits = u.view(np.uint32) - half
    e = (bits.view(np.int32) >> 23).astype(F)
    m = ((bits & np.uint32(0x7FFFFF)) + half).view(F)
    s = (m - F(1)) / (m + F(1))
    q = s * s
    series = q * (F(1 / 3) + q * (F(1 / 5) + q * (F(1 / 7) + q * F(1 / 9))))
    return np.sqrt(F(-2) * (F(2) * s + F(2) * s * series + e * F(0.69314718)))


def _turned(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k = (F(4) * u + F(0.5)).astype(np.int32)
    a = (F(4) * u - k.astype(F)) * F(1.57079633)
    q = a * a
    s = a + a * q * (F(-1 / 6) + q * (F(1 / 120) + q * (F(-1 / 5040) + q * F(1 / 362880))))
    c = F(1) + q * (F(-1 / 2) + q * (F(1 / 24) + q * (F(-1 / 720) + q * F(1 / 40320))))
    across, along = np.where(k & 1, s, c), np.where(k & 1, c, s)
    return np.where((k + 1) & 2, -across, across), np.where(k & 2, -along, along)


def by_numpy() -> Any:
    """A module whose `draw` is the transcription, and whose `lstm` is the compiled one's, if there is any."""

    def draw(draws: np.ndarray, seed: int, stream: int, mu: np.ndarray, sigma: np.ndarray, out: np.ndarray) -> None:
        out[:] = transcribed(draws, seed, stream, mu, sigma)

    return SimpleNamespace(draw=draw, lstm=getattr(native.opened(), "lstm", None), __file__="by_numpy")


def test_the_known_weights_are_numpys() -> None:
    assert zlib.crc32(native._weights(by_numpy()).tobytes()) == native.WEIGHTS


def test_the_compiled_code_of_this_environment_is_right() -> None:
    """A stale build is refused with a warning, and then every test of compiled code would be skipped."""
    built = importlib.util.find_spec("murho.runtime._compiled")
    assert built is None or native.opened() is not None


def test_code_of_other_sources_is_refused_with_a_warning(monkeypatch) -> None:
    def draw(draws: np.ndarray) -> None: ...

    other = SimpleNamespace(draw=draw, __file__="other.so")
    monkeypatch.setattr(sys.modules["murho.runtime"], "_compiled", other, raising=False)
    with pytest.warns(
        RuntimeWarning, match=r"other\.so is not used, since it does not fit this murho .* several times"
    ):
        assert native.opened() is None


def test_the_engine_says_whether_compiled_code_runs(exported, monkeypatch) -> None:
    path = exported("demo").onnx
    there = native.opened() is not None
    engine = "onnxruntime + compiled" if there else "onnxruntime"
    assert murho.load(path).engine == engine
    assert repr(murho.load(path)).endswith(f", {engine}>")
    for module in (drawing, recurrent):
        monkeypatch.setattr(module, "_compiled", None)
    assert murho.load(path).engine == "onnxruntime"


def test_a_clone_that_hides_the_installed_package_says_so(tmp_path: Path) -> None:
    """Python puts the folder that it starts in first, and a clone there may be called murho."""
    clone, site = tmp_path / "beside" / "murho", tmp_path / "site"
    for folder in (clone, site / "murho"):
        shutil.copytree(
            ROOT / "runtime", folder / "runtime", ignore=shutil.ignore_patterns("js", "compiled", "_compiled.*")
        )
        shutil.copy(ROOT / "__init__.py", folder)
    module = "murho/runtime/_compiled.abi3.so"
    (site / module).touch()
    about = site / "murho-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: murho\nVersion: 0.1.0\n", encoding="utf-8")
    (about / "RECORD").write_text(f"{module},,\nmurho/runtime/_compiled.pyi,,\n", encoding="utf-8")

    def said(folder: Path) -> str:
        environment = os.environ | {"PYTHONPATH": str(site)}
        command = [sys.executable, "-c", "import murho; print(murho.__file__)"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        assert Path(done.stdout.strip()).is_relative_to(folder if folder == clone.parent else site)
        return done.stderr

    assert f"imported from the folder {clone}, which hides the installed package {site / 'murho'}" in said(clone.parent)
    assert said(tmp_path) == ""


def built(folder: Path, flags: str, compiler: str, last: str = "") -> Path:
    """The C module as setuptools builds it with CFLAGS of the environment; `last` are flags behind murho's own."""
    arguments = ["-q", "build_ext", "--build-lib", str(folder), "--build-temp", str(folder / "temp")]
    code = "import setuptools, sys; sys.argv[0] = 'setup.py'; setuptools.setup()"
    environment = os.environ | {"CFLAGS": flags, "CC": f"{compiler}"}
    if last:
        wrapper = folder / "cc"
        wrapper.write_text(f'#!/bin/sh\nexec {compiler} "$@" {last}\n', encoding="utf-8")
        wrapper.chmod(0o755)
        environment["CC"] = str(wrapper)
    subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    (path,) = (folder / "murho" / "runtime").glob("_compiled.*")
    return path


FAULT = """
import importlib.util, sys, numpy as np
from murho.runtime import native
spec = importlib.util.spec_from_file_location("_compiled", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
flushed = "" if np.float32(1e-40) * np.float32(0.5) > 0 else "rounds small numbers to 0"
print(native.found_fault(module) or flushed)
"""


def fault(path: Path) -> str:
    """What is wrong with a build, seen in a process of its own."""
    done = subprocess.run([sys.executable, "-c", FAULT, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@compilers_only
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("flags", ["-O0", "-march=native", "-Ofast -march=native -funsafe-math-optimizations"])
def test_flags_of_the_environment_change_nothing(tmp_path: Path, flags: str, compiler: str) -> None:
    """Bits of weights, LSTMs, and how the whole process rounds small numbers."""
    assert fault(built(tmp_path, flags, compiler)) == ""


@compilers_only
@pytest.mark.parametrize(
    ("last", "found"),
    [("-ffp-contract=fast -mfma", "draws other weights"), ("-ffast-math -shared", "draws other weights")],
)
def test_a_build_with_wrong_flags_is_refused(tmp_path: Path, last: str, found: str) -> None:
    assert found in fault(built(tmp_path, "", COMPILERS[0], last))
