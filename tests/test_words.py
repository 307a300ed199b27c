"""A network that cannot be exported is refused at its own line, with a reason and a change; and the change exports."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import Tensor, nn

import murho
from murho.export import diagnosis, to_onnx, to_pt2, to_torchscript
from murho.export.montecarlo import Plan
from murho.export.recognition import read_posteriors
from murho.export.reference import Reference

SURE = {"posterior_rho_init": -2.0}
ROWS = 8
FORMATS = {"onnx": (to_onnx, "a.onnx"), "torchscript": (to_torchscript, "a.pt"), "pt2": (to_pt2, "a.pt2")}


class Net(nn.Module):
    """A network whose forward is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], recurrent: bool = False, **more: Any) -> None:
        super().__init__()
        self.first = BayesianLSTM(3, 4, **SURE) if recurrent else BayesianLinear(3, 4, **SURE)
        self.last = BayesianLinear(4, 2, **SURE)
        for name, value in more.items():
            setattr(self, name, value)
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


def exported(build: Callable[[], nn.Module], folder: Path, sizes: tuple[int, ...], format: str = "torchscript") -> Any:
    torch.manual_seed(0)
    export, name = FORMATS[format]
    return export(build().eval(), folder / name, np.random.default_rng(0).standard_normal(sizes, dtype=np.float32))


class Keeping(Net):
    def forward(self, x: Tensor) -> Tensor:
        y, self.hidden = self.first(x, self.hidden)
        return self.last(y[:, -1])


def trying(net: Any, x: Tensor) -> Tensor:
    try:
        return net.last(net.first(x).view(8, 4))
    except RuntimeError:
        return net.last(net.first(x))


def by_chance(net: Any, x: Tensor) -> Tensor:
    if random.random() < 0.5:
        x = -x
    return net.last(net.first(x))


Forward = Callable[[Any, Tensor], Any]
# name: (a forward, what the message says after its line, the forward as the message advises)
REFUSED: dict[str, tuple[Forward, str, Forward]] = {
    "a branch on a value": (
        lambda net, x: net.last(net.first(x) if x.mean() > 0 else -net.first(x)),
        r"branches on values: .*torch\.where",
        lambda net, x: net.last(torch.where(x[:, :1] > 0, net.first(x), -net.first(x))),
    ),
    "a value as a number": (
        lambda net, x: net.last(net.first(x)) * net.scale.item(),
        r"turns a tensor's value into a number of Python's.*without \.item\(\)",
        lambda net, x: net.last(net.first(x)) * net.scale,
    ),
    "numpy": (
        lambda net, x: net.last(net.first(torch.from_numpy(np.tanh(x.numpy())))),
        r"leaves torch for numpy, where an export cannot follow.*torch\.tanh for np\.tanh",
        lambda net, x: net.last(net.first(torch.tanh(x))),
    ),
    "a size as a number": (
        lambda net, x: net.last(net.first(x).view(int(x.shape[0]), 4)),
        r"makes a number of Python's of how many rows there are.*Take it as x\.shape\[0\], without .*int\(\)",
        lambda net, x: net.last(net.first(x).view(x.shape[0], 4)),
    ),
    "rows typed in": (
        lambda net, x: net.last(net.first(x).view(8, -1)),
        r"works with 8 rows, as the example has, and fails with 9 .*: take the number from the input, x\.shape\[0\] in "
        "place of 8",
        lambda net, x: net.last(net.first(x).view(x.shape[0], -1)),
    ),
    "a tensor of so many rows": (
        lambda net, x: net.last(net.first(x) + torch.zeros(8, 4)),
        r"works with 8 rows.* x\.shape\[0\] in place of 8",
        lambda net, x: net.last(net.first(x) + torch.zeros(x.shape[0], 4)),
    ),
    "rows mixed by a statistic": (
        lambda net, x: net.last(net.first(x - x.mean(0))),
        r"mixes the rows of a batch.*keep them as buffers; or take them within a row, over dim=-1",
        lambda net, x: net.last(net.first(x - x.mean(-1, keepdim=True))),
    ),
    "rows mixed along axis 0": (
        lambda net, x: torch.softmax(net.last(net.first(x)), dim=0),
        r"mixes the rows of a batch.*Its axis 0 is the batch: use another one, dim=-1",
        lambda net, x: torch.softmax(net.last(net.first(x)), dim=-1),
    ),
    "attention across rows": (
        lambda net, x: net.last(torch.softmax(net.first(x) @ net.first(x).T, dim=-1) @ net.first(x)),
        r"mixes the rows of a batch.*attention go over the steps of one row, or over its features",
        lambda net, x: net.last(
            (
                torch.softmax(net.first(x).unsqueeze(2) @ net.first(x).unsqueeze(1), dim=-1) @ net.first(x).unsqueeze(2)
            ).squeeze(2)
        ),
    ),
    "a row at a time": (
        lambda net, x: net.last(torch.cat([net.first(row.unsqueeze(0)) for row in x])),
        r"cannot run with the draws folded into the batch axis.* all at once and not in a loop over them",
        lambda net, x: net.last(net.first(x)),
    ),
    "a loss": (
        lambda net, x: net.last(net.first(x)).square().mean(),
        r"returns one number for all rows.*return the predictions \[batch, …\]",
        lambda net, x: net.last(net.first(x)),
    ),
    "two answers for a row": (
        lambda net, x: torch.cat([net.last(net.first(x)), net.last(net.first(x))]),
        r"of shape \[16, 2\] for 8 rows.*torch\.cat\(…, dim=-1\)",
        lambda net, x: torch.cat([net.last(net.first(x)), net.last(net.first(x))], dim=-1),
    ),
    "squeeze": (
        lambda net, x: net.last(net.first(x)).squeeze(),
        r"also takes the batch's axis away where there is one row.*squeeze\(-1\)",
        lambda net, x: net.last(net.first(x)).squeeze(-1),
    ),
    "random numbers of torch": (
        lambda net, x: net.last(net.first(x) + torch.randn(4)),
        r"two answers for the same weights.*remove any other randomness",
        lambda net, x: net.last(net.first(x)),
    ),
    "a device by name": (
        lambda net, x: net.last(net.first(x.to("xpu:7"))),
        r"moves tensors to a device by its name.*y\.to\(x\.device\)",
        lambda net, x: net.last(net.first(x.to(x.device))),
    ),
    "an error that is caught": (  # TorchScript's tracer would crash the process
        trying,
        r"view\(8, 4\)\)` raises an error that the forward catches.*Take the `try` out",
        lambda net, x: net.last(net.first(x)),
    ),
    "an assertion on values": (
        lambda net, x: _checked(net.last(net.first(x))),
        r"`assert .* looks at values.*Take the assertion out of forward",
        lambda net, x: net.last(net.first(x)),
    ),
}


def _checked(y: Tensor) -> Tensor:
    assert not torch.isnan(y).any()
    return y


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_the_line_and_mended_as_advised(tmp_path: Path, name: str) -> None:
    forward, message, mended = REFUSED[name]
    with pytest.raises(murho.ExportError, match=rf"(?s)test_words\.py:\d+.*{message}"):
        exported(lambda: Net(forward, scale=torch.tensor(2.0)), tmp_path, (ROWS, 3))
    assert exported(lambda: Net(mended, scale=torch.tensor(2.0)), tmp_path, (ROWS, 3)).verification["passed"]


# The same of windows [B, T, 3] and a recurrent layer.
WINDOWS: dict[str, tuple[Forward, str, Forward]] = {
    "time before rows": (
        lambda net, x: net.last(net.first(x.permute(1, 0, 2))[0][-1]),
        r"BayesianLSTM 'first' reads \[batch, time, feature\] and got another order.*Leave out the transpose",
        lambda net, x: net.last(net.first(x)[0][:, -1]),
    ),
    "torch's layer takes time first": (
        lambda net, x: net.last(net.second(net.first(x)[0])[0][:, -1]),
        r"LSTM 'second' takes the first axis for time: make it with batch_first=True, or give it x\.transpose\(0, 1\)",
        lambda net, x: net.last(net.second(net.first(x)[0].transpose(0, 1))[0][-1]),
    ),
    "a loss for sharpening": (
        lambda net, x: net.last(net.first(x, sharpen_loss=torch.tensor(1.0))[0][:, -1]),
        r"Layer 'first' is called with sharpen_loss.*Leave it out of the call",
        lambda net, x: net.last(net.first(x)[0][:, -1]),
    ),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_refused_at_the_line_and_mended_as_advised(tmp_path: Path, name: str) -> None:
    forward, message, mended = WINDOWS[name]

    def build(forward: Forward) -> nn.Module:
        return Net(forward, recurrent=True, hidden=None, second=nn.LSTM(4, 4))

    with pytest.raises(murho.ExportError, match=rf"(?s)test_words\.py:\d+.*{message}"):
        exported(lambda: build(forward), tmp_path, (ROWS, 5, 3))
    assert exported(lambda: build(mended), tmp_path, (ROWS, 5, 3)).verification["passed"]


def test_a_state_kept_from_call_to_call(tmp_path: Path) -> None:
    network = Keeping(lambda *_: None, recurrent=True, hidden=None)
    line = r"test_words\.py:\d+: `y, self\.hidden = self\.first\(x, self\.hidden\)` keeps self\.hidden from one call"
    with pytest.raises(murho.ExportError, match=rf"{line}.*Begin each call afresh.*streaming=True"):
        to_torchscript(network, tmp_path / "a.pt", torch.randn(ROWS, 5, 3))
    assert network.hidden is None

    def afresh() -> nn.Module:
        return Net(lambda net, x: net.last(net.first(x)[0][:, -1]), recurrent=True)

    assert exported(afresh, tmp_path, (ROWS, 5, 3)).verification["passed"]
    network, rows = afresh().eval(), np.zeros((ROWS, 5, 3), np.float32)
    assert to_torchscript(network, tmp_path / "b.pt", rows, streaming=True).verification["streamed"]


def test_chance_of_pythons_own_has_a_line() -> None:
    random.seed(0)
    network = Net(by_chance)
    reference = Reference(network, read_posteriors(network), Plan(murho.Scaling()))
    text = diagnosis.unrepeatable(reference, [torch.randn(ROWS, 3)])
    assert text is not None
    assert "x = -x` gives two answers for the same weights" in text


def test_an_operator_that_a_format_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.last(torch.special.bessel_j0(net.first(x)))

    with pytest.raises(
        murho.ExportError,
        match=r"test_words\.py:\d+: `.*bessel_j0.*` needs the operator prims\.bessel_j0, .* to ONNX.*"
        r"to_torchscript and to_pt2 can export the network as it is",
    ):
        exported(lambda: Net(forward), tmp_path, (ROWS, 3), "onnx")
    assert exported(lambda: Net(forward), tmp_path, (ROWS, 3), "torchscript").verification["passed"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_forward_that_writes_to_its_input(tmp_path: Path, format: str) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x[:, 0] = x[:, 0] * 2
        x += 1
        return net.last(net.first(x))

    assert exported(lambda: Net(forward), tmp_path, (ROWS, 3), format).verification["passed"]


@pytest.mark.parametrize("format", FORMATS)
def test_bayesian_layers_inside_a_transformer_layer(tmp_path: Path, format: str) -> None:
    """torch's fused pass reads their `weight`, which BLiTZ's layers have not."""

    def build() -> nn.Module:
        inner = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        inner.linear1, inner.linear2 = BayesianLinear(4, 8, **SURE), BayesianLinear(8, 4, **SURE)
        return Net(lambda net, x: net.last(net.inner(net.first(x)[0])[:, -1]), recurrent=True, inner=inner)

    assert torch.backends.mha.get_fastpath_enabled()
    assert exported(build, tmp_path, (ROWS, 5, 3), format).verification["passed"]
    assert torch.backends.mha.get_fastpath_enabled()
