"""One comparison in the network's units: an offset hides no error, whoever compares."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

from murho import ExportError, MurhoError, Noise, Scaling
from murho.cli import bench
from murho.export import ort_file, proof, to_onnx, to_ort, to_torchscript, verify
from murho.runtime.artifact import read
from murho.runtime.compare import TOLERANCE, raw_units, relative_error
from murho.runtime.engines import OnnxEngine

OFFSET, SCALE = 10_000.0, 1.0
FAR = Scaling((0.0,), (1.0,), (OFFSET,), (SCALE,))
PLANTED = np.float32(0.1 * SCALE)  # a tenth of the scale, and a hundred-thousandth of the raw values


class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = BayesianLSTM(1, 4, posterior_rho_init=-2.0), BayesianLinear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A network whose output lies around 10,000, as ONNX and as TorchScript."""
    folder = tmp_path_factory.mktemp("far")
    torch.manual_seed(0)
    network = Windows()
    x = np.random.default_rng(0).standard_normal((8, 6, 1)).astype(np.float32)
    to_onnx(network, folder / "far.onnx", x, scaling=FAR, noise=Noise(scale=(0.1,)))
    to_torchscript(network, folder / "far.pt", x, scaling=FAR, noise=Noise(scale=(0.1,)))
    return {"network": network, "x": x, "onnx": folder / "far.onnx", "pt": folder / "far.pt"}


def off_by(engine: OnnxEngine, wrong: Callable[[np.ndarray, np.ndarray], bool]) -> OnnxEngine:
    """The engine, its samples off by a tenth of the scale where `wrong` says so of the inputs and draws."""
    right = engine.samples

    def samples(inputs: Any, draws: np.ndarray, seed: int, observed: bool) -> Any:
        first, *others = right(inputs, draws, seed, observed)
        return (first + PLANTED if wrong(inputs[0], draws) else first, *others)

    engine.samples = samples
    return engine


WRONG = {
    "always": lambda x, draws: True,
    "at one step": lambda x, draws: x.shape[1] == 1,
    "at a longer window": lambda x, draws: x.shape[1] > 6,
    "at more rows": lambda x, draws: len(x) > 2,
    "at one row": lambda x, draws: len(x) == 1,
    "in a second chunk": lambda x, draws: draws[0] > 7,
}


@pytest.mark.parametrize("case", WRONG)
def test_the_proof_finds_an_error_of_a_tenth_of_the_scale_in_the_compiled_way(
    far: dict[str, Any], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = proof.open_engine

    def planted(artifact: Any, device: str, keep: int = 0, compiled: bool = True) -> Any:
        engine = opened(artifact, device, keep, compiled)
        return off_by(engine, WRONG[case]) if compiled else engine

    verify(far["onnx"], far["network"], far["x"])
    monkeypatch.setattr(proof, "open_engine", planted)
    with pytest.raises(ExportError, match=r"in one piece differ from those in murho's runtime by \d"):
        verify(far["onnx"], far["network"], far["x"])


def test_the_ort_format_is_held_to_the_same(far: dict[str, Any], tmp_path: Path, monkeypatch) -> None:
    to_ort(far["onnx"], tmp_path / "right.ort")
    shifted = dataclasses.replace(FAR, output_mean=(OFFSET + float(PLANTED),))
    to_onnx(far["network"], tmp_path / "shifted.onnx", far["x"], scaling=shifted, noise=Noise(scale=(0.1,)))
    converted, other = ort_file._converted, read(tmp_path / "shifted.onnx")
    monkeypatch.setattr(ort_file, "_converted", lambda source, *rest: converted(other, *rest))
    with pytest.raises(ExportError, match=r"In ONNX Runtime's format samples differs by 0\.\d+ of the largest"):
        to_ort(far["onnx"], tmp_path / "wrong.ort")
    assert not (tmp_path / "wrong.ort").exists()


def test_bench_is_held_to_the_same(far: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"against": None, "batches": [2], "draw_counts": [32], "rounds": 1, "json_path": tmp_path / "bench.json"}
    options["trusted"] = True
    paths = [far["onnx"], far["pt"]]
    assert len(bench.run(paths, **options)) == 2
    timed = bench.timed

    def doctored(*args: Any, **more: Any) -> Any:
        times, answers = timed(*args, **more)
        right = answers["murho torchscript"]
        answers["murho torchscript"] = dataclasses.replace(right, samples=right.samples + PLANTED)
        return times, answers

    monkeypatch.setattr(bench, "timed", doctored)
    (tmp_path / "bench.json").unlink()
    with pytest.raises(MurhoError, match=r"murho torchscript differs from the other artifact by 0\.\d+ of the largest"):
        bench.run(paths, **options)
    assert not (tmp_path / "bench.json").exists()


# The comparison itself


def test_raw_units_are_the_scaling_undone() -> None:
    x = np.float32([[[7.0], [2.0]], [[1.0], [4.0]]])
    y = np.array([[[0.5, -1.0], [2.0, 3.0]]])  # [S, B, O] in network units
    for values, want in {
        "levels": y * [2, 4] + [10, 20],
        "differences": y * [2, 4] + [10, 20] + np.array([[2.0], [4.0]]),
        "returns": np.array([[2.0], [4.0]]) * (1 + y * [2, 4] + [10, 20]),
    }.items():
        scale, offset = raw_units(Scaling((0.0,), (1.0,), (10.0, 20.0), (2.0, 4.0), values), x)
        np.testing.assert_allclose(y * scale + offset, want)


def test_the_error_is_in_network_units() -> None:
    want = OFFSET + 3.0 * np.array([[-1.0, 0.5]])
    error, allowed = relative_error(want + np.array([[0.0, 0.3]]), want, (3.0,), (OFFSET,))
    assert error == pytest.approx(0.1)  # 0.3 of a scale of 3, over a largest network value of 1
    assert allowed == TOLERANCE  # both are float64: nothing was lost by storing them
    spacing = float(np.spacing(np.float32(OFFSET + 1.5))) / 3
    assert relative_error(want.astype(np.float32), want, (3.0,), (OFFSET,))[1] == pytest.approx(TOLERANCE + spacing)
    both = relative_error(want.astype(np.float32), want.astype(np.float32), (3.0,), (OFFSET,))
    assert both == (0.0, pytest.approx(TOLERANCE + 2 * spacing, rel=1e-3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_infinitely_wrong(bad: float) -> None:
    want = np.ones((2, 3))
    assert relative_error(np.where(np.eye(2, 3), bad, want), want)[0] == np.inf
    assert relative_error(want, np.where(np.eye(2, 3), bad, want))[0] == np.inf
    assert relative_error(np.ones((3, 2)), want)[0] == np.inf  # another shape
