"""The command that runs every host tells apart what is missing, wrong or broken; only what was checked passes."""

import json
import sys
from pathlib import Path
from typing import Any

import hosts
import pytest
from hosts import FOLDER, Host


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Of a host that is right."""
    (known,) = (host for host in hosts.hosts() if host.name == "Python, ONNX Runtime")
    assert not known.missing
    return hosts.run_host(known, FOLDER, None)


def host(code: str, needs: tuple[Path, ...] = ()) -> Host:
    return Host("made up", (sys.executable, "-c", code), ".onnx", needs, ())


def row(made: Host, report: dict[str, Any] | None) -> str:
    reports = {} if report is None else {made.name: report}
    return hosts.table([made], reports, FOLDER, timed=False).splitlines()[-1]


def test_a_right_host_passes(report: dict[str, Any]) -> None:
    assert report["passed"]
    line = row(host(""), report)
    assert "exact" in line
    assert line.endswith("| passed |")


def test_a_wrong_host_fails(report: dict[str, Any]) -> None:
    wrong = json.loads(json.dumps(report)) | {"passed": False}
    wrong["cases"][2] |= {"passed": False}
    wrong["cases"][2]["largest"]["std"] = 1.0
    printed = f"print({json.dumps(wrong)!r}); raise SystemExit(1)"
    found = hosts.run_host(host(printed), FOLDER, None)
    assert not found["passed"]
    assert row(host(""), found).count("failed") == 2  # of the artifact, and of the host


def test_a_host_is_not_believed(report: dict[str, Any]) -> None:
    for value in (1.0, None):
        wrong = json.loads(json.dumps(report))
        wrong["cases"][2]["largest"]["std"] = value
        found = hosts.run_host(host(f"print({json.dumps(wrong)!r})"), FOLDER, None)
        assert not found["passed"]
        assert row(host(""), found).count("failed") == 2


def test_the_exit_status_counts(report: dict[str, Any]) -> None:
    printed = f"print({json.dumps(report)!r}); raise SystemExit(3)"
    assert not hosts.run_host(host(printed), FOLDER, None)["passed"]


def test_a_host_that_checks_nothing_fails(report: dict[str, Any]) -> None:
    printed = f"print({json.dumps(report | {'cases': []})!r})"
    assert not hosts.run_host(host(printed), FOLDER, None)["passed"]


def test_a_host_that_leaves_out_a_case_fails(report: dict[str, Any]) -> None:
    printed = f"print({json.dumps(report | {'cases': report['cases'][1:]})!r})"
    assert not hosts.run_host(host(printed), FOLDER, None)["passed"]


def test_a_broken_host_says_why() -> None:
    found = hosts.run_host(host("raise OSError('no such library')"), FOLDER, None)
    assert not found["passed"]
    assert "no such library" in row(host(""), found)


def test_what_is_missing_is_named() -> None:
    made = host("", needs=(hosts.ROOT / "examples" / "nowhere",))
    assert made.missing == "examples/nowhere"
    assert "not installed: no `examples/nowhere`" in row(made, None)
    assert Host("made up", ("no-such-program",), ".onnx", (), ()).missing == "no-such-program"
