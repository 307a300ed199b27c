"""The Python and Node.js lines of docs/embedding.md run as they stand there, and answer as murho does."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import murho

ROOT = Path(__file__).resolve().parents[1]
CONFORMANCE = ROOT / "tests" / "conformance"
JAVASCRIPT = ROOT / "runtime" / "js"


def block(title: str) -> str:
    """The code under a heading of the page."""
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    (code,) = re.findall(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder that the lines expect."""
    for path in CONFORMANCE.glob("lstm.*"):
        shutil.copy(path, tmp_path / f"model{path.suffix}")
    x = np.random.default_rng(0).normal(50, 3, (2, 8, 1))
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "x.json").write_text(json.dumps(x.tolist()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def answer(folder: Path) -> murho.Intervals:
    return murho.load("model.onnx").predict(np.load("x.npy"), draws=256, level=[0.5, 0.9], seed=0)


def check(answer: murho.Intervals, mean: Any, lower: Any, upper: Any) -> None:
    """Within the limit of the conformance file for this artifact, 3e-5."""
    for got, want in ((mean, answer.mean), (lower, answer.lower), (upper, answer.upper)):
        np.testing.assert_allclose(got, want, rtol=0, atol=3e-5)


@pytest.mark.parametrize("title", ["Python", "ONNX Runtime in any language", "Torch alone"])
def test_python_lines(answer: murho.Intervals, title: str) -> None:
    if title == "Torch alone" and not Path("model.pt2").exists():
        pytest.skip("no artifacts in .pt2")
    names: dict[str, Any] = {}
    exec(block(title), names)
    check(answer, names["mean"], names["lower"], names["upper"])


def test_mlflow_lines(answer: murho.Intervals, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (folder / "runs").as_uri())
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    names: dict[str, Any] = {}
    exec(block("MLflow"), names)
    assert names["frame"].equals(answer.to_frame())


def test_node_lines(answer: murho.Intervals, folder: Path) -> None:
    if not (JAVASCRIPT / "node_modules" / "onnxruntime-node").exists() or shutil.which("node") is None:
        pytest.skip("Node.js, or npm install in runtime/js, is missing")
    code = block("Node.js").replace('"./runtime/js/', f'"{JAVASCRIPT.as_uri()}/')
    (folder / "lines.mjs").write_text(code, encoding="utf-8")
    run = subprocess.run(["node", "lines.mjs"], capture_output=True, text=True, check=True)
    check(answer, *(np.reshape(part["data"], part["dims"]) for part in json.loads(run.stdout)))


def test_the_links_of_the_page_lead_somewhere() -> None:
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.*)$", page, re.M)
    }
    for target in re.findall(r"\]\(([^)]*)\)", page):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("http"):
            assert (ROOT / "docs" / target).exists(), target
