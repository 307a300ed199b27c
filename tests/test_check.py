"""A report in place of an error: all findings at once, what will export, and what it costs; nothing is written."""

from pathlib import Path

import pytest
import torch
from blitz.modules import BayesianLinear
from torch import nn

import murho
from murho.export import to_onnx


class Changed(BayesianLinear):
    """Its forward is its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).abs()


class ThreeWrong(nn.Module):
    """Two layers that murho cannot know, and a normalisation by the batch at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = Changed(3, 4), nn.BatchNorm1d(4, track_running_stats=False), Changed(4, 4)
        self.head = BayesianLinear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.norm(self.one(x))))


def test_an_export_says_all_that_is_in_its_way_at_once(tmp_path: Path) -> None:
    with pytest.raises(murho.ExportError) as refused:
        to_onnx(ThreeWrong(), tmp_path / "net.onnx", torch.randn(5, 3))
    one, two = refused.value.reasons
    assert "'one'" in one
    assert "'two'" in two
    assert str(refused.value) == f"2 things stand in the way of the export:\n- {one}\n- {two}"
