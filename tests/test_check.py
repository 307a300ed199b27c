"""A report in place of an error: all findings at once, what will export, and what it costs; nothing is written."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

import murho
from murho import ArtifactError, InputError
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
        assert f"- {text}" in str(found)
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


def test_a_good_network_exports_in_every_format(fixed_cost: None, empty: Path) -> None:
    found = check(Last(), torch.randn(5, 6, 2))
    assert found.reasons == ()
    assert found.verdict == "Exports as ONNX, TorchScript and .pt2."
    assert found.exports == dict.fromkeys(FORMATS, True)
    for one in found.formats.values():
        assert str(one.inputs[0]) == "x [batch, time, feature=2]"
        assert str(one.outputs[0]) == "output [batch, output=1]"
        assert one.file_bytes is not None
        assert one.file_bytes > 1000
        assert one.largest_error is not None
        assert one.largest_error < 1e-5
        assert one.costs == COSTS
    assert "σ is still where BLiTZ starts it" in found.notes[0]


def test_a_branch_on_values_is_one_finding_for_each_format(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class OnValues(Last):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * 2 if x.sum() > 0 else x)

    found = check(OnValues(), torch.randn(5, 6, 2), fixed=1)
    assert found.reasons == ()
    assert all(len(one.reasons) == 1 for one in found.formats.values())
    assert found.verdict == "Does not export: 3 things stand in the way."
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
