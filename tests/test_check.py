"""A report in place of an error: all findings at once, what will export, and what it costs; nothing is written."""

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

import murho
from murho import ArtifactError, InputError
from murho.cli.entry import main
from murho.export import check, report, to_onnx
from murho.runtime.cost import Cost, measured

FORMATS = ("onnx", "torchscript", "pt2")
RHO = {"posterior_rho_init": -2.0}


class Changed(BayesianLinear):
    """Its forward is its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).abs()


class ThreeWrong(nn.Module):
    """Two layers that murho cannot know, and a normalisation by the batch at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = Changed(3, 4), nn.BatchNorm1d(4, track_running_stats=False), Changed(4, 4)
        self.drop, self.head = nn.Dropout(), BayesianLinear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.two(self.norm(self.one(x)))))


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = BayesianLSTM(2, 4, **RHO), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


COSTS = (Cost(1000, 1, 1.5, 70.0), Cost(1000, 64, 1500.0, None))


@pytest.fixture
def fixed_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started."""
    monkeypatch.setattr(report, "measured", lambda artifact, draws, rows: COSTS)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which must stay empty."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def test_an_export_says_all_that_is_in_its_way_at_once(tmp_path: Path) -> None:
    with pytest.raises(murho.ExportError) as refused:
        to_onnx(ThreeWrong(), tmp_path / "net.onnx", torch.randn(5, 3))
    one, two, norm = refused.value.reasons
    assert "'one'" in one
    assert "'two'" in two
    assert "'norm'" in norm
    assert str(refused.value) == f"3 things stand in the way of the export:\n- {one}\n- {two}\n- {norm}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_three_things_wrong_are_three_findings(empty: Path, dtype: torch.dtype) -> None:
    network = ThreeWrong().to(dtype)
    before = {name: value.clone() for name, value in network.named_parameters()}
    found = check(network, torch.randn(5, 3))
    assert [reason.split(" is a ")[0] for reason in found.reasons] == ["Layer 'one'", "Layer 'two'", "Module 'norm'"]
    assert found.exports == dict.fromkeys(FORMATS, False)
    assert found.verdict == "Does not export: 3 things stand in the way."
    assert any("dropout is off in 'drop'" in note for note in found.notes)
    assert found.layers == {"head": "BayesianLinear"}
    for text in (*found.reasons, *found.notes):
        assert f"- {text.splitlines()[0]}" in str(found)
    assert isinstance(network.one, Changed)  # the network is as it was
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())


def test_behind_a_layer_that_cannot_be_exported_the_rest_is_run() -> None:
    class Folds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = Changed(3, 4), BayesianLinear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.first(x).reshape(5, 4))  # the example's rows

    found = check(Folds(), torch.randn(5, 3))
    layer, forward = found.reasons
    assert "'first'" in layer
    assert "'first'" not in forward
    assert "shape '[5, 4]' is invalid" in forward


def test_a_branch_on_values_is_one_finding_for_all_formats(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class OnValues(Last):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * 2 if x.sum() > 0 else x)

    found = check(OnValues(), torch.randn(5, 6, 2), fixed=1)
    (reason,) = found.reasons
    assert "branches on values" in reason
    assert not any(one.reasons for one in found.formats.values())
    assert found.verdict == "Does not export: one thing stands in the way."
    assert capfd.readouterr() == ("", "")  # torch would print its graph and its log


def test_formats_differ_and_an_axis_is_fixed(fixed_cost: None, empty: Path) -> None:
    class Week(Last):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.special.bessel_j0(x[:, -6, :1])  # of which ONNX has no operator

    found = check(Week(), torch.randn(5, 6, 2))
    assert found.verdict == "Exports as TorchScript and .pt2, not as ONNX."
    assert found.exports == {"onnx": False, "torchscript": True, "pt2": True}
    (reason,) = found.formats["onnx"].reasons
    assert "bessel_j0" in reason
    assert found.reasons == ()
    assert str(found.formats["pt2"].inputs[0]) == "x [batch, time=6, feature=2]"
    (fixed,) = [note for note in found.notes if "Axis 1 of x" in note]
    assert "is fixed at 6" in fixed
    text = str(found)
    assert text.startswith("Week. Exports as TorchScript and .pt2, not as ONNX.\n")
    assert f"In the way, ONNX alone:\n- {reason}\n" in text
    assert f"- {fixed}\n" in text
    assert "- input x, float32: batch of any length; time 6, feature 2\n" in text
    assert "- 1000 draws of 64 rows: 1.5 s" in text


def test_arguments_that_are_none_are_errors() -> None:
    with pytest.raises(InputError, match="sampling must be"):
        check(Last(), torch.randn(5, 6, 2), sampling="some")
    with pytest.raises(InputError, match="network must be a torch module"):
        check("network", torch.randn(5, 6, 2))


def test_the_cost_is_measured_in_a_process_of_its_own(exported: Callable[[str], Any]) -> None:
    one, many = measured(exported("mlp").onnx, 1000, (1, 64))
    assert (one.draws, one.rows, many.draws, many.rows) == (1000, 1, 1000, 64)
    assert 0 < one.milliseconds < 60_000
    if sys.platform == "linux":
        assert 10 < one.mebibytes <= many.mebibytes < 1000


def test_a_cost_that_cannot_be_measured_says_why(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"The process that measured it failed: .*Cannot read the artifact"):
        measured(tmp_path / "none.onnx", 1000, (1,))


# From the shell

MODULE = """
import numpy as np
from torch import nn
from blitz.modules import BayesianLinear, BayesianLSTM

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = BayesianLSTM(3, 4), BayesianLinear(4, 2)

    def forward(self, x, scale=1.0):
        return self.head(self.lstm(x)[0][:, -1]) * scale

x = np.linspace(-1, 1, 90, dtype=np.float32).reshape(5, 6, 3)

def good():
    return Network(), (x, 2.0)

def with_options():
    return Network(), x, {"task": "classification", "input_names": ("a", "b", "c")}

def bad():
    return nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), Network()), x

def fails():
    weights = {}
    return weights["missing"]
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """What was printed, without the breaks that fit it into 80 columns."""
        return " ".join(self.out.split())


@pytest.fixture
def murho_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed_cost: None, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """`murho check …` beside mine.py, in this process. The folder stays as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "typo.py").write_text("x = 1\ny = (2,\n")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(3)\n")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 4)), columns=["a", "b", "c", "other"])
    frame.to_csv(tmp_path / "table.csv", index=False)
    np.savez(tmp_path / "inputs.npz", x=frame.to_numpy(np.float32)[:, :3].reshape(5, 8, 3))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["murho", "check", *arguments])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
            main()
        return Outcome(int(stop.value.code or 0), *capsys.readouterr())

    yield run
    for name in ("mine", "typo", "ends"):
        sys.modules.pop(name, None)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_command_says_the_verdict_first(murho_check: Callable[..., Outcome]) -> None:
    good = murho_check("mine:good")
    assert good.code == 0
    assert good.out.startswith("Network. Exports as ONNX, TorchScript and .pt2.\n")
    assert re.search(r"│ input +│ x +│ float32 +│ batch, time +│ feature 3 +│", good.out)
    assert re.search(r"│ constant +│ scale +│ 2\.0 +│", good.out)
    assert re.search(r"│ \.pt2 +│ +\d+ kB │ +\d\.\de-\d\d │ +1\.5 ms │ +1\.5 s │ +70 MiB │", good.out)
    bad = murho_check("mine:bad")
    assert bad.code == 1
    assert bad.out.startswith("Sequential. Does not export: one thing stands in the way.\n")
    assert "1. Module '0' is a BatchNorm1d without running statistics" in bad.text
    assert bad.err == ""


def test_the_report_as_json(murho_check: Callable[..., Outcome]) -> None:
    outcome = murho_check("mine:with_options", "--sampling", "local", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    array = {"names": ["a", "b", "c"], "unit": "", "limit": None}
    x = {"name": "x", "axes": ["batch", "time", "feature"], "shape": [None, None, 3], "dtype": "float32", **array}
    y = {**x, "name": "output", "axes": ["batch", "class"], "shape": [None, 2], "names": []}
    costs = [
        {"draws": 1000, "rows": 1, "milliseconds": 1.5, "mebibytes": 70.0},
        {"draws": 1000, "rows": 64, "milliseconds": 1500.0, "mebibytes": None},
    ]
    for one in found["formats"].values():
        assert 0 <= one.pop("largest_error") < 1e-5
        assert one.pop("file_bytes") > 1000
    assert all("σ is still where BLiTZ starts it" in note for note in found.pop("notes"))
    good = {"exports": True, "reasons": [], "notes": [], "inputs": [x], "outputs": [y], "costs": costs}
    assert found == {
        "verdict": "Exports as ONNX, TorchScript and .pt2.",
        "exports": dict.fromkeys(FORMATS, True),
        "network": "Network",
        "layers": {"lstm": "BayesianLSTM", "head": "BayesianLinear"},
        "reasons": [],
        "constants": {},
        "formats": dict.fromkeys(FORMATS, good),
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("--example", "inputs.npz"),
        ("--example", "table.csv", "--window", "7", *("--column", "a", "--column", "b", "--column", "c")),
    ],
)
def test_the_example_may_come_from_a_file(
    murho_check: Callable[..., Outcome], arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SUFFIXES", {"onnx": ".onnx"})
    outcome = murho_check("mine:Network", *arguments)
    assert outcome.out.startswith("Network. Exports as ONNX.\n"), outcome


SAID = {
    "no example": (
        "mine:Network",
        r"Let mine:Network return \(network, example\), or name a file with --example",
    ),
    "fails": ("mine:fails", r"mine:fails fails \(KeyError: 'missing'\), at mine\.py:27: `return weights\["),
    "a typo": (
        "typo:network",
        r"importing 'typo' fails \(SyntaxError: '\(' was never closed\), at typo\.py:2: `y = \(2,`",
    ),
    "ends": ("ends:network", r"importing 'ends' fails \(SystemExit: 3\), at ends\.py:2: `sys\.exit\(3\)`"),
    "something else": (
        "mine:x",
        r"mine:x gives ndarray; it must be the trained network, .*\(network, example\)",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_what_is_no_network_with_an_example_says_why(murho_check: Callable[..., Outcome], case: str) -> None:
    name, said = SAID[case]
    outcome = murho_check(name)
    assert (outcome.code, outcome.out) == (1, "")
    assert re.fullmatch(rf"Error: .*{said}.*\n", outcome.err), outcome.err
