"""The benchmark's own code: systems that compute something else, or a check that sees nothing, make it worthless."""

import re
from pathlib import Path

import hand_batched
import latency
import latency_page
import numpy as np
import onnx
import onnxruntime
import pytest
import sameness
import systems
import torch
from scipy import stats

import murho
from murho.cli import bench
from murho.export.generator import normals
from murho.export.montecarlo import Plan
from murho.export.subject import examine
from murho.models import Classifier, Forecaster, Regressor
from murho.runtime.contract import Scaling

NETWORKS = {
    "LSTM": (lambda: Forecaster(hidden=6), (9, 1)),
    "GRU": (lambda: Forecaster(hidden=6, cell="gru"), (9, 1)),
    "MLP": (lambda: Regressor(5, (8, 7)), (5,)),
    "LeNet": (lambda: Classifier(size=20, filters=(3, 4), hidden=(9, 8), classes=4), (1, 20, 20)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_batched_by_hand_is_blitz_at_equal_noise(kind: str) -> None:
    make, shape = NETWORKS[kind]
    torch.manual_seed(0)
    network, x = make().eval(), torch.randn(3, *shape)
    subject = examine(network, x, Plan(Scaling()))
    posteriors = list(subject.posteriors.values())
    epsilon = [normals(range(4), 7, site, len(p.mu)) for site, p in enumerate(posteriors)]
    batched = hand_batched.HandBatched(network, posteriors)
    with torch.no_grad():
        found = batched.given(x, batched.weights([torch.from_numpy(e).float() for e in epsilon])).numpy()
        drawn = batched(x, 5)
    want = subject.reference.given([x], range(4), lambda draw, site, n: epsilon[site][draw])["output"]
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 * np.abs(want).max())  # float32 in another order
    assert drawn.shape == (5, 3, found.shape[2])
    assert (drawn.std(dim=0) > 0).all()


def test_onnx_random_numbers_take_the_generators_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="still where BLiTZ starts it"):
        murho.export.to_onnx(Regressor(5, (8,)), tmp_path / "own.onnx", torch.randn(4, 5))
    file = systems.with_random_normals(onnx.load(tmp_path / "own.onnx"))
    (normals,) = (function for function in file.functions if function.name == "Normals")
    assert "RandomNormalLike" in {node.op_type for node in normals.node}
    session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((2, 5), np.float32), "draws": np.arange(3000), "seed": np.array(0)}
    feeds["levels"] = np.array([0.95], np.float32)
    one, other = (session.run(["samples"], feeds)[0] for _ in range(2))
    assert not np.array_equal(one, other)
    own = murho.load(tmp_path / "own.onnx").samples(feeds["x"], 3000)
    pools = [sameness.Pool(), sameness.Pool()]
    for pool, samples in zip(pools, (one, own), strict=True):
        pool.add(samples)
    assert sameness.apart(*pools) < latency_page.MOST_ERRORS


def pool_of(*parts: np.ndarray) -> sameness.Pool:
    pool = sameness.Pool()
    for part in parts:
        pool.add(part.astype(np.float32))
    return pool


def test_pool_keeps_the_moments_of_all_parts() -> None:
    samples = np.random.default_rng(0).gamma(2, size=(500, 3, 2))
    mean, variance, fourth = pool_of(samples[:100], samples[100:350], samples[350:]).moments()
    np.testing.assert_allclose(mean, samples.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(variance, samples.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(fourth, stats.moment(samples, 4), rtol=1e-5)


@pytest.mark.parametrize(("shift", "stretch", "alike"), [(0, 1, True), (0.2, 1, False), (0, 1.2, False), (0, 0, False)])
def test_law_check_sees_a_wrong_mean_and_a_wrong_spread(shift: float, stretch: float, alike: bool) -> None:
    random = np.random.default_rng(1)
    reference = pool_of(5 + random.standard_normal((20_000, 8)))
    other = pool_of(5 + shift + stretch * random.standard_normal((4000, 8)))
    assert (sameness.apart(other, reference) < latency_page.MOST_ERRORS) == alike


def test_law_check_errors_are_standard_errors() -> None:
    """Not ten times larger, which would let everything pass, nor smaller."""
    random = np.random.default_rng(2)
    found = [
        sameness.apart(pool_of(random.gamma(3, size=(2000, 1))), pool_of(random.gamma(3, size=(20_000, 1))))
        for _ in range(200)
    ]
    # The larger of two nearly independent |N(0, 1)| has a median of 1.05, and passes 2.5 in 2.5 % of cases.
    assert 0.9 < np.median(found) < 1.3
    assert np.mean(np.array(found) > 2.5) < 0.1


def test_draws_needed_is_the_closed_form_of_a_normal() -> None:
    samples = np.random.default_rng(3).standard_normal((20_000, 40)).astype(np.float32)
    draws, error = sameness.draws_needed(samples, 0.02)
    end = stats.norm.ppf(0.975)
    exact = 0.025 * 0.975 / stats.norm.pdf(end) ** 2 / (0.02 * 2 * end) ** 2  # variance p (1 - p) / (S f²)
    assert exact == pytest.approx(1162, abs=1)
    assert abs(draws - exact) < 4 * error + 0.03 * exact  # 3 %: the density changes between the order statistics


def test_fastest_takes_the_least_time_per_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {systems.Choice(1, 16): 16.0, systems.Choice(2, 16): 8.0, systems.Choice(1, 64): 48.0}
    monkeypatch.setattr(systems, "LONGEST_TRIAL", 100)
    monkeypatch.setattr(systems, "_seconds", lambda run, choice: costs[choice])
    assert systems.fastest(list(costs), lambda choice: None) == systems.Choice(2, 16)
    monkeypatch.setattr(systems, "_seconds", lambda run, choice: {16: 3.0, 64: 0.1}[choice.chunk])
    monkeypatch.setattr(systems, "LONGEST_TRIAL", 1)
    slow = [systems.Choice(1, 16), systems.Choice(1, 64)]
    assert systems.fastest(slow, lambda choice: None) == slow[0], "a trial that would take 12 s was made"


def test_threads_come_back() -> None:
    before = torch.get_num_threads()
    with systems.torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), systems.torch_threads(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_seeds_are_new_in_every_call_of_every_shape() -> None:
    seeds: dict[str, list[int]] = {"one": [], "other": []}
    order = []

    def system(name: str) -> bench.System:
        def call(x: np.ndarray, draws: int, seed: int) -> murho.Intervals:
            seeds[name].append(seed)
            order.append(name)
            return None  # type: ignore[return-value]

        return call

    both = {name: system(name) for name in seeds}
    for rows, draws in ((1, 100), (1, 1000), (64, 100)):
        x = np.zeros((rows, 1), np.float32)
        bench.warm_up(both, x, draws)
        order.clear()
        times, _ = bench.timed(both, {"one": 6, "other": 2}, x, draws, settled=["other"])
        assert {name: len(laps) for name, laps in times.items()} == {"one": 6, "other": 2}
        assert order == (["one"] * 3 + ["other"] * (bench.SETTLING + 1)) * 2, "turns are not spread, or nothing settled"
    assert all(len(set(mine)) == len(mine) for mine in seeds.values())


@pytest.fixture
def results() -> dict:
    def row(system: str, median: float, **more: object) -> dict:
        (found,) = bench.rows({system: [median] * 3}, 1, 1000, baseline=3000)
        return {**found, "evaluated_draws": 1000, "errors_apart": 1.5, "setting": "", **more}

    rows = [
        row("BLiTZ loop, 1 thread", 3000, evaluated_draws=100),
        row("PyTorch, batched by hand", 5, setting="1 thread, 64 draws at once"),
        row("ONNX, RandomNormalLike", 20, errors_apart=12.0),
        {"rows": 1, "draws": 1000, "system": "BLiTZ loop, torch.compile", "problem": "TimeoutError: not done"},
        row("murho ONNX", 10, errors_apart=None),
    ]
    network = {
        "title": "LSTM", "weights": 480, "results": rows,
        "draws_needed": {"share": 0.02, "draws": 1200.0, "standard_error": 30.0},
    }  # fmt: skip
    linear = {"title": "LSTM", "rows": 1, "times_the_draws": 4, "times_the_time": {"murho ONNX": 3.9}}
    machine = {
        "started": "2026-01-02T03:04:05+00:00", "processor": "A processor", "cores": 2, "system": "Linux",
        "caches_of_core_0": {"L2": "512K"}, "versions": {"torch": "2.13.0"},
    }  # fmt: skip
    runs = [{"command": "python benchmarks/latency.py", "minutes": 30.0}]
    return {"runs": runs, "environment": machine, "linear": linear, "networks": {"lstm10": network}}


def test_page_says_what_was_measured_and_what_went_wrong(results: dict, tmp_path: Path) -> None:
    page = tmp_path / "benchmark.md"
    page.write_text("# Old\n\n## LSTM of long ago\n\n1 ms\n\n## Memory\n\n18 MiB\n")
    latency_page.write_page(page, results, tmp_path / "benchmark.png")
    text = page.read_text()
    assert (
        "`python benchmarks/latency.py`, 30 minutes, on A processor, 2 cores (L2 512K), Linux; torch 2.13.0. " in text
    )
    assert "Started 2026-01-02" in text
    assert "![Time of an interval by network, system and rows](benchmark.png)" in text
    assert "| BLiTZ loop, 1 thread | ≈ 3000 ms<br>(3000 ms to 3000 ms)<br>1 × | 3600 ms |" in text
    assert "| murho ONNX | 10 ms<br>(10 ms to 10 ms)<br>300 × | 12 ms |" in text
    assert "| BLiTZ loop, torch.compile | does not work |  |" in text
    assert "**BLiTZ loop, torch.compile: TimeoutError: not done.**" in text
    assert "**wrong:** 20 ms" in text
    assert "standard deviation is 12.0 standard errors off" in text
    assert re.search(r"300 × \| PyTorch, batched by hand, 5 ms \| \*\*0.5 ×: slower\*\*", text)
    assert "18 MiB" in text
    assert "long ago" not in text


def test_quick_run_of_a_small_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way, on the tutorial's network: every system but the compiled one."""
    json, png, page = (tmp_path / f"benchmark.{suffix}" for suffix in ("json", "png", "md"))
    arguments = ["--quick", "--only", "lstm10", "--batches", "1", "--draws", "32", "--rounds", "1"]
    systems_ = ["--systems", "loop", "inference", "hand", "random", "same", "torchscript"]
    files = ["--json", str(json), "--png", str(png), "--write", str(page)]
    monkeypatch.setattr("sys.argv", ["benchmarks/latency.py", *arguments, *systems_, *files])
    latency.main()
    assert "murho ONNX, same seed" in page.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("sys.argv", ["benchmarks/latency.py", "--read", str(json), "--write", str(page)])
    latency.main()
