import copy
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from blitz.modules import (
    BayesianConv2d,
    BayesianGRU,
    BayesianLinear,
    BayesianLSTM,
)
from onnx.numpy_helper import to_array
from torch import Tensor, nn

import murho
from murho.export import functions, onnx_file, samplers, to_onnx, to_torchscript, torchscript_file, verify, writer

EXPORTS = {"onnx": to_onnx, "torchscript": to_torchscript}


@pytest.fixture
def export(format: str) -> Callable[..., murho.Card]:
    return EXPORTS[format]


@pytest.fixture
def path(tmp_path: Path, format: str) -> Path:
    return tmp_path / ("net.onnx" if format == "onnx" else "net.pt")


def rows(*sizes: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(sizes, dtype=np.float32)


class Forward(nn.Module):
    """A network whose forward is given."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward(self, x)


def linear(*sizes: int, **more: Any) -> nn.Module:
    return BayesianLinear(*sizes, posterior_rho_init=-2.0, **more)


def frozen(layer: nn.Module) -> nn.Module:
    layer.freeze = True
    return layer


def sharpened() -> nn.Module:
    layer = BayesianLSTM(2, 3, sharpen=True)
    layer.set_loss_to_sharpen(torch.tensor(1.0))
    return Forward(lambda net, x: net.lstm(x)[0], lstm=layer)


def diverged() -> nn.Module:
    layer = linear(3, 2)
    layer.weight_sampler.rho.data[0, 0] = float("nan")
    return nn.Sequential(layer)


def own_sample() -> nn.Module:
    layer = linear(3, 2)
    layer.weight_sampler.sample = lambda: layer.weight_sampler.mu
    return nn.Sequential(layer)


class Unknown(BayesianLinear):
    """A subclass may compute anything."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).square()


REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "no BLiTZ layer": (lambda: nn.Linear(3, 1), (4, 3), r"no BLiTZ layer, so there is nothing to sample"),
    "all frozen": (lambda: nn.Sequential(frozen(linear(3, 1))), (4, 3), r"Every BLiTZ layer .* frozen.*unfreeze_\(\)"),
    "never called": (
        lambda: Forward(lambda net, x: x, unused=linear(3, 1)), (4, 3), r"never calls one of its sampling BLiTZ layers",
    ),
    "a layer that murho does not know": (
        lambda: nn.Sequential(Unknown(3, 1)), (4, 3),
        r"(?s)Layer '0' is a Unknown, .* does not know\. .* something else than BayesianLinear\..*@register_layer\(Un",
    ),
    "sharpened": (sharpened, (4, 5, 2), r"Layer 'lstm' has loss_to_sharpen set.*set_loss_to_sharpen\(None\)"),
    "sample() of its own": (own_sample, (4, 3), r"Layer '0' draws its weight by a sample\(\) of its own"),
    "diverged": (diverged, (4, 3), r"Layer '0' has a posterior that is not finite"),
    "classes": (
        lambda: Forward(lambda net, x: net.layer(x).argmax(1), layer=linear(3, 2)), (4, 3),
        r"must return float tensors, .*'output' is a tensor of torch.int64. Wrap it",
    ),
    "a number": (lambda: Forward(lambda net, x: 1.0 + 0 * len(net.layer(x)), layer=linear(3, 2)), (4, 3), r"is float"),
    "three outputs": (
        lambda: Forward(lambda net, x: (net.layer(x),) * 3, layer=linear(3, 2)), (4, 3),
        r"returns 3 values\. Name those to export, in order: outputs=",
    ),
    "nothing random": (
        lambda: Forward(lambda net, x: (net.layer(x), x)[1], layer=linear(3, 2)), (4, 3),
        r"No output of the network depends on a sampling BLiTZ layer",
    ),
    "nothing that varies": (
        lambda: Forward(lambda net, x: torch.relu(net.layer(x) - 1e6) + x[:, :2], layer=linear(3, 2)), (4, 3),
        r"On the example all draws give the same answer, in BLiTZ too",
    ),
    "mixed rows": (
        lambda: Forward(lambda net, x: net.head(net.a(x) - net.a(x).mean(0)), a=linear(3, 2), head=nn.Linear(2, 1)),
        (4, 3), r"disagrees with BLiTZ .*test_export\.py:\d+: `.*` mixes the rows of a batch.*keep them as buffers",
    ),
    "rows mixed before the first layer": (
        lambda: Forward(lambda net, x: net.layer(x - x.mean(0)), layer=linear(3, 2)), (4, 3),
        r"The answer to a row changes by .* with the rows beside it\. .*:\d+: `.*` mixes the rows of a batch",
    ),
    "mixed rows in softmax": (
        lambda: nn.Sequential(linear(3, 2), nn.Softmax(dim=0)), (4, 3),
        r"disagrees with BLiTZ .* Module '1' mixes the rows of a batch.* Its axis 0 is the batch: use another one",
    ),
    "statistics of the batch": (
        lambda: nn.Sequential(linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)), (4, 3),
        r"Module '1' is a BatchNorm1d without running statistics: .*track_running_stats=True",
    ),
    "rows moved before a layer": (
        lambda: Forward(lambda net, x: net.layer(x.transpose(0, 1)).transpose(0, 1), layer=linear(2, 2)), (4, 5, 2),
        r"Layer 'layer' got 5 rows for a batch of 3: the network changes the batch axis before it",
    ),
    "a branch on a value": (
        lambda: Forward(lambda net, x: net.layer(x) if x.sum() > 0 else -net.layer(x), layer=linear(3, 1)), (4, 3),
        r"test_export\.py:\d+: `.*x\.sum\(\) > 0.*` branches on values: .*torch\.where",
    ),
    "noise of its own": (
        lambda: Forward(lambda net, x: net.layer(x) + torch.randn(1), layer=linear(3, 1)), (4, 3),
        r":\d+: `.*torch\.randn.*` gives two answers for the same weights, .* random numbers beside BLiTZ's layers",
    ),
    "an example that does not fit": (
        lambda: nn.Sequential(linear(3, 1)), (4, 7), r"fails on the example, of shape \(4, 7\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("build", "sizes", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(export, path: Path, build: Callable[[], nn.Module], sizes: tuple[int, ...], message: str) -> None:
    torch.manual_seed(0)
    network = build()
    with pytest.raises(murho.ExportError, match=message):
        export(network, path, rows(*sizes))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("network", "example", "message"),
    [
        ("a name", rows(4, 3), r"network must be a torch module with BLiTZ layers, not str"),
        (None, rows(3), r"example must be a batch \[B, …\] .* but has shape \(3,\)"),
        (None, rows(0, 3), r"example must be a batch \[B, …\] .* but has shape \(0, 3\)"),
        (None, rows(4, 3) * np.nan, r"example must be finite"),
    ],
)
def test_bad_arguments(tmp_path: Path, network: Any, example: Any, message: str) -> None:
    with pytest.raises(murho.InputError, match=message):
        to_onnx(network or nn.Sequential(linear(3, 1)), tmp_path / "a.onnx", example)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(murho.InputError, match=r"Cannot write .*: there is no folder .*nowhere\. Make it first"):
        to_onnx(nn.Sequential(linear(3, 1)), tmp_path / "nowhere" / "a.onnx", rows(4, 3))


# Networks that an exporter stumbles over


AWKWARD: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    # Values named as an output of the artifact is.
    "mean, std and samples": (
        lambda: Forward(
            lambda net, x: (net.layer(x).mean(-1, keepdim=True) + x.std(-1, keepdim=True)).reshape(x.shape[0], 1),
            layer=linear(3, 2),
        ),
        (4, 3),
    ),
    "mean over time": (
        lambda: Forward(lambda net, x: net.lstm(x)[0].mean(dim=1), lstm=BayesianLSTM(2, 3)), (4, 5, 2),
    ),
    # Every way to take the last step.
    "last step as a list": (
        lambda: Forward(lambda net, x: net.gru(x)[0][:, [-1]].flatten(1), gru=BayesianGRU(2, 3)), (4, 5, 2),
    ),
    "an example of one row": (lambda: nn.Sequential(linear(3, 1)), (1, 3)),
    "an example of one step": (
        lambda: Forward(lambda net, x: net.lstm(x)[0][:, -1], lstm=BayesianLSTM(2, 3)), (2, 1, 2),
    ),
    "two sizes of one kind of layer": (
        lambda: Forward(lambda net, x: net.b(net.a(x)[0])[1], a=BayesianGRU(2, 6), b=BayesianGRU(6, 4)), (4, 5, 2),
    ),
}  # fmt: skip


def written_to(net: Any, x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(x)
    y[:, :2] = net.layer(x)
    return y.add_(1)


# name: (network, whether torch's exporter must decompose it)
SECOND_TRACE: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "layers alone": (
        lambda: nn.Sequential(linear(3, 4), nn.Tanh(), nn.Linear(4, 4), linear(4, 2)),
        False,
    ),
    "a classifier of images": (
        lambda: Forward(
            lambda net, x: net.rest(x.reshape(-1, 1, 1, 3)),
            rest=nn.Sequential(
                nn.Conv2d(1, 2, (1, 2)),
                nn.LeakyReLU(),
                BayesianConv2d(2, 4, (1, 2), padding=1),
                nn.MaxPool2d(2),
                nn.SiLU(),
                nn.Flatten(),
                linear(4, 2),
                nn.LogSoftmax(dim=-1),
            ),
        ),
        False,
    ),
    "a tensor written to": (lambda: Forward(written_to, layer=linear(3, 2)), True),
    "an operator that ONNX has not": (lambda: nn.Sequential(linear(3, 2), nn.Softshrink(0.01)), True),
}


@pytest.mark.parametrize("name", SECOND_TRACE)
def test_a_second_trace_only_where_it_changes_something(tmp_path: Path, monkeypatch, name: str) -> None:
    build, needed = SECOND_TRACE[name]
    torch.manual_seed(0)
    network, decomposed = build(), onnx_file._is_decomposed
    answers = []

    def watched(*arguments: Any) -> bool:
        answers.append(decomposed(*arguments))
        return answers[-1]

    monkeypatch.setattr(onnx_file, "_is_decomposed", watched)
    assert to_onnx(network, tmp_path / "once.onnx", rows(4, 3)).verification["passed"]
    assert answers == [not needed]
    monkeypatch.setattr(onnx_file, "_is_decomposed", lambda *_: False)
    to_onnx(network, tmp_path / "twice.onnx", rows(4, 3))
    once, twice = (nodes_of(tmp_path / f"{times}.onnx") for times in ("once", "twice"))
    assert once == twice


def nodes_of(path: Path) -> list[Any]:
    """What each node does. A flattened tensor's sizes are never 0, whatever a Reshape would take that for."""
    nodes = onnx.load(path).graph.node
    return [(node.op_type, [a for a in node.attribute if a.name != "allowzero"]) for node in nodes]


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_networks(export, path: Path, name: str) -> None:
    """An export proves itself, so that it returns at all is the test."""
    build, sizes = AWKWARD[name]
    card = export(build(), path, rows(*sizes))
    assert card.verification["passed"]
    assert murho.load(path, trusted=True).predict(rows(*sizes), 32).samples.shape[:2] == (32, sizes[0])


# Which μ


def untied(how: str) -> nn.Module:
    """A network whose samplers' means have moved away from BLiTZ's own copies."""
    network = nn.Sequential(linear(3, 1))
    network = network.double() if how == "double" else copy.deepcopy(network)
    layer = network[0]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.ones(4, 3, dtype=layer.weight_mu.dtype)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight_mu, layer.weight_sampler.mu)
    return network


@pytest.mark.parametrize("how", ["double", "deepcopy"])
def test_the_samplers_mu_is_exported(tmp_path: Path, how: str) -> None:
    network = untied(how)
    with pytest.warns(UserWarning, match=r"Layer '0': weight_mu differs from weight_sampler\.mu.* murho exports"):
        to_onnx(network, tmp_path / "a.onnx", rows(4, 3))
    tensors = {t.name: to_array(t) for t in onnx.load(tmp_path / "a.onnx").graph.initializer}
    sampler = network[0].weight_sampler
    np.testing.assert_array_equal(tensors["network.0.mu"][:3], sampler.mu.detach().float().numpy().ravel())


def test_no_warning_where_the_two_are_one(exported) -> None:
    assert not [text for text in exported("mlp").warnings if "differs from" in text]


# A wrong graph is noticed, and leaves nothing behind


def swap(name: str, old: str, new: str) -> dict[str, Any]:
    attributes, inputs, outputs, body = functions._SOURCES[name]
    assert old in body
    return {name: (attributes, inputs, outputs, body.replace(old, new))}


PLANTED: dict[str, Callable[[], dict[str, Any]]] = {
    "gates swapped": lambda: swap("BayesianLSTMLast", "gate_i, gate_f, gate_g", "gate_f, gate_i, gate_g"),
    "state forgotten": lambda: swap("BayesianLSTMLast", "kept = Mul(f, c_old)", "kept = Mul(f, h_old)"),
    "noise not scaled": lambda: swap("BayesianWeights", "scatter = Mul(sigma, noise)", "scatter = Mul(mu, noise)"),
    "no noise": lambda: swap("BayesianWeights", "Mul(sigma, noise)", "Sub(noise, noise)"),
}


@pytest.fixture
def forecaster() -> nn.Module:
    torch.manual_seed(0)
    return Forward(
        lambda net, x: net.head(net.lstm(x)[0][:, -1]),
        lstm=BayesianLSTM(1, 3, posterior_rho_init=-2.0),
        head=nn.Linear(3, 1),
    )


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_function_is_noticed(forecaster, tmp_path: Path, monkeypatch, name: str) -> None:
    for key, value in PLANTED[name]().items():
        monkeypatch.setitem(functions._SOURCES, key, value)
    old = tmp_path / "net.onnx"
    old.write_bytes(b"an older file")
    with pytest.raises(
        murho.ExportError, match=r"disagrees with BLiTZ at equal noise by .* with 2 draws of 1 rows.*what torch wrote"
    ):
        to_onnx(forecaster, old, rows(4, 5, 1))
    assert old.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [old]


def test_a_wrong_kernel_is_noticed_in_torchscript(forecaster, tmp_path: Path, monkeypatch) -> None:
    right = torchscript_file.scripted_kernels()

    def wrong(*arguments: Any) -> Any:
        sequence, h, c = right.lstm(*arguments)
        return sequence * 1.001, h, c

    monkeypatch.setattr(torchscript_file, "scripted_kernels", lambda: dataclasses.replace(right, lstm=wrong))
    with pytest.raises(murho.ExportError, match=r"disagrees with BLiTZ at equal noise by .*"):
        to_torchscript(forecaster, tmp_path / "net.pt", rows(4, 5, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_sigma_is_noticed(export, forecaster, path: Path, monkeypatch) -> None:
    right = samplers.softplus
    monkeypatch.setattr(samplers, "softplus", lambda rho: 1.01 * right(rho))
    with pytest.raises(murho.ExportError, match=r"murho reads another weight: σ"):
        export(forecaster, path, rows(4, 5, 1))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_an_interrupt_leaves_the_older_file(forecaster, export, path: Path, monkeypatch, error: type) -> None:
    def interrupted(*_: Any) -> None:
        assert [p.name for p in path.parent.iterdir() if p != path], "interrupted while the new file is there"
        raise error

    monkeypatch.setattr(writer, "prove", interrupted)
    path.write_bytes(b"an older file")
    with pytest.raises((error, murho.ExportError)):
        export(forecaster, path, rows(4, 5, 1))
    assert path.read_bytes() == b"an older file"
    assert list(path.parent.iterdir()) == [path]


def test_an_older_file_is_replaced(exported, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"an older file")
    to_torchscript(nn.Sequential(linear(3, 1)), path, rows(4, 3))
    assert murho.load(path, trusted=True).card.name == "net"
    assert list(tmp_path.iterdir()) == [path]


# What the card is told


def test_about(tmp_path: Path) -> None:
    scaling = murho.Scaling((1.0, 2.0, 3.0), (2.0, 4.0, 8.0), (100.0,), (10.0,))
    about = {
        "name": "a name", "task": "forecast", "input_names": ["a", "b", "c"], "input_unit": "K",
        "output_names": ["y"], "output_unit": "USD", "draws": 64, "levels": (0.5, 0.9), "seed": 7,
        "training": {"epochs": 3},
    }  # fmt: skip
    torch.manual_seed(0)
    network = nn.Sequential(linear(3, 4), nn.Tanh(), linear(4, 1))
    x = rows(6, 3) * 5
    card = to_torchscript(network, tmp_path / "a.pt", x, scaling=scaling, **about)
    model = murho.load(tmp_path / "a.pt", trusted=True)
    assert model.card == card
    assert (card.name, card.task, card.draws, card.levels, card.seed) == ("a name", "forecast", 64, (0.5, 0.9), 7)
    assert (card.input.names, card.input.unit, card.output.names, card.output.unit) == (
        ("a", "b", "c"),
        "K",
        ("y",),
        "USD",
    )
    assert card.training == {"epochs": 3}
    # Scaling is inside: against a file without it, on inputs scaled by hand. 1e-5 of the largest, and the offset's ULP.
    to_torchscript(network, tmp_path / "b.pt", x)
    bare = murho.load(tmp_path / "b.pt", trusted=True).samples((x - [1, 2, 3]) / [2, 4, 8], 64, seed=7)
    largest = np.abs(bare).max()
    np.testing.assert_allclose(
        model.samples(x, 64), bare * 10.0 + 100, rtol=0, atol=1e-4 * largest + 2 * np.spacing(np.float32(128))
    )


# verify


@pytest.mark.parametrize("name", ["demo", "mlp"])
def test_verify_passes_for_its_own_network(exported, format: str, name: str) -> None:
    case = exported(name)
    for example in (None,) if name == "demo" else (None, case.example):
        report = verify(case.path(format), case.network, example, trusted=True)
        assert report["passed"] is True
        assert report["engine"] == {"onnx": "onnxruntime", "torchscript": "torchscript"}[format]
        assert report["exact"]["largest_error"] <= max(c["allowed"] for c in report["exact"]["cases"])


def test_verify_fails_for_another_posterior(exported, zoo, format: str) -> None:
    with pytest.raises(
        murho.ExportError, match=r"was made from another posterior: its μ and σ have SHA-256 [0-9a-f]{12}…"
    ):
        verify(exported("mlp").path(format), zoo.mlp(), trusted=True)


def test_verify_fails_where_the_rest_differs(exported) -> None:
    """The same posterior behind another deterministic layer."""
    case = exported("lstm_linear_linear")
    weight = case.network.middle.weight
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight *= 1.01
        with pytest.raises(murho.ExportError, match="disagrees with BLiTZ at equal noise"):
            verify(case.onnx, case.network)
    finally:
        with torch.no_grad():
            weight.copy_(before)


def test_verify_of_a_damaged_file(small: Path, zoo) -> None:
    small.write_bytes(small.read_bytes()[:-100])
    with pytest.raises(murho.ArtifactError):
        verify(small, zoo.mlp(), trusted=True)


def test_the_digest_of_the_posterior(exported) -> None:
    """SHA-256 over float32 μ and σ of each layer, one after another."""
    import hashlib

    case = exported("mlp")
    total = hashlib.sha256()
    for layer in (case.network[0], case.network[2]):
        samplers = layer.weight_sampler, layer.bias_sampler
        total.update(b"".join(s.mu.detach().numpy().tobytes() for s in samplers))
        rho = np.concatenate([s.rho.detach().double().numpy().ravel() for s in samplers])
        total.update(np.logaddexp(0, rho).astype(np.float32).tobytes())
    card = murho.load(case.onnx).card
    assert card.posterior_sha256 == total.hexdigest()
    assert dataclasses.replace(card, verification={}) != card


class Iterating(nn.Module):
    """Iterates over a tensor [B, 3, 2]: the axis is moved to the front by `first`."""

    def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.first = BayesianLinear(2, 1, posterior_rho_init=-2.0), first

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = sum(self.layer(part) for part in self.first(x))
        return total


def test_torchscript_iterates_over_an_axis_of_fixed_length(tmp_path: Path) -> None:
    columns = Iterating(lambda x: x.transpose(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the axis is fixed
        card = to_torchscript(columns, tmp_path / "x.pt", torch.randn(4, 3, 2))
    assert card.inputs[0].shape == (None, 3, 2)
