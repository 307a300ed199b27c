"""Networks and their artifacts, exported once a run, and BLiTZ's own answers for them.

Fixtures hand out everything, since test modules cannot import each other.
"""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from blitz.modules import BayesianGRU, BayesianLinear, BayesianLSTM
from filelock import FileLock
from torch import nn

import murho
from murho.export import proof, to_onnx, to_torchscript
from murho.export.montecarlo import Plan
from murho.export.recognition import read_posteriors
from murho.export.reference import Reference, generator_epsilon
from murho.models import Forecaster
from murho.train import builtin_series, fit, prepare

# BLiTZ's operations are too short to share: on threads they take many times as long.
torch.set_num_threads(1)

FORMATS = ("onnx", "torchscript")
SHORT_LAW = 100  # draws
RHO = {"posterior_rho_init": -2.0}  # σ = 0.13: wide enough to tell a wrong σ


class LSTMLSTMLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = BayesianLSTM(2, 6, **RHO), BayesianLSTM(6, 5, **RHO), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.one(x)[0])[0][:, -1])


class GRULinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = BayesianGRU(2, 6, **RHO), BayesianLinear(6, 1, **RHO)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0][:, -1, :])


class LSTMLinearLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.middle, self.head = BayesianLSTM(1, 8, **RHO), nn.Linear(8, 4), BayesianLinear(4, 1, **RHO)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.middle(self.lstm(x)[0][:, -1])))


class Zoo(nn.Module):
    """Deterministic layers of many kinds, frozen ones of BLiTZ, a layer called twice, states handed on."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(2, 6, 3, padding=1)
        self.norm, self.dropout = nn.LayerNorm(6), nn.Dropout(0.5)
        self.plain_lstm = nn.LSTM(6, 5, num_layers=2, batch_first=True)
        self.first = BayesianLSTM(5, 5, **RHO)
        self.frozen_lstm = BayesianLSTM(5, 5, **RHO)
        self.frozen_gru = BayesianGRU(5, 5, **RHO)
        self.both_ways = nn.GRU(5, 4, bidirectional=True, batch_first=True)
        self.gru = BayesianGRU(8, 6, **RHO)
        self.frozen_linear = BayesianLinear(6, 6, **RHO)
        self.twice = BayesianLinear(6, 6, **RHO)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(6, 3))
        for layer in (self.frozen_lstm, self.frozen_gru, self.frozen_linear):
            layer.freeze = True

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.dropout(self.norm(torch.relu(self.convolution(x.transpose(1, 2))).transpose(1, 2)))
        x, _ = self.plain_lstm(x)
        x, states = self.first(x)
        x, states = self.frozen_lstm(x, states)
        x, state = self.frozen_gru(x, states[0])
        x, _ = self.both_ways(x)
        x, state = self.gru(x, torch.cat([state, state[:, :1]], dim=1))
        x = self.twice(torch.tanh(self.twice(self.frozen_linear(x[:, -1]))))
        return self.head(x), state


class EveryStep(nn.Module):
    """Without biases, an answer for every step [B, T, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = BayesianLSTM(2, 5, bias=False, **RHO)
        self.gru = BayesianGRU(5, 4, bias=False, **RHO)
        self.head = BayesianLinear(4, 3, bias=False, **RHO)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.lstm(x)[0])[0])


class Residual(nn.Module):
    """A branch around the first Bayesian layer: the draws must be there from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.around, self.through, self.head = nn.Linear(4, 3), BayesianLinear(4, 3, **RHO), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.around(x) + self.through(x)))


class Bare(nn.Module):
    """Hands out its own weights: 1 -> (weights of one layer, of another, of the first one again)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = BayesianLinear(1, 40, bias=False), BayesianLinear(1, 40, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), self.two(x), self.one(x)], dim=1)


def mlp() -> nn.Module:
    return nn.Sequential(BayesianLinear(3, 16, **RHO), nn.ReLU(), BayesianLinear(16, 2, **RHO))


def double() -> nn.Module:
    return nn.Sequential(BayesianLinear(3, 4, **RHO), nn.Tanh(), BayesianLinear(4, 1, **RHO)).double()


# name: (network, rows, sizes of the example after the batch)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lstm_lstm_linear": (LSTMLSTMLinear, (7, 2)),
    "gru_linear": (GRULinear, (7, 2)),
    "lstm_linear_linear": (LSTMLinearLinear, (7, 1)),
    "zoo": (Zoo, (2, 2)),
    "every_step": (EveryStep, (4, 2)),
    "residual": (Residual, (4,)),
    "mlp": (mlp, (3,)),
    "double": (double, (3,)),
    "bare": (Bare, (1,)),
}


@dataclass(frozen=True)
class Exported:
    network: nn.Module
    onnx: Path
    torchscript: Path
    example: np.ndarray
    """[B, …], raw units."""
    scaling: murho.Scaling
    warnings: tuple[str, ...]

    def path(self, format: str) -> Path:
        return getattr(self, format)

    @property
    def posteriors(self) -> dict[str, Any]:
        return read_posteriors(self.network)

    def reference(self) -> Reference:
        """BLiTZ's own forward pass, from and to the network's units, on inputs scaled by the artifact's float32."""
        return Reference(self.network, self.posteriors, Plan(murho.Scaling()))

    def scaled(self, x: np.ndarray) -> torch.Tensor:
        """Raw to the network's units, in the artifact's float32."""
        mean, scale = (np.float32(v) for v in (self.scaling.input_mean, self.scaling.input_scale))
        return torch.from_numpy((x - mean) / scale)

    def blitz(self, x: np.ndarray, draws: Any, seed: int) -> np.ndarray:
        """BLiTZ's own forward pass for raw x with the generator's noise: [S, B, …] in the network's units, float64."""
        return self.reference().given([self.scaled(x)], draws, generator_epsilon(seed))["output"]

    def in_network_units(self, raw: np.ndarray) -> np.ndarray:
        mean, scale = np.float64(self.scaling.output_mean), np.float64(self.scaling.output_scale)
        return (raw.astype(np.float64) - mean) / scale


_whole_law = proof.law


@pytest.fixture(scope="session", autouse=True)
def _short_law() -> Iterator[None]:
    """A short test in law in the proof of every export but those of `exported`, where it takes half of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "law", partial(_whole_law, draws=SHORT_LAW))
        yield


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, the same for all of its processes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "of-the-run"
    folder.mkdir(exist_ok=True)
    return folder


def once(mark: Path, make: Callable[[], str]) -> str:
    """What `make` returned in the first process that asked for it; the others wait until it has written its files."""
    with FileLock(mark.with_suffix(".lock")):
        if not mark.exists():
            mark.write_text(make(), encoding="utf-8")
    return mark.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def opened() -> Callable[[bytes], onnxruntime.InferenceSession]:
    """opened(model): a session for it, which logs errors only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return lambda model: onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def dataset() -> Any:
    return prepare(builtin_series())


@pytest.fixture(scope="session")
def trained(dataset: Any, run_folder: Path) -> nn.Module:
    torch.manual_seed(0)
    network = Forecaster()
    path = run_folder / "trained.state.pt"

    def train() -> str:
        fit(network, dataset, epochs=4, batch_size=256, samples=1, learning_rate=0.02, progress=False)
        torch.save(network.state_dict(), path)
        return ""

    once(run_folder / "trained.done", train)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


@pytest.fixture(scope="session")
def exported(dataset: Any, trained: nn.Module, run_folder: Path) -> Callable[[str], Exported]:
    """exported(name): the artifacts, proven in full, of a network of NETWORKS, or of "demo", the trained forecaster."""

    @cache
    def make(name: str) -> Exported:
        about: dict[str, Any] = {}
        if name == "demo":
            # Nine steps: no length that is tested later.
            network, example, scaling = trained, dataset.test.x[:40, :9], dataset.scaling
            about = {"input_names": ("close",), "training": {"window": dataset.window}}
        else:
            torch.manual_seed(1)
            build, sizes = NETWORKS[name]
            network, scaling = build(), murho.Scaling()
            example = np.random.default_rng(2).standard_normal((11, *sizes), dtype=np.float32)
        paths = {"onnx": run_folder / f"{name}.onnx", "torchscript": run_folder / f"{name}.pt"}

        def write() -> str:
            with warnings.catch_warnings(record=True) as caught, pytest.MonkeyPatch.context() as patch:
                warnings.simplefilter("always")
                patch.setattr(proof, "law", _whole_law)
                for format, export in (("onnx", to_onnx), ("torchscript", to_torchscript)):
                    export(network, paths[format], example, scaling=scaling, **about)
            return json.dumps([str(warning.message) for warning in caught])

        warned = once(run_folder / f"{name}.json", write)
        return Exported(network, **paths, example=example, scaling=scaling, warnings=tuple(json.loads(warned)))

    return make


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def small(exported: Callable[[str], Exported], format: str, tmp_path: Path) -> Path:
    """A fresh copy of the smallest artifact, to be damaged: x [B, 3] -> [B, 2]."""
    source = exported("mlp").path(format)
    return Path(shutil.copy(source, tmp_path / source.name))


@pytest.fixture(scope="session")
def zoo() -> SimpleNamespace:
    """The networks' classes, for tests that build variants of them."""
    return SimpleNamespace(
        LSTMLSTMLinear=LSTMLSTMLinear, GRULinear=GRULinear, LSTMLinearLinear=LSTMLinearLinear, mlp=mlp, RHO=RHO, Zoo=Zoo
    )
