"""An export that takes long says in a terminal where it is; a short one, and one in a script, say nothing."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from blitz.modules import BayesianLinear
from rich.console import Console
from torch import nn

from murho import InputError
from murho.export import progress, to_onnx, to_pt2, to_torchscript

EXPORTS = {"onnx": to_onnx, "pt": to_torchscript, "pt2": to_pt2}
AT_EVERY_FORMAT = ("Reading the posterior", "Tracing", "Writing", "same noise", "law", "every row alone", "its proof")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(BayesianLinear(3, 4), nn.Tanh(), BayesianLinear(4, 1))


@pytest.fixture
def terminal(monkeypatch) -> None:
    monkeypatch.setattr(progress, "Console", partial(Console, force_terminal=True, force_interactive=True, width=100))


@pytest.fixture
def at_once(monkeypatch) -> None:
    """Patience of no time, and stages that are shown when they begin: by themselves they come every tenth second."""
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    show = progress.Stages.show

    def shown(self: progress.Stages, text: str) -> None:
        show(self, text)
        self._timer.join()
        self._progress.refresh()

    monkeypatch.setattr(progress.Stages, "show", shown)


def said(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", captured.err)


@pytest.mark.parametrize("suffix", EXPORTS)
def test_a_long_export_shows_each_stage(network, tmp_path: Path, terminal, at_once, capsys, suffix: str) -> None:
    EXPORTS[suffix](network, tmp_path / f"network.{suffix}", torch.randn(4, 3))
    shown = said(capsys)
    places = [shown.find(stage) for stage in AT_EVERY_FORMAT]
    assert -1 not in places
    assert places == sorted(places)
    assert ("one piece" in shown) == (suffix == "onnx")


def test_a_short_export_says_nothing(network, tmp_path: Path, terminal, monkeypatch, capsys) -> None:
    assert progress.PATIENCE_SECONDS == 2
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 1000.0)
    to_onnx(network, tmp_path / "network.onnx", torch.randn(4, 3))
    assert said(capsys) == ""


def test_an_export_without_a_terminal_says_nothing(network, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    to_onnx(network, tmp_path / "network.onnx", torch.randn(4, 3))
    assert said(capsys) == ""


def test_an_export_without_progress_says_nothing(network, tmp_path: Path, terminal, monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    to_onnx(network, tmp_path / "network.onnx", torch.randn(4, 3), progress=False)
    assert said(capsys) == ""
    with pytest.raises(InputError, match="progress must be True or False"):
        to_onnx(network, tmp_path / "network.onnx", torch.randn(4, 3), progress="no")


def test_a_failed_export_leaves_no_display(tmp_path: Path, terminal, at_once, capsys) -> None:
    with pytest.raises(InputError):
        to_onnx(nn.Identity(), tmp_path / "network.onnx", "no numbers")
    shown = capsys.readouterr().err
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0  # the cursor is hidden while it shows
    progress.stage("of no export")
