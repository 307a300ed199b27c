"""Observation noise and the sites' weights are independent: in the generator, in the proof, and in intervals."""

from pathlib import Path
from typing import Any

import first_generator
import numpy as np
import onnxruntime
import pytest
import torch
from blitz.modules import BayesianLinear
from onnx import TensorProto, helper
from scipy import stats
from torch import Tensor, nn

import murho
from murho import ExportError, Noise, Scaling
from murho.export import functions, independence, proof, reference, to_onnx
from murho.export.generator import normals
from murho.export.montecarlo import Plan
from murho.export.subject import examine
from murho.runtime.artifact import read
from murho.runtime.contract import NOISE_STREAM
from murho.runtime.engines import open_engine

DRAWS = 400_000
SPREAD = 0.25
DEPENDENT = (
    r"The numbers of site 0 and observation noise are not independent: they, or their squares, correlate by 0\.\d"
)


class Five(nn.Module):
    """BayesianLinear(1, 5), whose weights all have one spread."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = BayesianLinear(1, 5, bias=False)
        nn.init.constant_(self.layer.weight_rho, float(np.log(np.expm1(SPREAD))))
        self.layer.weight_sampler.rho = self.layer.weight_rho

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that an export asks for numbers gets the first generator's."""
    for module in (independence, reference):
        monkeypatch.setattr(module, "normals", first_generator.normals)
    usual = functions.functions

    def with_first(names: set[str]) -> list[Any]:
        return [first_generator.function() if f.name == "Normals" else f for f in usual(names)]

    monkeypatch.setattr("murho.export.onnx_file.functions", with_first)


def export(path: Path) -> Path:
    torch.manual_seed(0)
    to_onnx(Five(), path, np.ones((4, 1), np.float32), noise=Noise("gaussian", scale=(SPREAD,) * 5))
    return path


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("five") / "five.onnx")


def test_the_first_generators_form_here_is_the_one_in_its_files() -> None:
    node = helper.make_node("Normals", ["draws", "seed", "n"], ["noise"], domain="murho", stream=3)
    info = helper.make_tensor_value_info
    inputs = [info("draws", TensorProto.INT64, ["S"]), info("seed", TensorProto.INT64, [])]
    n = helper.make_tensor("n", TensorProto.INT64, [1], [50])
    graph = helper.make_graph([node], "g", inputs, [info("noise", TensorProto.FLOAT, ["S", 50])], [n])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("murho", 1)]
    model = helper.make_model(graph, functions=[first_generator.function()], opset_imports=opsets, ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"draws": np.arange(20), "seed": np.array(2**40 + 5)})
    np.testing.assert_allclose(got, first_generator.normals(np.arange(20), 2**40 + 5, 3, 50), rtol=0, atol=5e-6)


@pytest.mark.parametrize("seed", [0, -1, 2**31])
def test_the_streams_of_the_generator_are_independent(seed: int) -> None:
    report = independence.check_streams(4, noise=True, seed=seed)
    assert report["streams"] == 5
    assert 0 < report["largest_correlation"] < report["bound"] < 0.04


@pytest.mark.parametrize("seed", [0, 42, proof.SEED])
def test_the_first_generators_streams_are_refused(first: None, seed: int) -> None:
    with pytest.raises(ExportError, match=DEPENDENT):
        independence.check_streams(1, noise=True, seed=seed)


def test_every_site_is_compared_with_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is not among the first."""

    def alike(draws: np.ndarray, seed: int, stream: int, n: int) -> np.ndarray:
        return normals(draws, seed, 6 if stream == NOISE_STREAM else stream, n)

    monkeypatch.setattr(independence, "normals", alike)
    monkeypatch.setattr(independence, "GROUP", 3)
    with pytest.raises(ExportError, match=r"of site 6 and observation noise are not independent.* correlate by 1\.0"):
        independence.check_streams(8, noise=True, seed=0)
    independence.check_streams(6, noise=True, seed=0)


def test_two_sites_with_one_radius_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(draws: np.ndarray, seed: int, stream: int, n: int) -> np.ndarray:
        numbers = normals(draws, seed, stream, n)
        return np.roll(normals(draws, seed, 1, n), n // 4, axis=1) * np.sign(numbers) if stream == 2 else numbers

    monkeypatch.setattr(independence, "normals", alike)
    with pytest.raises(ExportError, match=r"of site 1 and site 2 are not independent"):
        independence.check_streams(4, noise=False, seed=0)


def test_no_file_of_the_first_generator_passes_the_proof(first: None, tmp_path: Path) -> None:
    """It says what BLiTZ says at equal noise, and is refused for its streams."""
    with pytest.raises(ExportError, match=DEPENDENT):
        export(tmp_path / "five.onnx")
    assert not list(tmp_path.iterdir())


def test_the_report_has_the_streams_and_the_law_with_noise(artifact: Path) -> None:
    report = read(artifact).card.verification
    assert report["streams"]["streams"] == 2
    law = report["law_with_noise"]
    assert (law["draws"], law["tests"]) == (report["law"]["draws"], 40)
    assert law["smallest_p"] > law["threshold"]


@pytest.mark.parametrize("factor", [0.0, 1.8])
def test_noise_of_a_wrong_size_is_refused_in_law(artifact: Path, factor: float) -> None:
    """Weights and noise have one spread here: these factors give 0.71 and 1.46 of that of both together."""
    plan = Plan(Scaling(), noise=Noise("gaussian", scale=(SPREAD,) * 5))
    torch.manual_seed(0)
    subject = examine(Five(), np.ones((4, 1), np.float32), plan)
    engine = open_engine(read(artifact), "cpu")

    class Planted:
        def samples(self, inputs: Any, draws: np.ndarray, seed: int, observed: bool) -> tuple[np.ndarray, ...]:
            (with_noise,), (without,) = (engine.samples(inputs, draws, seed, o) for o in (True, False))
            return (without + np.float32(factor) * (with_noise - without) if observed else without,)

    planted: Any = Planted()
    assert proof.law(subject, engine, draws=1000, observed=True)["smallest_p"] > 1e-6
    proof.law(subject, planted, draws=1000)
    with pytest.raises(ExportError, match="samples another distribution than BLiTZ"):
        proof.law(subject, planted, draws=1000, observed=True)


def widths(samples: np.ndarray, spread: float) -> tuple[float, float]:
    """Widths of the central 50 and 99 % intervals of samples [S], as shares of a normal's of this spread."""
    found = [np.diff(np.quantile(samples, [(1 - p) / 2, (1 + p) / 2]))[0] for p in (0.5, 0.99)]
    return tuple(w / (2 * spread * stats.norm.ppf((1 + p) / 2)) for w, p in zip(found, (0.5, 0.99), strict=True))


# A quantile p of S normals has a standard error of sqrt(p (1 - p) / S) / φ(z_p): of the widths' shares
# 0.0022 / 1.35 · √2 at 50 % (less, since the two ends are correlated) and 0.0077 / 5.15 · √2 at 99 %. Five of these:
WITHIN = 0.0115


def test_intervals_with_noise_are_those_of_the_closed_form(artifact: Path) -> None:
    """y = w x + noise, both normal with one spread: normal with √2 of it."""
    model = murho.load(artifact)
    rows = model.samples(np.ones((1, 1), np.float32), DRAWS, 42)[:, 0].astype(np.float64)
    for output in range(5):
        for share in widths(rows[:, output], SPREAD * np.sqrt(2)):
            assert abs(share - 1) < WITHIN


@pytest.mark.parametrize(("form", "wrong"), [(normals, False), (first_generator.normals, True)])
def test_intervals_were_wrong_by_the_first_generator(form: Any, wrong: bool) -> None:
    """For output 1, 50 % intervals 12 % too narrow, and 99 % ones 9 % too wide."""
    draws = np.arange(DRAWS)
    half, most = widths(form(draws, 42, 0, 5)[:, 1] + form(draws, 42, NOISE_STREAM, 5)[:, 1], np.sqrt(2))
    assert abs(half - (0.88 if wrong else 1)) < WITHIN
    assert abs(most - (1.09 if wrong else 1)) < WITHIN
