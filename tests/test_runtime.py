import dataclasses
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

import murho
from murho.runtime import engines
from murho.runtime.artifact import read
from murho.runtime.compare import TOLERANCE
from murho.runtime.intervals import summarise

SEED = 3


@pytest.fixture
def demo(exported, format: str) -> murho.Model:
    return murho.load(exported("demo").path(format), trusted=True)


@pytest.fixture
def tabular(exported) -> murho.Model:
    """x [B, 3] -> [B, 2]"""
    return murho.load(exported("mlp").onnx)


@pytest.fixture
def windows(dataset) -> np.ndarray:
    return dataset.test.x[:5]


# The answer does not depend on how it is computed: bit for bit.


@pytest.mark.parametrize("name", ["demo", "gru_linear", "zoo", "every_step", "mlp"])
def test_chunks_do_not_matter(exported, format: str, name: str) -> None:
    case = exported(name)
    model, x = murho.load(case.path(format), threads=1, trusted=True), case.example[:3]
    whole = model.samples(x, 1000, SEED, chunk=1008)
    for chunk in (16, 32, 48, 256, 1024):
        np.testing.assert_array_equal(model.samples(x, 1000, SEED, chunk=chunk), whole)
    np.testing.assert_array_equal(model.samples(x, 1000, SEED), whole)


@pytest.mark.parametrize("name", ["demo", "gru_linear", "zoo", "mlp"])
def test_threads_do_not_matter(exported, format: str, name: str) -> None:
    case = exported(name)
    answers = [
        murho.load(case.path(format), threads=threads, trusted=True).samples(case.example, 500, SEED, chunk=chunk)
        for threads in (1, 2, 3)
        for chunk in (None, 16, 64)
    ]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


@pytest.mark.parametrize("name", ["demo", "zoo", "mlp"])
def test_the_split_over_calls_does_not_matter(exported, format: str, name: str) -> None:
    case = exported(name)
    model, x = murho.load(case.path(format), trusted=True), case.example[:4]
    whole = model.samples(x, 300, SEED)
    names = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(model.samples(x, names, SEED), whole[names])
    np.testing.assert_array_equal(model.samples(x, names[:37], SEED), whole[names[:37]])
    np.testing.assert_array_equal(model.samples(x, [5, 299, 4], SEED), whole[[5, 299, 4]])
    np.testing.assert_array_equal(model.samples(x, 2, SEED), whole[:2])
    parts = [model.samples(x, np.arange(a, b), SEED) for a, b in ((0, 1 + 16), (17, 100), (100, 300))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_split_comparison_can_fail(exported, format: str) -> None:
    model = murho.load(exported("demo").path(format), trusted=True)
    x = exported("demo").example[:2]
    assert not np.array_equal(model.samples(x, np.arange(1, 33), SEED), model.samples(x, 32, SEED))


def test_seeds_and_draws_differ(demo, windows) -> None:
    one, two = demo.samples(windows, 64, 1), demo.samples(windows, 64, 2)
    assert (one != two).mean() > 0.99  # two floats can coincide
    assert len(np.unique(one[:, 0])) > 60


@pytest.mark.parametrize("seed", [-1, 2**63 - 1, -(2**63), np.int64(7)])
def test_any_seed_of_64_bits(demo, windows, seed: int) -> None:
    assert np.isfinite(demo.samples(windows, 16, seed)).all()


def test_calls_from_several_threads(demo, windows) -> None:
    want = [demo.predict(windows, 200, 0.9, seed) for seed in range(4)]
    start = threading.Barrier(4)

    def ask(seed: int) -> list[murho.Intervals]:
        start.wait()
        return [demo.predict(windows, 200, 0.9, seed) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for expected, answers in zip(want, pool.map(ask, range(4)), strict=True):
            for answer in answers:
                np.testing.assert_array_equal(answer.samples, expected.samples)
                np.testing.assert_array_equal(answer.lower, expected.lower)


def test_a_new_process_gives_the_same_bits(exported, format: str, windows, tmp_path) -> None:
    path = exported("demo").path(format)
    np.save(tmp_path / "x.npy", windows)
    code = (
        "import sys, numpy as np, murho; x = np.load(sys.argv[2]); "
        "np.save(sys.argv[3], murho.load(sys.argv[1], trusted=True).predict(x, draws=200, seed=11).samples)"
    )
    arguments = [str(path), str(tmp_path / "x.npy"), str(tmp_path / "answer.npy")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], check=True, cwd=tmp_path)
    np.testing.assert_array_equal(
        np.load(tmp_path / "answer.npy"), murho.load(path, trusted=True).samples(windows, 200, 11)
    )


# Intervals


@pytest.mark.parametrize("draws", [2, 3, 100, 1000, 4097])
def test_statistics_are_numpys(tabular, draws: int) -> None:
    x = np.random.default_rng(1).standard_normal((4, 3), dtype=np.float32)
    levels = (0.5, 0.8, 0.95, 0.999, 1e-6)
    got = tabular.predict(x, draws, levels, SEED)
    wide = got.samples.astype(np.float64)
    tails = [(1 - level) / 2 for level in levels]
    m = np.abs(wide).max()
    # Mean and std are taken in float64 and rounded once; an interval end takes three float32 operations.
    np.testing.assert_allclose(got.mean, wide.mean(0), rtol=0, atol=m * 2**-24)
    np.testing.assert_allclose(got.std, wide.std(0, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(got.lower, np.quantile(wide, tails, axis=0), rtol=0, atol=4 * m * 2**-24)
    np.testing.assert_allclose(
        got.upper, np.quantile(wide, [1 - t for t in tails], axis=0), rtol=0, atol=4 * m * 2**-24
    )
    assert (got.lower <= got.upper).all()
    assert got.level == levels
    assert got.draws.tolist() == list(range(draws))
    assert got.seed == SEED


def test_intervals_of_known_samples() -> None:
    samples = np.arange(101, dtype=np.float32).reshape(101, 1, 1)[::-1].copy()
    got = summarise(samples, (0.9, 0.5), np.arange(101), 0)
    assert got.lower.ravel().tolist() == [5.0, 25.0]
    assert got.upper.ravel().tolist() == [95.0, 75.0]
    assert got.mean.item() == 50.0
    assert got.std.item() == pytest.approx(np.sqrt(101 * 102 / 12))  # of 0 … n, with n in place of n + 1


def test_a_large_offset_does_not_spoil_the_spread() -> None:
    """Prices of 1e6 with a spread of 1: sums of squares in float32 would lose it all."""
    samples = (1e6 + np.random.default_rng(0).standard_normal((5000, 3))).astype(np.float32)
    got = summarise(samples, 0.95, np.arange(5000), 0)
    np.testing.assert_allclose(got.std, samples.astype(np.float64).std(0, ddof=1), rtol=1e-6)


def test_shapes_for_one_level_and_for_several(exported, tabular, demo, windows) -> None:
    one, several, single = (demo.predict(windows, 32, level) for level in (0.9, [0.5, 0.9, 0.99], [0.9]))
    assert one.samples.shape == (32, 5, 1)
    assert one.mean.shape == one.std.shape == one.lower.shape == one.upper.shape == (5, 1)
    assert several.lower.shape == several.upper.shape == (3, 5, 1)
    assert single.lower.shape == (1, 5, 1)
    assert (one.level, several.level, single.level) == (0.9, (0.5, 0.9, 0.99), (0.9,))
    np.testing.assert_array_equal(several.lower[1], one.lower)
    assert all(v.dtype == np.float32 for v in (one.samples, one.mean, one.std, one.lower, one.upper))
    steps = murho.load(exported("every_step").onnx).predict(np.ones((2, 9, 2), np.float32), 16, (0.5, 0.6))
    assert steps.mean.shape == (2, 9, 3)
    assert steps.lower.shape == (2, 2, 9, 3)


def test_coverage() -> None:
    samples = np.linspace(0, 1, 11, dtype=np.float32)[:, None, None] * np.ones((1, 4, 1), np.float32)
    truth = np.array([0.0, 0.5, 0.8, 2.0])
    assert summarise(samples, 0.5, np.arange(11), 0).coverage(truth) == 0.25
    both = summarise(samples, (0.5, 0.8), np.arange(11), 0)
    assert both.coverage(truth).tolist() == [0.25, 0.5]
    assert both.coverage(truth.reshape(4, 1)).tolist() == [0.25, 0.5]
    ends = dataclasses.replace(both, lower=both.lower * 0, upper=both.upper * 0)
    assert ends.coverage(np.zeros(4)).tolist() == [1.0, 1.0]  # the ends belong to the interval


def test_to_frame(demo, tabular, windows) -> None:
    got = demo.predict(windows, 32, (0.5, 0.975)).to_frame()
    assert list(got.columns) == ["mean", "std", "lower 50%", "upper 50%", "lower 97.5%", "upper 97.5%"]
    answer = demo.predict(windows, 32, (0.5, 0.975))
    np.testing.assert_array_equal(got["upper 97.5%"], answer.upper[1, :, 0])
    np.testing.assert_array_equal(got["lower 50%"], answer.lower[0, :, 0])
    wide = tabular.predict(np.ones((3, 3)), 16, 0.9)
    frame = wide.to_frame(index=list("abc"))
    assert list(frame.columns) == [f"{name} {k}" for k in (1, 2) for name in ("mean", "std", "lower 90%", "upper 90%")]
    assert list(frame.index) == list("abc")
    np.testing.assert_array_equal(frame["upper 90% 2"], wide.upper[:, 1])


# DataFrames


def test_a_frame_of_a_sequence(demo, dataset) -> None:
    values = np.concatenate([dataset.test.x[0, :, 0], dataset.test.x[1:5, -1, 0]])
    index = pd.date_range("2020-01-01", periods=len(values))
    frame = pd.DataFrame({"other": 1.0, "close": values}, index=index)
    got = demo.predict(frame, 64, 0.9, 1)
    want = demo.predict(dataset.test.x[:5], 64, 0.9, 1).to_frame(index[20:])
    pd.testing.assert_frame_equal(got, want)


def test_a_frame_of_rows(tabular) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((4, 3)), index=list("wxyz"))
    got = tabular.predict(frame, 64, (0.5, 0.9))
    pd.testing.assert_frame_equal(got, tabular.predict(frame.to_numpy(), 64, (0.5, 0.9)).to_frame(list("wxyz")))


def test_bad_frames(exported, demo, tabular, dataset) -> None:
    with pytest.raises(murho.InputError, match=r"DataFrame lacks the column\(s\) close; it has a, b"):
        demo.predict(pd.DataFrame({"a": [1.0], "b": [2.0]}))
    with pytest.raises(murho.InputError, match=r"windows of 21 rows, but the DataFrame has 20"):
        demo.predict(pd.DataFrame({"close": np.ones(20)}))
    with pytest.raises(murho.InputError, match=r"x must be finite"):
        demo.predict(pd.DataFrame({"close": [np.nan] * 30}))
    with pytest.raises(murho.InputError, match=r"x must hold numbers that fit float32, not (object|str)"):
        demo.predict(pd.DataFrame({"close": ["a"] * 30}))
    with pytest.raises(murho.InputError, match=r"x must have 3 along its feature axis, but has 2"):
        tabular.predict(pd.DataFrame([[1.0, 2.0]]))
    with pytest.raises(murho.InputError, match=r"pass a numpy array instead of a DataFrame"):
        murho.load(exported("gru_linear").onnx).predict(pd.DataFrame({"a": [1.0] * 30, "b": 2.0}))


# Forecasts


def test_forecast_feeds_the_mean_back(demo, windows) -> None:
    got = demo.forecast(windows, 4, 64, (0.5, 0.9), 2)
    assert got.mean.shape == (5, 4)
    assert got.lower.shape == (2, 5, 4)
    window = windows
    for step in range(4):
        one = demo.predict(window, 64, (0.5, 0.9), 2)
        np.testing.assert_array_equal(got.samples[:, :, step], one.samples[:, :, 0])
        np.testing.assert_array_equal(got.lower[:, :, step], one.lower[:, :, 0])
        np.testing.assert_array_equal(got.mean[:, step], one.mean[:, 0])
        window = np.concatenate([window[:, 1:], one.mean[:, None, :]], axis=1)
    assert not np.array_equal(got.mean[:, 1], demo.predict(windows, 64, 0.5, 2).mean[:, 0])


def test_bad_forecasts(demo, windows, exported, tabular) -> None:
    with pytest.raises(murho.InputError, match=r"steps must be a whole number of at least 1, not 0"):
        demo.forecast(windows, 0)
    for name in ("every_step", "mlp", "gru_linear"):
        case = exported(name)
        with pytest.raises(murho.InputError, match=r"it needs x \[batch, time, 1\] and an output \[batch, 1\]"):
            murho.load(case.onnx).forecast(case.example, 3)


# Defaults and what the model says of itself


def test_defaults_come_from_the_card(exported, tabular) -> None:
    got = tabular.predict(np.zeros((1, 3), np.float32))
    assert len(got.samples) == tabular.card.draws == 256
    assert (got.level, got.seed) == (0.95, 0)
    artifact = read(exported("mlp").onnx)
    card = dataclasses.replace(tabular.card, draws=48, levels=(0.5, 0.8), seed=9)
    other = murho.Model(dataclasses.replace(artifact, card=card), tabular._engine, 1, False)
    got = other.predict(np.zeros((1, 3), np.float32))
    assert (len(got.samples), got.level, got.seed) == (48, (0.5, 0.8), 9)
    np.testing.assert_array_equal(got.samples, tabular.samples(np.zeros((1, 3)), 48, 9))


def test_repr(exported) -> None:
    assert repr(murho.load(exported("demo").onnx)) == (
        f"<murho.Model 'demo': x [batch, time, feature=1], 1 sites, {murho.load(exported('demo').onnx).engine}>"
    )


def test_accepted_inputs(tabular) -> None:
    want = tabular.samples(np.array([[1, 2, 3]], np.float32), 32)
    numbers = [[1, 2, 3]]
    arrays = [np.array(numbers, dtype) for dtype in ("i1", "u8", "f2", "f8", ">f8")]
    for x in (numbers, torch.tensor(numbers), np.array([[1], [2], [3]]).T, *arrays):
        np.testing.assert_array_equal(tabular.samples(x, 32), want)


def test_x_is_not_changed(demo, windows) -> None:
    before = windows.copy()
    demo.predict(windows, 32)
    demo.forecast(windows, 2, 32)
    np.testing.assert_array_equal(windows, before)


# Mistakes, each with its own message


BAD_X: dict[str, tuple[Any, str]] = {
    "a single window": (np.ones((21, 1)), r"x must have 3 axes \[batch, time, feature = 1\], but has 2: \(21, 1\)"),
    "four axes": (np.ones((1, 2, 21, 1)), r"x must have 3 axes .* but has 4"),
    "a scalar": (1.0, r"x must have 3 axes .* but has 0"),
    "two features": (np.ones((1, 21, 2)), r"x must have 1 along its feature axis \(close\), but has 2"),
    "text": ([[["a"]]], r"x must hold numbers that fit float32, not <U1"),
    "objects": (np.array([[[None]]]), r"x must hold numbers that fit float32, not object"),
    "complex": (np.ones((1, 21, 1), complex), r"x must hold numbers that fit float32, not complex128"),
    "bool": (np.ones((1, 21, 1), bool), r"x must hold numbers that fit float32, not bool"),
    "dates": (np.zeros((1, 21, 1), "datetime64[s]"), r"x must hold numbers that fit float32, not datetime64"),
    "NaN": (np.where(np.arange(42).reshape(2, 21, 1) == 25, np.nan, 1), r"finite, but x\[1, 4, 0\] is nan"),
    "infinity": (np.full((1, 21, 1), -np.inf), r"finite, but x\[0, 0, 0\] is -inf"),
    "float64 too large for float32": (np.full((1, 21, 1), 1e39), r"finite, but x\[0, 0, 0\] is inf"),
    "no rows": (np.ones((0, 21, 1)), r"x is empty: \(0, 21, 1\)"),
    "no steps": (np.ones((2, 0, 1)), r"x is empty: \(2, 0, 1\)"),
    "ragged": ([[[1.0], [2.0]], [[1.0]]], r"x must be an array \[batch, time, feature = 1\]"),
    "None": (None, r"x must hold numbers"),
}


@pytest.mark.parametrize(("x", "message"), BAD_X.values(), ids=BAD_X)
def test_bad_x(exported, x: Any, message: str) -> None:
    model = murho.load(exported("demo").onnx)
    for method in (model.predict, model.samples, lambda x: model.forecast(x, 2)):
        with pytest.raises(murho.InputError, match=message) as caught:
            method(x)
        assert isinstance(caught.value, ValueError)


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"draws": 0}, r"draws must be at least 2, since one draw has no spread; got 0"),
    ({"draws": 1}, r"draws must be at least 2, since one draw has no spread; got 1"),
    ({"draws": -1}, r"draws must be at least 2, since one draw has no spread; got -1"),
    (
        {"draws": 10**9},
        r"1000000000 draws of 1 rows make 3\.7 GiB of samples; at most 2 GiB",
    ),
    ({"draws": 10**30}, r"draws must be"),
    ({"draws": 2.5}, r"draws must be a number of draws or an integer array of their names, not 2\.5"),
    ({"draws": 256.0}, r"draws must be a number of draws"),
    ({"draws": True}, r"draws must be a number of draws"),
    ({"draws": "many"}, r"draws must be a number of draws"),
    ({"draws": [[1, 2], [3, 4]]}, r"one-dimensional array of at least 2 names; got shape \(2, 2\)"),
    ({"draws": [3]}, r"at least 2 names; got shape \(1,\)"),
    ({"draws": np.array([], np.int64)}, r"at least 2 names; got shape \(0,\)"),
    ({"draws": []}, r"draws must be"),
    ({"draws": [[1], [2, 3]]}, r"draws must be"),
    ({"draws": [0, -1]}, r"Names of draws must lie in 0 … 2\^32 - 1; got -1 … 0"),
    ({"draws": [0, 2**32]}, r"Names of draws must lie in 0 … 2\^32 - 1; got 0 … 4294967296"),
    ({"level": 0}, r"level must lie between 0 and 1, for example 0\.95 for 95 %; got 0"),
    ({"level": 1}, r"level must lie between 0 and 1, .* got 1"),
    ({"level": 1.5}, r"level must lie between 0 and 1, .* got 1\.5"),
    ({"level": 95}, r"level must lie between 0 and 1, .* got 95"),
    ({"level": float("nan")}, r"level must lie between 0 and 1, .* got nan"),
    ({"level": [0.5, 1.0]}, r"level must lie between 0 and 1"),
    ({"level": "a"}, r"level must be a number such as 0\.95, or several, not 'a'"),
    ({"level": []}, r"level must be a number such as 0\.95, or several, not \[\]"),
    ({"level": [[0.5]]}, r"level must be a number such as 0\.95"),
    ({"level": 0.5 + 1j}, r"level must be a number such as 0\.95"),
    ({"seed": 1.5}, r"seed must be an integer of 64 bits, not 1\.5"),
    ({"seed": True}, r"seed must be an integer of 64 bits, not True"),
    ({"seed": 2**64}, r"seed must be an integer of 64 bits, not 18446744073709551616"),
    ({"seed": "a"}, r"seed must be an integer of 64 bits, not 'a'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS, ids=[repr(a) for a, _ in BAD_ARGUMENTS])
def test_bad_arguments(exported, arguments: dict[str, Any], message: str) -> None:
    model = murho.load(exported("demo").onnx)
    x = np.full((1, 21, 1), 100.0)
    with pytest.raises(murho.InputError, match=message):
        model.predict(x, **arguments)


def test_memory_is_refused_for_rows_times_draws(exported) -> None:
    with pytest.raises(murho.InputError, match=r"100000 draws of 6000 rows make 2\.2 GiB of samples"):
        murho.load(exported("demo").onnx).predict(np.full((6000, 21, 1), 100.0), 100_000)


@pytest.mark.parametrize("chunk", [0, -16, 8, 17])
def test_bad_chunk(exported, chunk: int) -> None:
    with pytest.raises(murho.InputError, match=f"chunk must be a positive multiple of 16, not {chunk}"):
        murho.load(exported("demo").onnx).samples(np.full((1, 21, 1), 100.0), 32, chunk=chunk)


def test_bad_devices_and_threads(exported, monkeypatch) -> None:
    case = exported("demo")
    for threads in (0, -1):
        with pytest.raises(murho.InputError, match=f"threads must be a whole number of at least 1, not {threads}"):
            murho.load(case.onnx, threads=threads)
    for path in (case.onnx, case.torchscript):
        with pytest.raises(murho.InputError, match=r'device must be "cpu", "cuda" or "cuda:N", not \'gpu\''):
            murho.load(path, device="gpu", trusted=True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(murho.InputError, match=r"device='cuda' needs a CUDA build of ONNX Runtime; this one has CPUE"):
        murho.load(case.onnx, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(murho.InputError, match=r"device='cuda' needs an NVIDIA GPU and a CUDA build of torch"):
        murho.load(case.torchscript, device="cuda", trusted=True)


def test_a_gpu_is_taken_by_its_number() -> None:
    (cuda, options), cpu = engines._providers("cuda:1", onnxruntime.get_all_providers())
    assert (cuda, options["device_id"], cpu) == ("CUDAExecutionProvider", "1", "CPUExecutionProvider")


GPU = {
    "onnx": "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    "torchscript": torch.cuda.is_available(),
}


@pytest.mark.parametrize("name", ["demo", "zoo", "mlp"])
@pytest.mark.parametrize("format", GPU)
def test_cuda_agrees_with_the_cpu(exported, name: str, format: str) -> None:
    if not GPU[format]:
        pytest.skip("needs a GPU and a CUDA build")
    case = exported(name)
    path = getattr(case, format)
    got = murho.load(path, device="cuda", trusted=True).samples(case.example, 500, SEED)
    want = murho.load(path, trusted=True).samples(case.example, 500, SEED)
    error = np.abs(case.in_network_units(got) - case.in_network_units(want)).max()
    assert error < 2 * TOLERANCE * np.abs(case.in_network_units(want)).max() + 1e-6


def test_torchs_threads_are_left_alone(exported) -> None:
    before = torch.get_num_threads()
    model = murho.load(exported("mlp").torchscript, threads=2, trusted=True)
    model.samples(np.ones((2, 3)), 200, chunk=16)
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


def test_default_threads_are_the_cores(exported, monkeypatch) -> None:
    assert murho.load(exported("mlp").onnx)._threads == len(os.sched_getaffinity(0))
