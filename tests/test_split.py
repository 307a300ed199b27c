"""The two halves of an ONNX artifact, and what is kept of the first."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import murho
from murho.export import to_onnx
from murho.models import Forecaster
from murho.runtime.artifact import read
from murho.runtime.compare import TOLERANCE
from murho.runtime.kept import Kept
from murho.runtime.split import split

DRAWS = np.arange(16)


def run(content: bytes, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    known = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(None, {k: v for k, v in feeds.items() if k in known}), strict=True))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Any:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("noisy") / "noisy.onnx"
    x = np.random.default_rng(0).standard_normal((9, 5, 1), dtype=np.float32)
    noise = murho.Noise("student-t", 4)
    to_onnx(Forecaster(hidden=3, learned_noise=True), path, x, noise=noise, horizon=3, task="forecast")
    return path, x


@pytest.mark.parametrize("name", ["demo", "gru_linear", "zoo", "every_step", "residual", "double", "noisy"])
def test_halves_compute_what_the_file_computes(exported, noisy, name: str) -> None:
    path, x = noisy if name == "noisy" else (exported(name).onnx, exported(name).example)
    content = read(path).content
    halves = split(content)
    feeds = {"x": x, "draws": DRAWS, "seed": np.array(5), "levels": np.float32([0.9]), "noise": np.array(1, np.float32)}
    drawn = run(halves.sampler, feeds)
    assert tuple(drawn) == halves.drawn
    got = run(halves.network, feeds | drawn)
    assert list(got) == ["samples"]
    whole = run(content, feeds)["samples"]
    # ONNX Runtime may add a product's terms in another order: TOLERANCE of the largest value, as in the proof.
    np.testing.assert_allclose(got["samples"], whole, rtol=0, atol=TOLERANCE * np.abs(whole).max())


def test_generator_runs_in_the_first_half_only(noisy) -> None:
    halves = split(read(noisy[0]).content)
    kinds = [
        {node.op_type for node in onnx.load_from_string(half).graph.node} for half in (halves.sampler, halves.network)
    ]
    drawing = {"BayesianWeights", "ObservationNoiseStudent"}
    assert drawing <= kinds[0]
    assert not (drawing | {"Summary", "Stretch"}) & kinds[1]


def test_nothing_to_draw_before_the_inputs(tmp_path) -> None:
    from blitz.modules import BayesianLinear

    path, x = tmp_path / "local.onnx", np.random.default_rng(0).standard_normal((9, 3), dtype=np.float32)
    to_onnx(torch.nn.Sequential(BayesianLinear(3, 2)), path, x, sampling="local")
    halves = split(read(path).content)
    assert (halves.sampler, halves.drawn) == (b"", ())
    assert murho.load(path).predict(x, 32).samples.shape == (32, 9, 2)


def test_kept_draws_change_nothing(exported) -> None:
    case = exported("demo")
    keeping, forgetting = murho.load(case.onnx), murho.load(case.onnx, keep_mb=0)
    for seed in (1, 2, 1, 1):
        for draws in (40, 1000, np.arange(7, 90)):
            np.testing.assert_array_equal(
                keeping.samples(case.example, draws, seed), forgetting.samples(case.example, draws, seed)
            )


def test_third_call_draws_nothing(exported, monkeypatch) -> None:
    case = exported("demo")
    model = murho.load(case.onnx, measure=False)  # another chunk size would be drawn anew
    for _ in range(2):  # kept from the second time on
        model.predict(case.example, 100, seed=1)
    monkeypatch.setattr(model._engine, "_sampler", None)  # an error if it were run
    model.predict(case.example[:2], 100, seed=1)
    with pytest.raises(murho.ArtifactError, match="NoneType"):
        model.predict(case.example, 100, seed=2)


def keep(kept: Kept, key: tuple[int, bytes], values: int = 10) -> None:
    for _ in range(2):
        kept.put(key, array(values))


def array(values: int) -> tuple[np.ndarray, ...]:
    return (np.zeros(values, dtype=np.float32),)


def test_what_was_used_longest_ago_goes_first() -> None:
    kept = Kept(limit=80)
    keep(kept, (1, b"a"))
    keep(kept, (2, b"a"))
    assert kept.get((1, b"a"))
    keep(kept, (3, b"a"))
    assert kept.get((2, b"a")) is None
    assert kept.get((1, b"a"))
    assert kept.get((3, b"a"))


def test_chunks_of_one_seed_do_not_drive_each_other_out() -> None:
    kept = Kept(limit=80)
    for _ in range(3):
        for chunk in (b"a", b"b", b"c"):
            keep(kept, (1, chunk))
    assert kept.get((1, b"a"))
    assert kept.get((1, b"b"))
    assert kept.get((1, b"c")) is None


def test_what_comes_once_is_not_kept() -> None:
    kept = Kept(limit=80)
    kept.put((1, b"a"), array(10))
    assert kept.get((1, b"a")) is None
    kept.put((1, b"a"), array(10))
    assert kept.get((1, b"a"))


def test_more_than_the_limit_is_not_kept() -> None:
    kept = Kept(limit=39)
    keep(kept, (1, b"a"))
    assert kept.get((1, b"a")) is None


@pytest.mark.parametrize("keep_mb", [-1, 1.5, "all"])
def test_wrong_limit(exported, keep_mb: Any) -> None:
    with pytest.raises(murho.runtime.InputError, match="keep_mb must be a whole number of MiB of at least 0, not"):
        murho.load(exported("mlp").onnx, keep_mb=keep_mb)
