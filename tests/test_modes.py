"""Training mode: exported is the evaluation mode, the network stays as it was, and what was switched off is said."""

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianLinear
from torch import Tensor, nn
from torch.nn.functional import dropout

import murho
from murho.cli.loop import BlitzLoop
from murho.export import to_onnx, to_pt2, to_torchscript, verify
from murho.export.modes import evaluating, note_modes

EXPORTS = {"onnx": to_onnx, "pt": to_torchscript, "pt2": to_pt2}
SURE = {"posterior_rho_init": -12.0}  # σ so small that the answer is the means'
TRAINING = r"in training mode; the artifact has the evaluation mode: "


def rows(*sizes: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(sizes, dtype=np.float32)


class Asks(nn.Module):
    """Dropout by hand, as F.dropout invites to."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, 0.5, training=self.training)


class Trained(nn.Module):
    """What most people hold after training: in training mode, with statistics of the batches that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.hidden, self.drop = nn.BatchNorm1d(3), BayesianLinear(3, 8, **SURE), nn.Dropout(0.4)
        self.scaled, self.asks, self.head = nn.BatchNorm1d(8), Asks(), BayesianLinear(8, 2, **SURE)
        with torch.no_grad():
            for _ in range(3):
                self(2 * torch.randn(16, 3) + 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.hidden(self.norm(x))))
        return self.head(self.asks(self.scaled(x)))


def notes(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught if re.search(TRAINING, str(warning.message))]


def held(network: nn.Module) -> dict[str, Any]:
    """Modes, and all tensors but the noise that BLiTZ overwrites with every sample."""
    tensors = {key: value.clone() for key, value in network.state_dict().items() if not key.endswith("eps_w")}
    return {**tensors, **{f"{name}.training": module.training for name, module in network.named_modules()}}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(v, other[k]) if isinstance(v, Tensor) else v == other[k] for k, v in one.items())


@pytest.mark.parametrize("suffix", EXPORTS)
def test_of_a_network_in_training_mode_the_evaluation_mode_is_exported(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    network, x, path = Trained(), rows(4, 3), tmp_path / f"a.{suffix}"
    network.scaled.eval()  # a part may be in the other mode
    before = held(network)
    (said,) = notes(lambda: EXPORTS[suffix](network, path, x))
    assert said.startswith(
        "The network is in training mode; the artifact has the evaluation mode: dropout is off in 'drop'; "
    )
    assert (
        "running statistics take the place of those at hand in 'norm'; self.training is False in the code of 'asks'"
        in said
    )
    assert same(before, held(network))
    network.eval()
    got = murho.load(path, trusted=True).samples(x, 64)
    with torch.no_grad():
        want = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got.mean(axis=0), want, atol=1e-3)
    assert notes(lambda: verify(path, network, x, trusted=True)) == []


@pytest.mark.parametrize("broken", ["in trial runs", "in the file"])
def test_modes_and_statistics_are_as_before_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    network = Trained()
    network.norm.eval()
    before = held(network)
    if broken == "in trial runs":
        network.head.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("as planned")))
    else:
        monkeypatch.setattr(
            murho.export.writer, "prove", lambda *_: (_ for _ in ()).throw(murho.ExportError("as planned"))
        )
    with pytest.raises(murho.ExportError, match="as planned"):
        to_onnx(network, tmp_path / "a.onnx", rows(4, 3))
    assert same(before, held(network))


def recurrent() -> nn.Module:
    return nn.LSTM(3, 4, num_layers=2, dropout=0.2, batch_first=True)


SWITCHED_OFF: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Dropout": (nn.Dropout, "dropout is off in '1'"),
    "Dropout1d": (nn.Dropout1d, "dropout is off in '1'"),
    "Dropout2d": (nn.Dropout2d, "dropout is off in '1'"),
    "Dropout3d": (nn.Dropout3d, "dropout is off in '1'"),
    "AlphaDropout": (nn.AlphaDropout, "dropout is off in '1'"),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout, "dropout is off in '1'"),
    "between recurrent layers": (recurrent, "dropout is off in '1'"),
    "in attention": (lambda: nn.MultiheadAttention(3, 1, dropout=0.1), "dropout is off in '1'"),
    "RReLU": (nn.RReLU, "random slopes are their mean in '1'"),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), "running statistics take the place of those at hand in '1'"),
    "InstanceNorm1d": (
        lambda: nn.InstanceNorm1d(3, track_running_stats=True),
        "running statistics take the place of those at hand in '1'",
    ),
    "a forward that asks": (Asks, "self.training is False in the code of '1'"),
}  # fmt: skip


@pytest.mark.parametrize("name", SWITCHED_OFF)
def test_all_that_evaluation_mode_changes_is_said(name: str) -> None:
    build, said = SWITCHED_OFF[name]
    network = nn.Sequential(BayesianLinear(3, 3), build())
    (note,) = notes(lambda: note_modes(network))
    assert f"the evaluation mode: {said}. " in note
    assert notes(lambda: note_modes(network.eval())) == []
    network[1].train()
    (note,) = notes(lambda: note_modes(network))
    assert note.startswith("Parts of the network are in training mode")


def test_of_many_modules_the_first_are_named() -> None:
    network = nn.Sequential(*(nn.Dropout() for _ in range(8)))
    (note,) = notes(lambda: note_modes(network))
    assert "dropout is off in '0', '1', '2', '3', '4' and 3 more. " in note


def test_a_network_that_is_the_same_in_both_modes_gets_no_note(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Dropout(0.0), nn.LayerNorm(3), nn.InstanceNorm1d(3), BayesianLinear(3, 1))
    assert network.training
    assert notes(lambda: note_modes(network)) == []


def test_modes_that_the_users_own_train_sets_are_undone() -> None:
    class Merging(nn.Module):
        merged = False

        def train(self, mode: bool = True) -> nn.Module:
            self.merged = not mode
            return super().train(mode)

    network = nn.Sequential(Merging(), nn.Dropout())
    network[1].eval()
    with evaluating(network):
        assert network[0].merged
    assert (network[0].merged, network[0].training, network[1].training, network.training) == (False, True, False, True)


# What stays refused


class AlwaysOn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = BayesianLinear(3, 40, posterior_rho_init=-2.0)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(self.layer(x), 0.5)


def test_dropout_that_is_always_on_is_refused_by_its_line(tmp_path: Path) -> None:
    lines, first = inspect.getsourcelines(AlwaysOn.forward)
    at = rf"test_modes\.py:{first + len(lines) - 1}: `return dropout"
    with pytest.raises(murho.ExportError, match=rf"{at}.*in evaluation mode too: .* BLiTZ's layers.*training=self"):
        to_onnx(AlwaysOn(), tmp_path / "a.onnx", rows(4, 3))


class AsAdvised(AlwaysOn):
    def forward(self, x: Tensor) -> Tensor:
        return dropout(self.layer(x), 0.5, training=self.training)


class AsAdvisedToo(AlwaysOn):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.layer(x))


@pytest.mark.parametrize("network", [AsAdvised, AsAdvisedToo])
def test_dropout_as_the_refusal_advises_is_exported(tmp_path: Path, network: type) -> None:
    assert to_onnx(network(), tmp_path / "a.onnx", rows(4, 3)).verification["passed"]


def test_batch_statistics_without_running_ones_are_refused_and_with_them_exported(tmp_path: Path) -> None:
    def normalised(**more: bool) -> nn.Module:
        return nn.Sequential(BayesianLinear(3, 2, posterior_rho_init=-2.0), nn.BatchNorm1d(2, **more))

    for network in (normalised(track_running_stats=False), normalised(track_running_stats=False).eval()):
        with pytest.raises(
            murho.ExportError, match=r"Module '1' is a BatchNorm1d without running statistics: .*track_runn"
        ):
            to_onnx(network, tmp_path / "a.onnx", rows(4, 3))
    assert to_onnx(normalised(track_running_stats=True), tmp_path / "a.onnx", rows(4, 3)).verification["passed"]


def test_instance_normalisation_is_by_row(tmp_path: Path) -> None:
    layers = nn.InstanceNorm2d(2), nn.Flatten(), BayesianLinear(32, 1, posterior_rho_init=-2.0)
    assert to_onnx(nn.Sequential(*layers), tmp_path / "a.onnx", rows(4, 2, 4, 4)).verification["passed"]


def test_the_loop_that_files_are_timed_against_runs_in_evaluation_mode(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(Trained()), rows(4, 3)
    card = to_onnx(network, tmp_path / "a.onnx", x)
    before = held(network)
    spread = BlitzLoop(network, card)(x, 16).std
    assert spread.max() < 1e-3  # with dropout on it would be a hundred times as much
    assert same(before, held(network))
