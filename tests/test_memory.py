"""What a call takes is said before any work; it goes block by block of rows, and nobody can see that in an answer."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianLinear
from torch import nn

import murho
from murho import InputError
from murho.export import kernels, proof, to_onnx, torchscript_file
from murho.runtime import memory, planner
from murho.runtime.intervals import summarise

NAMES = ("samples", "mean", "std", "lower", "upper", "mc_error", "epistemic", "aleatoric")
SEED = 11


def same(one: murho.Intervals, other: murho.Intervals, rows: slice = slice(None)) -> None:
    """Whether the rows of one answer are the other answer, bit for bit."""
    axes = {"samples": 1, "lower": 1, "upper": 1, "mc_error": 2}
    for name in NAMES:
        values, want = getattr(one, name), getattr(other, name)
        if want is not None:
            np.testing.assert_array_equal(
                np.moveaxis(values, axes.get(name, 0), 0)[rows], np.moveaxis(want, axes.get(name, 0), 0)
            )


def inputs(case: Any, rows: int) -> np.ndarray:
    example = case.example
    shift = np.linspace(0, 1, rows, dtype=np.float32).reshape(-1, *(1 for _ in example.shape[1:]))
    return np.resize(example, (rows, *example.shape[1:])) + shift


@pytest.fixture
def blocks_of_8(monkeypatch) -> None:
    monkeypatch.setattr(planner, "rows_per_block", lambda card, steps: 8)


# Blocks of rows


@pytest.mark.parametrize("name", ["demo", "zoo", "every_step", "mlp"])
def test_a_large_batch_is_answered_as_its_blocks_would_be_alone(exported, format: str, name: str, blocks_of_8) -> None:
    """Each in chunks of any size, on any number of threads."""
    case = exported(name)
    x = inputs(case, 29)
    ask = {"draws": 100, "level": (0.5, 0.9), "seed": SEED, "parts": True}
    whole = murho.load(case.path(format), threads=2, trusted=True).predict(x, **ask)
    alone = murho.load(case.path(format), threads=1, trusted=True)
    for first in range(0, 29, 8):
        rows = slice(first, first + 8)
        same(whole, alone.predict(x[rows], **ask), rows)
    samples = murho.load(case.path(format), threads=3, trusted=True).samples(x, 100, SEED, chunk=16)
    np.testing.assert_array_equal(samples, whole.samples)


@pytest.mark.parametrize("name", ["demo", "mlp"])
def test_blocks_change_no_more_than_rounding(exported, format: str, name: str, monkeypatch) -> None:
    case = exported(name)
    model, x = murho.load(case.path(format), trusted=True), inputs(case, 29)
    want = model.samples(x, 100, SEED)
    monkeypatch.setattr(planner, "rows_per_block", lambda card, steps: 8)
    np.testing.assert_allclose(model.samples(x, 100, SEED), want, rtol=1e-5, atol=1e-5)


def test_no_part_is_larger_than_a_chunk_of_a_block(exported, blocks_of_8, monkeypatch) -> None:
    case = exported("mlp")
    model, parts = murho.load(case.onnx, measure=False), []
    samples = model._engine.samples
    monkeypatch.setattr(
        model._engine, "samples", lambda *a, **k: (parts.append((len(a[0][0]), len(a[1]))), samples(*a, **k))[1]
    )
    model.samples(inputs(case, 29), 100, SEED, chunk=32)
    assert sorted(parts) == sorted([(rows, draws) for rows in (8, 8, 8, 5) for draws in (32, 32, 32, 16)])


def test_blocks_follow_from_the_network_and_the_length_alone(exported) -> None:
    """From its largest site, input or output: 16 draws of a block take at most what they may."""
    for name in ("demo", "mlp", "every_step"):
        card = murho.load(exported(name).onnx).card
        for steps in (1, 21, 10_000):
            block = planner.rows_per_block(card, steps)
            values = (planner.bytes_per_draw(card, 1, steps) - planner.bytes_per_draw(card, 0, steps)) // 4
            assert block == 2 ** (block.bit_length() - 1)
            assert block * 16 * 4 * values <= planner.BLOCK_BYTES
    assert planner.rows_per_block(murho.load(exported("demo").onnx).card, 21) == 2048
    assert planner.rows_per_block(card, 10**9) == 1


# Statistics


@pytest.mark.parametrize("draws", [2, 100, 5000])
@pytest.mark.parametrize("values", [1, 3])
def test_statistics_do_not_depend_on_their_blocks(monkeypatch, draws: int, values: int) -> None:
    samples = np.random.default_rng(0).standard_normal((draws, 23, values)).astype(np.float32)
    want = summarise(samples, (0.3, 0.9), np.arange(draws), 0)
    for block in (1, 2, 5, 22):
        monkeypatch.setattr(memory, "STATISTICS_BYTES", block * values * memory.statistics_bytes(draws, 2))
        same(summarise(samples, (0.3, 0.9), np.arange(draws), 0), want)


@pytest.mark.parametrize("values", [1, 4])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_blocks_cover_every_row_once_and_are_never_one_value_of_several(monkeypatch, rows: int, values: int) -> None:
    for room in (0, 3, 10**9):
        monkeypatch.setattr(memory, "STATISTICS_BYTES", room * values * memory.statistics_bytes(10, 1))
        blocks = list(memory.row_blocks(rows, values, 10, 1))
        assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(rows))
        assert all((block.stop - block.start) * values > 1 for block in blocks) or rows * values == 1


@pytest.mark.parametrize("levels", [1, 50])
def test_statistics_take_a_bounded_part_beside_the_answer(monkeypatch, levels: int) -> None:
    """As numpy's own allocations count it; one column of float64 for the sums is small."""
    monkeypatch.setattr(memory, "STATISTICS_BYTES", 2**20)
    samples = np.random.default_rng(0).standard_normal((100, 60_000, 1)).astype(np.float32)
    nominal = tuple(np.linspace(0.1, 0.9, levels))
    tracemalloc.start()
    try:
        answer = summarise(samples, nominal, np.arange(100), 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    own = sum(value.nbytes for value in (answer.mean, answer.std, answer.lower, answer.upper, answer.mc_error))
    assert peak < own + 3 * 2**20 + 4 * 8 * 60_000  # it was 5 times the samples, 120 MB


# The plan


@pytest.fixture
def limited(monkeypatch) -> Any:
    def limit(bytes: int) -> None:
        monkeypatch.setattr(memory, "MOST_BYTES", bytes)

    return limit


@pytest.mark.parametrize("name", ["mlp", "every_step"])
@pytest.mark.parametrize("parts", [False, True])
def test_the_plan_is_what_the_answer_takes(exported, name: str, parts: bool) -> None:
    case = exported(name)
    x = inputs(case, 7)
    answer = murho.load(case.onnx).predict(x, 48, (0.5, 0.8, 0.9), parts=parts)
    need = memory.needed(
        murho.load(case.onnx).card, 7, 48, 3, outputs=1, steps=x.shape[1] if x.ndim == 3 else 1, parts=parts
    )
    assert need["samples"] == answer.samples.nbytes
    assert need["interval ends and their errors"] == sum(
        v.nbytes for v in (answer.lower, answer.upper, answer.mc_error)
    )
    rest = [answer.mean, answer.std, answer.epistemic, answer.aleatoric]
    assert need["statistics"] >= sum(v.nbytes for v in rest if v is not None)


def test_what_does_not_fit_is_refused_before_any_work(exported, limited, monkeypatch) -> None:
    case = exported("mlp")
    model, x = murho.load(case.onnx), inputs(case, 10)
    monkeypatch.setattr(model, "_engine", None)  # an error if it were used
    limited(2**20)
    with pytest.raises(
        InputError, match=r"20000 draws of 10 rows make 0\.0 GiB of samples.* Ask for fewer draws or fewer"
    ):
        model.predict(x, 20_000)
    with pytest.raises(
        InputError, match=r"and 5000 levels 0\.0 GiB of interval ends and their errors.* rows or levels"
    ):
        model.predict(x, 16, np.linspace(0.1, 0.9, 5000))
    with pytest.raises(InputError, match="20000 draws of 10 rows"):
        model.samples(x, 20_000)
    with pytest.raises(InputError, match="20000 draws of 10 rows"):
        model.predict_all(x, 20_000)
    with pytest.raises(InputError, match="20000 draws of 10 rows"):
        model.calibrate(x, np.zeros((10, 2)), [0.5], draws=20_000)
    with pytest.raises(InputError, match="32 draws of 100000 rows"):
        model.predict(np.zeros((100_000, 3)), tolerance=0.1)


def test_a_sequences_length_counts(exported, limited) -> None:
    """An output for every step [B, T, 3]."""
    model = murho.load(exported("every_step").onnx)
    limited(4 * 1000 * 100 * 3)
    model.predict(np.zeros((1, 50, 2)), 1000)
    with pytest.raises(InputError, match="1000 draws of 1 rows"):
        model.predict(np.zeros((1, 100, 2)), 1000)


def test_a_forecasts_steps_count(exported, limited) -> None:
    model = murho.load(exported("demo").onnx)
    limited(4 * 1000 * 100)
    with pytest.raises(InputError, match="1000 draws of 100 rows"):
        model.forecast(np.full((1, 21, 1), 100.0), 100, 1000)


@pytest.mark.parametrize("goal", [{"tolerance": 1e-9}, {"budget_ms": 1e6}, {"tolerance": 1e-9, "budget_ms": 1e6}])
@pytest.mark.parametrize("draws", [None, 50_000, np.arange(7, 50_007)])
def test_memory_caps_the_draws_of_a_goal(exported, limited, goal: Any, draws: Any) -> None:
    """Reached or not: the answer is that of as many as fit."""
    case = exported("mlp")
    model, x = murho.load(case.onnx), inputs(case, 10)
    limited(2**20)
    answer = model.predict(x, draws, (0.5, 0.9), seed=SEED, **goal)
    count = len(answer.draws)

    def total(draws: int) -> int:
        return sum(memory.needed(model.card, 10, draws, 2, outputs=1).values())

    assert total(count) <= 2**20 < total(count + 16)
    assert answer == model.predict(x, answer.draws, (0.5, 0.9), SEED)
    assert answer.samples.flags.c_contiguous


def test_calibration_keeps_no_samples(exported, limited, monkeypatch) -> None:
    """More than fit at once, row block by row block, are the calibration of them all together."""
    case = exported("mlp")
    x, y = inputs(case, 200), np.random.default_rng(0).standard_normal((200, 2))
    want = murho.load(case.onnx).calibrate(x, y, [0.5, 0.9], draws=1000)
    limited(2**20)
    monkeypatch.setattr(planner, "rows_per_block", lambda card, steps: 16)
    monkeypatch.setattr("murho.runtime.model.STATISTICS_BYTES", 2**16)
    model = murho.load(case.onnx)
    parts: list[int] = []
    run = model._run
    monkeypatch.setattr(model, "_run", lambda *a: (parts.append(a[1]), run(*a))[1])
    got = model.calibrate(x, y, [0.5, 0.9], draws=1000)
    assert parts == [16] * 12 + [8]
    np.testing.assert_allclose(got.factors, want.factors, rtol=1e-4)


def test_what_is_observed_keeps_no_samples(exported) -> None:
    case = exported("mlp")
    model = murho.load(case.onnx)
    model.predict(inputs(case, 10), 1000)
    assert model._latest is not None
    assert model._latest.shape == (3, 10, 2)  # the card's one level, and the median
    model.predict(inputs(case, 10), 1000, noise=False)


def test_the_tuner_keeps_nothing_that_nobody_asked_for(exported) -> None:
    case = exported("mlp")
    model = murho.load(case.onnx)
    for seed in range(4):
        model.predict(inputs(case, 10), 100, seed=seed)
    assert not model._engine._kept._arrays
    for _ in range(3):
        model.predict(inputs(case, 10), 100, seed=5)
    assert {key[0] for key in model._engine._kept._arrays} == {5}


# Exports


def test_the_proof_of_a_large_network_holds_few_draws_at_once(monkeypatch, tmp_path) -> None:
    """What 33 or 200 draws of 6.3 million weights take is measured by benchmarks/large_networks.py."""
    asked: list[int] = []
    opened, whole = proof.open_engine, proof.whole

    def watched_engine(*arguments: Any, **named: Any) -> Any:
        engine = opened(*arguments, **named)
        samples = engine.samples
        engine.samples = lambda inputs, draws, *rest, **more: (  # type: ignore[method-assign]
            asked.append(len(draws)),
            samples(inputs, draws, *rest, **more),
        )[1]
        return engine

    def watched_whole(*arguments: Any) -> Any:
        results = whole(*arguments)
        return lambda inputs, draws: (asked.append(len(draws)), results(inputs, draws))[1]

    monkeypatch.setattr(proof, "open_engine", watched_engine)
    monkeypatch.setattr(proof, "whole", watched_whole)
    monkeypatch.setattr(planner, "cache_bytes", lambda: 4 * 4 * 40_000 * 16)
    torch.manual_seed(0)
    network = nn.Sequential(BayesianLinear(200, 200), nn.ReLU(), BayesianLinear(200, 2))
    most = []
    for large in (50_000, 40_000):
        monkeypatch.setattr(proof, "LARGE", large)
        asked.clear()
        card = to_onnx(network, tmp_path / "network.onnx", torch.randn(4, 200))
        most.append(max(asked))
    assert most == [48, 17]
    assert asked.count(16) > card.verification["law"]["draws"] // 16


def test_torchscript_draws_many_weights_one_network_after_another() -> None:
    mu, sigma = torch.randn(32_769), torch.rand(32_769)
    ours = torchscript_file.scripted_kernels().sample_weights
    assert "prim::Loop" in str(ours.graph)
    arguments = torch.tensor([3, 2**40, 7]), torch.tensor(5), mu, sigma, 2
    torch.testing.assert_close(ours(*arguments), kernels.sample_weights(*arguments), rtol=0, atol=1e-5)
