"""The conformance folder: its expected values, Python's hosts against them, and that a wrong host would not pass."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import generator_vectors
import make
import murho_host
import numpy as np
import pytest
import python_host
import reference
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parent / "conformance"
FORMATS = ("onnx", "pt", "pt2")


@pytest.fixture(scope="module")
def wanted() -> dict[str, Any]:
    return json.loads((ROOT / "conformance.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("copy") / "conformance"))


def test_check_values_of_the_design() -> None:
    """They are float32's, which is off by up to 5e-6 (test_generator.py has the derivation)."""
    normals = reference.normals(range(1000), 42, 3, 480)
    want = [-0.6859747, -1.2199092, -2.0420113, 1.7551338, 0.6792765]
    np.testing.assert_allclose(normals[0, :5], want, rtol=0, atol=5e-6)
    assert normals.sum() / 480_000 == pytest.approx(-0.00221199, abs=1e-7)


def test_the_file_is_what_the_reference_says(wanted: dict[str, Any]) -> None:
    """The committed values follow from seeds; only the last digits depend on the machine's mathematics."""
    assert close(make.document({name: subject() for name, subject in make.SUBJECTS.items()}), wanted)
    changed = copy.deepcopy(wanted)
    changed["cases"][0]["expected"]["mean"]["data"][0] *= 1 + 1e-9
    assert not close(changed, wanted)


def close(one: Any, other: Any) -> bool:
    """Equal documents, up to rounding of floats."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(close(a, b) for a, b in zip(one, other, strict=True))
    return one == pytest.approx(other, rel=1e-12, abs=1e-15) if isinstance(one, float) else one == other


def test_the_file_keeps_its_schema(wanted: dict[str, Any]) -> None:
    schema = json.loads((ROOT / "conformance.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(wanted)
    assert len(wanted["generator"]["words"]) == np.prod(wanted["generator"]["shape"])
    for case in wanted["cases"]:
        for array in (*case["inputs"].values(), *case["expected"].values()):
            assert len(array["data"]) == np.prod(array["shape"])


def test_the_limits_tell_another_draw(wanted: dict[str, Any]) -> None:
    """What is allowed is a small part of how much the samples differ from draw to draw."""
    for case in wanted["cases"]:
        expected = case["expected"]
        spread = np.median(expected["std"]["data"])
        assert all(expected[name]["limit"] < spread / 500 for name in expected), case["name"]


@pytest.mark.parametrize("format", FORMATS)
def test_python_hosts(format: str) -> None:
    if not (ROOT / f"lstm.{format}").exists():
        pytest.skip(f"no artifacts in .{format}")
    run = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "python_host.py"), str(ROOT), "--format", format],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0, found
    assert found["passed"]
    assert found["words_exact"]
    assert [case["name"] for case in found["cases"]] == [case.name for case in make.CASES]
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert ("onnxruntime" if format == "onnx" else "torch") in imported
    assert "murho" not in imported  # a foreign host has no code of ours
    assert "[W:onnxruntime" not in run.stderr  # nor is it warned of the file


@pytest.mark.parametrize("format", FORMATS)
def test_murho_itself(wanted: dict[str, Any], format: str) -> None:
    """The runtime takes its statistics and calibration outside the file."""
    if not (ROOT / f"lstm.{format}").exists():
        pytest.skip(f"no artifacts in .{format}")
    for case in wanted["cases"]:
        found = murho_host.checked(ROOT / f"{case['artifact']}.{format}", case)
        assert found["passed"], found


def changed_word(wanted: dict[str, Any]) -> None:
    wanted["generator"]["words"][-1] ^= 1


def changed_value(wanted: dict[str, Any]) -> None:
    array = wanted["cases"][-1]["expected"]["upper"]
    array["data"][-1] += 2 * array["limit"]


def nan_limit(wanted: dict[str, Any]) -> None:
    wanted["cases"][0]["expected"]["samples"]["data"][3] = float("nan")


def other_shape(wanted: dict[str, Any]) -> None:
    array = wanted["cases"][1]["expected"]["mean"]
    array["shape"] = array["shape"][::-1]


def other_seed(wanted: dict[str, Any]) -> None:
    """As a host whose seed is a double would have it."""
    wanted["cases"][1]["seed"] = str(int(float(wanted["cases"][1]["seed"])))


def other_draw(wanted: dict[str, Any]) -> None:
    wanted["cases"][2]["draws"][-1] -= 1


def swapped_levels(wanted: dict[str, Any]) -> None:
    wanted["cases"][3]["levels"].reverse()


WRONG = (changed_word, changed_value, nan_limit, other_shape, other_seed, other_draw, swapped_levels)


@pytest.mark.parametrize("change", WRONG, ids=[change.__name__ for change in WRONG])
def test_a_wrong_host_fails(wanted: dict[str, Any], folder: Path, change: Any) -> None:
    changed = copy.deepcopy(wanted)
    change(changed)
    (folder / "conformance.json").write_text(json.dumps(changed), encoding="utf-8")
    found = python_host.report(folder, "onnx", None)
    assert not found["passed"]
    right = [found["words_exact"], *(case["passed"] for case in found["cases"])]
    assert right.count(False) == 1


def test_a_failing_runner_says_so(wanted: dict[str, Any], folder: Path) -> None:
    changed = copy.deepcopy(wanted)
    changed_word(changed)
    (folder / "conformance.json").write_text(json.dumps(changed), encoding="utf-8")
    command = [sys.executable, str(ROOT / "python_host.py"), str(folder), "--format", "onnx"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_the_artifacts_are_small() -> None:
    for path in ROOT.glob("*"):
        most = 500_000 if path.suffix == ".pt2" else 200_000  # a program of torch.export is JSON
        assert not path.is_file() or path.stat().st_size < most, path.name


def test_the_generators_page_has_the_vectors() -> None:
    page = (ROOT.parents[1] / "docs" / "generator.md").read_text(encoding="utf-8")
    assert generator_vectors.vectors() in page
