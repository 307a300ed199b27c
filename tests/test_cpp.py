"""The C++ examples, built with the libtorch of the torch wheel, and run: the numbers of Python."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import murho
from murho.export import to_torchscript
from murho.models import Forecaster

pytestmark = pytest.mark.hosts
SOURCES = Path(__file__).parents[1] / "examples" / "cpp"
FOLDER = Path(__file__).parent / "conformance"


@pytest.fixture(scope="module")
def build() -> Path:
    """examples/cpp/build, up to date. What is not there to build it with is an error: these tests were asked for."""
    folder = SOURCES / "build"
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for command in (
        ["cmake", "-S", SOURCES, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", prefix],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An LSTM of two columns that predicts three values with their noise, and a window of it."""
    folder = tmp_path_factory.mktemp("cpp")
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(20, 3, (9, 6, 2)).astype(np.float32)
    network = Forecaster(features=2, hidden=4, horizon=3, learned_noise=True)
    to_torchscript(network, folder / "net.pt", x, noise=murho.Noise(), scaling=murho.Scaling((20.0,), (3.0,)))
    return SimpleNamespace(path=folder / "net.pt", x=x[:1])


@pytest.fixture
def interval(build: Path) -> Callable[..., Any]:
    def run(window: str, *arguments: object) -> Any:
        command = [build / "interval", *map(str, arguments)]
        return subprocess.run(command, input=window, capture_output=True, text=True)

    return run


def test_an_interval_is_pythons(interval, forecaster) -> None:
    window = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in forecaster.x[0])
    done = interval(window, forecaster.path, 500, 0.9)
    assert done.returncode == 0, done.stderr
    answer = murho.load(forecaster.path, trusted=True).predict(forecaster.x, 500, 0.9, seed=0)
    want = np.stack([answer.mean[0], answer.lower[0], answer.upper[0]], axis=1)
    got = np.array([line.split() for line in done.stdout.splitlines()], float)
    np.testing.assert_allclose(got, want, rtol=1e-5)  # it prints six digits
    assert len(np.unique(got)) == 9


@pytest.mark.parametrize(
    ("window", "arguments", "message"),
    [
        ("1 2\n3 x\n", (100, 0.9), "line 2 is not numbers: 3 x"),
        ("1 2\n3\n", (100, 0.9), "expected the same count of numbers a line"),
        ("", (100, 0.9), "expected the same count of numbers a line"),
        ("1 2\n", (100,), "usage: interval MODEL.pt DRAWS LEVEL < WINDOW"),
    ],
)
def test_what_interval_refuses(interval, forecaster, window: str, arguments: tuple[object, ...], message: str) -> None:
    done = interval(window, forecaster.path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"interval: {message}\n")


def test_a_missing_model(interval, tmp_path: Path) -> None:
    done = interval("1 2\n", tmp_path / "none.pt", 100, 0.9)
    assert done.returncode == 1
    assert "No such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the conformance files."""
    if not FOLDER.is_dir():
        pytest.fail(f"{FOLDER} is missing")
    return shutil.copytree(FOLDER, tmp_path / "conformance")


def conform(build: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([build / "conformance", *map(str, arguments)], capture_output=True, text=True)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_it_conforms(build: Path, folder: Path) -> None:
    wanted = json.loads((folder / "conformance.json").read_text())
    code, report = conform(build, folder, "--latency", folder / "lstm.pt")
    assert code == 0
    assert report["passed"]
    assert report["words_exact"]
    assert [case["name"] for case in report["cases"]] == [case["name"] for case in wanted["cases"]]
    for case, expected in zip(report["cases"], wanted["cases"], strict=True):
        limits = {name: array["limit"] for name, array in expected["expected"].items()}
        assert set(case["largest"]) == set(limits)
        assert all(case["largest"][name] <= limit for name, limit in limits.items())
    assert set(report["latency_ms"]) == {"256", "1000"}
    assert all(time > 0 for time in report["latency_ms"].values())


@pytest.mark.parametrize("what", ["sample", "shape", "word"])
def test_a_difference_is_seen(build: Path, folder: Path, what: str) -> None:
    wanted = json.loads((folder / "conformance.json").read_text())
    samples = wanted["cases"][0]["expected"]["samples"]
    if what == "sample":
        samples["data"][-1] += 2 * samples["limit"]
    elif what == "shape":
        samples["shape"] = [len(samples["data"])]
    else:
        wanted["generator"]["words"][-1] ^= 1
    (folder / "conformance.json").write_text(json.dumps(wanted))
    code, report = conform(build, folder)
    assert code == 1
    assert not report["passed"]
    assert report["words_exact"] == (what != "word")
    assert report["cases"][0]["passed"] == (what == "word")
