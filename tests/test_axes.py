"""Axes of the inputs: which of them are free, which are fixed and why, and what each host says of them."""

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from blitz.modules import BayesianConv2d, BayesianLinear, BayesianLSTM
from torch import Tensor, nn

import murho
from murho.export import to_onnx, to_pt2, to_torchscript, verify

RHO: dict[str, Any] = {"posterior_rho_init": -2.0}
WRITERS: dict[str, Any] = {"onnx": to_onnx, "pt": to_torchscript, "pt2": to_pt2}


class Net(nn.Module):
    """A network whose forward is given."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


def lstm(forward: Callable[[Any, Tensor, Tensor], Tensor]) -> Net:
    """A network of an LSTM's sequence and the input."""
    return Net(
        lambda net, x: forward(net, net.lstm(x)[0], x), lstm=BayesianLSTM(2, 4, **RHO), head=nn.Linear(4, 1),
        cell=nn.LSTMCell(2, 4), dense=BayesianLinear(4, 1, **RHO),
    )  # fmt: skip


def rows(*sizes: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(sizes, dtype=np.float32)


def week_back(net: Any, y: Tensor, x: Tensor) -> Tensor:
    return net.head(y[:, -7])


def day_by_day(net: Any, y: Tensor, x: Tensor) -> Tensor:
    filled = torch.zeros(x.shape[0], x.shape[1])
    for day in range(x.shape[1]):
        filled[:, day] = net.dense(y[:, day]).squeeze(-1)
    return filled


def list_of_steps(net: Any, y: Tensor, x: Tensor) -> Tensor:
    return torch.cat([net.head(y[:, t]).unsqueeze(1) for t in range(x.shape[1])], dim=1)[:, -1]


def cell_by_cell(net: Any, y: Tensor, x: Tensor) -> Tensor:
    h, c = net.cell(x[:, 0])
    for step in x[:, 1:].split(1, dim=1):
        h, c = net.cell(step.squeeze(1), (h, c))
    return net.dense(h)


def sequence(net: Any, y: Tensor, x: Tensor) -> Tensor:
    return net.head(y).squeeze(-1)


def reshaped() -> Net:
    layers = {"layer": BayesianLinear(39, 4, **RHO), "head": nn.Linear(12, 1)}
    return Net(lambda net, x: net.head(net.layer(x.reshape(-1, 3, 39)).flatten(1)), **layers)


def convolved() -> Net:
    layers = {"conv": nn.Conv1d(2, 3, 3), "lstm": BayesianLSTM(3, 4, **RHO), "head": nn.Linear(4, 1)}
    return Net(lambda net, x: net.head(net.lstm(net.conv(x.mT).mT)[0][:, -1]), **layers)


def steps_as_channels() -> Net:
    layers = {"conv": nn.Conv1d(12, 5, 1), "lstm": BayesianLSTM(2, 4, **RHO), "head": nn.Linear(4, 1)}
    return Net(lambda net, x: net.head(net.lstm(net.conv(x))[0][:, -1]), **layers)


def flat() -> Net:
    return Net(lambda net, x: net.layer(x.flatten(1)), layer=BayesianLinear(24, 1, **RHO))


FIXED: dict[str, tuple[Callable[[], Net], np.ndarray, str]] = {
    "a step counted from the end": (
        lambda: lstm(week_back), rows(6, 12, 2),
        r"at 6 the network fails, at \S*test_axes\.py:\d+: `return net\.head\(y\[:, -7\]\)` \(IndexError.*or free=1 to",
    ),
    "filled day by day": (
        lambda: lstm(day_by_day), rows(6, 12, 2),
        r"at 15 the forward goes another way: \S*test_axes\.py:\d+: `filled.*` calls torch \d+ times, not \d+\.",
    ),
    "a list of steps": (lambda: lstm(list_of_steps), rows(6, 12, 2), r"at 15 the forward goes another way: .*`return"),
    "cell by cell": (lambda: lstm(cell_by_cell), rows(6, 12, 2), r"at 15 the forward goes another way: .*`h, c = net"),
    "rows made of steps": (reshaped, rows(6, 9, 13), r"at 12 the network's output is \[4, 1\] for 3 rows\. .*x\.shape"),
    "a convolution before an LSTM": (convolved, rows(6, 12, 2), r"at 1 the network fails, at .*Kernel size.*or free=1"),
    "steps as channels": (steps_as_channels, rows(6, 12, 2), r"at 15 the network fails, .*to have 12 channels"),
    "a layer over all steps": (flat, rows(6, 12, 2), r"at 15 the network fails, .*cannot be multiplied"),
    "values that follow the steps": (
        lambda: lstm(sequence), rows(6, 12, 2), r"output has 15 values in place of 12, .*calibrated.*or free=1",
    ),
    "another way for long sequences": (
        lambda: lstm(lambda net, y, x: net.head(y[:, -1] * (2 if x.shape[1] > 100 else 1))), rows(6, 12, 2),
        r"test_axes\.py:\d+: `lambda.*` (branches on it|makes a number of Python's of it), which the file would keep",
    ),
}  # fmt: skip


def exported(writer: str, network: nn.Module, path: Path, example: Any, **options: Any) -> tuple[murho.Card, list[str]]:
    """The card, and what was said of axes."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        card = WRITERS[writer](network.eval(), path / f"net.{writer}", example, **options)
    here = [one for one in said if str(one.message).startswith("Axis")]
    assert all(Path(one.filename) == Path(__file__) for one in here)
    return card, [str(one.message) for one in here]


@pytest.mark.parametrize("name", FIXED)
def test_an_axis_that_must_be_fixed_is_found_and_said(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, example, said = FIXED[name]
    network = build()
    card, notes = exported("onnx", network, tmp_path, example)
    assert card.input.shape == (None, *example.shape[1:])
    assert len(notes) == 1
    assert notes[0].startswith(f"Axis 1 of x (time) is fixed at {example.shape[1]}, the example's length: ")
    assert re.search(said, notes[0]), notes[0]
    longer = np.concatenate([example, example[:, :1]], axis=1)
    with pytest.raises(murho.InputError, match=f"x needs {example.shape[1]} steps, got {example.shape[1] + 1}"):
        murho.load(tmp_path / "net.onnx").predict(longer)


@pytest.mark.parametrize("format", ["pt", "pt2"])
@pytest.mark.parametrize("name", ["a step counted from the end", "another way for long sequences"])
def test_the_formats_of_torch_fix_the_same_axes(name: str, format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, example, said = FIXED[name]
    card, notes = exported(format, build(), tmp_path, example)
    assert card.input.shape == (None, *example.shape[1:])
    assert re.search(said, notes[0]), notes[0]


def test_no_note_where_the_caller_fixed_the_axis_and_none_where_nothing_is_fixed(tmp_path: Path) -> None:
    _, notes = exported("onnx", lstm(week_back), tmp_path, rows(6, 12, 2), fixed=1)
    assert notes == []
    card, notes = exported("onnx", lstm(lambda net, y, x: net.head(y[:, -1])), tmp_path, rows(7, 7, 2))
    assert notes == []
    assert card.input.shape == (None, None, 2)


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("build", [lambda: lstm(week_back), lambda: lstm(sequence)])
def test_the_notes_advice_to_free_the_axis_works(build: Callable[[], Net], format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    card, notes = exported(format, build(), tmp_path, rows(6, 12, 2), free=1)
    assert notes == []
    assert card.input.shape == (None, None, 2)
    answer = murho.load(tmp_path / f"net.{format}", trusted=True).predict(rows(2, 9, 2), 8)
    assert np.isfinite(answer.mean).all()


def test_a_longer_sequence_than_a_table_of_positions_has_is_an_error_and_no_number(tmp_path: Path) -> None:
    network = lstm(lambda net, y, x: net.head((y + net.table[: x.shape[1]])[:, -1]))
    network.register_buffer("table", torch.randn(20, 4))
    card, _ = exported("onnx", network, tmp_path, rows(6, 12, 2))
    assert card.input.shape == (None, None, 2)
    model = murho.load(tmp_path / "net.onnx")
    assert np.isfinite(model.predict(rows(2, 20, 2), 8).mean).all()
    with pytest.raises(murho.ArtifactError, match="cannot evaluate"):
        model.predict(rows(2, 21, 2), 8)


@pytest.mark.parametrize("format", WRITERS)
def test_a_branch_on_the_number_of_rows_is_refused(format: str, tmp_path: Path) -> None:
    network = lstm(lambda net, y, x: net.head(y[:, -1]) * (2 if x.shape[0] > 64 else 1))
    with pytest.raises(murho.ExportError, match=r"test_axes\.py:\d+: `network = .*(how many rows|the number of rows)"):
        exported(format, network, tmp_path, rows(6, 5, 2))


def test_free_is_an_error_where_the_axis_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(murho.ExportError, match=r"Axis 1 of x \(time\) cannot be free: at 15 the forward goes another"):
        exported("onnx", lstm(cell_by_cell), tmp_path, rows(6, 12, 2), free=1)
    with pytest.raises(murho.ExportError, match=r"Axis 2 of x \(feature\) cannot be free: at 5 the network fails"):
        exported("onnx", lstm(week_back), tmp_path, rows(6, 12, 2), free=2)
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    {
        "rows": ({"fixed": 0}, r"fixed says axis 0 of x, which has axes 1 to 2 beside its rows\. The rows, axis 0"),
        "no such axis": ({"free": 3}, r"free says axis 3 of x, which has axes 1 to 2"),
        "both": ({"free": 1, "fixed": (1, 2)}, r"Axis 1 of x is both free and fixed\. Leave one out"),
        "twice": ({"free": (1, 1)}, r"free says an axis twice: \(1, 1\)"),
        "no axis": ({"fixed": "time"}, r"fixed must be a whole number, an axis, of at least 0, not 'time'"),
        "no such input": ({"fixed": {"y": 1}}, r"fixed names 'y', but the network's inputs are x"),
    }.values(),
)
def test_axes_are_checked_at_the_door(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(murho.InputError, match=said):
        exported("onnx", lstm(week_back), tmp_path, rows(6, 12, 2), **options)


class TwoSequences(nn.Module):
    """An encoder of the past and a decoder of what is known of the future."""

    def __init__(self, loops: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder = BayesianLSTM(2, 4, **RHO), BayesianLSTM(3, 4, **RHO)
        self.cell, self.head, self.loops = nn.GRUCell(3, 4), nn.Linear(4, 1), loops

    def forward(self, past: Tensor, future: Tensor) -> Tensor:
        y, states = self.encoder(past)
        h = y[:, -1]
        if self.loops:
            for step in future.unbind(1):
                h = torch.tanh(h + step.sum(-1, keepdim=True))
        else:
            h = self.decoder(future, states)[0][:, -1]
        result: Tensor = self.head(h)
        return result


def test_two_sequences_have_lengths_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, example = TwoSequences(), (rows(6, 12, 2), rows(6, 12, 3))  # of one length by accident
    card, notes = exported("onnx", network, tmp_path, example)
    assert notes == []
    assert [array.axes[1] for array in card.inputs] == ["time", "future.time"]
    assert [array.shape[1] for array in card.inputs] == [None, None]
    assert verify(tmp_path / "net.onnx", network)["passed"]
    answer = murho.load(tmp_path / "net.onnx").predict((rows(2, 30, 2), rows(2, 3, 3)), 8)
    assert np.isfinite(answer.mean).all()


def test_of_two_sequences_the_one_that_is_looped_over_is_fixed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    card, notes = exported("onnx", TwoSequences(loops=True), tmp_path, (rows(6, 12, 2), rows(6, 5, 3)))
    assert [array.shape[1] for array in card.inputs] == [None, 5]
    assert len(notes) == 1
    assert notes[0].startswith("Axis 1 of future (time) is fixed at 5, the example's length: at 8 the forward goes")
    assert "Say fixed={'future': 1} if that is meant" in notes[0]


def test_inputs_that_must_be_equally_long_share_an_axis(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = BayesianLSTM(5, 4, **RHO), nn.Linear(4, 1)

        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            result: Tensor = self.head(self.lstm(torch.cat([x, z], dim=2))[0][:, -1])
            return result

    card, notes = exported("onnx", Side(), tmp_path, (rows(6, 12, 2), rows(6, 12, 3)))
    assert notes == []
    assert [array.axes[1] for array in card.inputs] == ["time", "time"]
    with pytest.raises(murho.InputError, match=r"z must have 9 along its time axis, as x has, but has 8"):
        murho.load(tmp_path / "net.onnx").predict((rows(2, 9, 2), rows(2, 8, 3)))


@pytest.mark.parametrize("format", WRITERS)
def test_height_and_width_of_an_image_can_be_free(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {"one": BayesianConv2d(3, 4, (3, 3), padding=1, **RHO), "two": nn.ConvTranspose2d(4, 2, 2, 2)}
    network = Net(lambda net, x: net.two(torch.max_pool2d(torch.relu(net.one(x)), 2)), **layers)
    example = rows(3, 3, 8, 8)
    card, notes = exported(format, network, tmp_path, example, free=(2, 3))
    assert notes == []
    assert card.input.axes == ("batch", "channel", "height", "width")
    assert card.input.shape == (None, 3, None, None)
    assert card.output.shape == (None, 2, None, None)
    answer = murho.load(tmp_path / f"net.{format}", trusted=True).predict(rows(2, 3, 16, 6), 8)
    assert answer.mean.shape == (2, 2, 16, 6)


def test_sizes_that_a_forward_reads_of_fixed_axes_can_be_numbers(tmp_path: Path) -> None:
    network = lstm(lambda net, y, x: net.head(y[:, -1] / math.sqrt(y.size(-1)) * (2 if x.shape[2] > 1 else 1)))
    card, notes = exported("pt", network, tmp_path, rows(6, 12, 2))
    assert notes == []
    assert card.input.shape == (None, None, 2)


def test_a_real_defect_is_not_hidden_by_fixing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from murho.export import writer

    built = []
    monkeypatch.setattr(writer, "_build", lambda *a, build=writer._build: built.append(1) or build(*a))
    network = lstm(lambda net, y, x: net.head(y[:, -1] - y[:, -1].mean(0)))
    with pytest.raises(murho.ExportError, match="mixes the rows of a batch"):
        exported("onnx", network, tmp_path, rows(6, 12, 2))
    network = lstm(lambda net, y, x: net.head(y[:, -1]) * (1 if float(x.sum()) > 0 else -1))
    with pytest.raises(murho.ExportError):
        exported("onnx", network, tmp_path, rows(6, 12, 2))
    assert len(built) == 2  # once each


def test_a_stream_needs_its_steps_free(tmp_path: Path) -> None:
    with pytest.raises(murho.ExportError, match=r"A stream reads one step at a time, .* Axis 1 of x \(time\) is fixed"):
        exported("onnx", lstm(week_back), tmp_path, rows(6, 12, 2), streaming=True)


def test_fixed_windows_with_paths_noise_and_values_from_the_last_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {"lstm": BayesianLSTM(1, 4, **RHO), "head": nn.Linear(4, 1)}
    network = Net(lambda net, x: net.head(net.lstm(x)[0][:, -3]), **layers)
    scaling = murho.Scaling((0.0,), (0.1,), (0.0,), (0.1,), "returns")
    example = 5 + 0.1 * rows(6, 8, 1)
    options: dict[str, Any] = {"scaling": scaling, "noise": murho.Noise(scale=(0.1,)), "horizon": 3}
    card, notes = exported("onnx", network, tmp_path, example, task="forecast", **options)
    assert len(notes) == 1
    assert card.input.shape == (None, 8, 1)
    model = murho.load(tmp_path / "net.onnx")
    frame = pd.DataFrame({"price": 5 + 0.1 * rows(11)})
    assert len(model.predict(frame, 8)) == 4  # windows of 8 rows
    assert verify(tmp_path / "net.onnx", network)["passed"]
    with pytest.raises(murho.InputError, match=r"example must be \[batch, time = 8, .*it is \(6, 9, 1\)"):
        verify(tmp_path / "net.onnx", network, 5 + 0.1 * rows(6, 9, 1))


def test_fixed_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {"table": nn.Embedding(11, 3), "layer": BayesianLinear(15, 2, **RHO)}
    network = Net(lambda net, x: net.layer(net.table(x).flatten(1)), **layers)
    tokens = np.random.default_rng(0).integers(0, 11, (6, 5))
    card, notes = exported("onnx", network, tmp_path, tokens)
    assert card.input.shape == (None, 5)
    assert notes[0].startswith("Axis 1 of x is fixed at 5")
    assert verify(tmp_path / "net.onnx", network, tokens)["passed"]
