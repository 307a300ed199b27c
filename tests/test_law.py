"""In law: the artifact's samples against BLiTZ's own sampling, and noise that is independent where it must be."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import from_array, to_array
from scipy import stats

import murho
from murho.export import onnx_file
from murho.export.montecarlo import Plan
from murho.export.proof import compare_laws
from murho.export.subject import examine
from murho.runtime.artifact import read
from murho.runtime.engines import open_engine

DRAWS, WINDOWS, LEVEL = 2000, 20, 1e-3


@pytest.fixture(scope="module")
def case(exported) -> Any:
    return exported("demo")


@pytest.fixture(scope="module")
def windows(dataset) -> np.ndarray:
    """20 test windows [20, 21, 1], all over the test part."""
    return dataset.test.x[:: len(dataset.test.x) // WINDOWS][:WINDOWS]


@pytest.fixture(scope="module")
def theirs(case, windows) -> np.ndarray:
    """BLiTZ's own sampling [2000, 20], raw units; neither our noise nor our code for it."""
    samples = case.reference().free([case.scaled(windows)], DRAWS, 17)["output"][:, :, 0]
    return samples * case.scaling.output_scale + case.scaling.output_mean


def ours(path: Path, windows: np.ndarray) -> np.ndarray:
    return murho.load(path, trusted=True).samples(windows, DRAWS, 4)[:, :, 0]


def test_not_rejected(case, windows, theirs, format: str) -> None:
    report = compare_laws(ours(case.path(format), windows), theirs, LEVEL)
    assert (report["draws"], report["tests"], report["threshold"]) == (DRAWS, 2 * WINDOWS, LEVEL / (2 * WINDOWS))


@pytest.fixture(scope="module")
def planted(case, tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """The artifact with every σ multiplied."""

    def make(factor: float) -> Path:
        path = tmp_path_factory.mktemp("planted") / "planted.onnx"
        model = onnx.load(case.onnx)
        (sigma,) = [t for t in model.graph.initializer if t.name.endswith("sigma")]
        sigma.CopyFrom(from_array(to_array(sigma) * np.float32(factor), sigma.name))
        path.write_bytes(onnx_file.saved(model, read(case.onnx).card))
        return path

    return make


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_sigma_off_by_a_fifth_is_rejected(windows, theirs, planted, factor: float) -> None:
    with pytest.raises(
        murho.ExportError, match=r"samples another distribution than BLiTZ: p = .* of 40 Kolmogorov-Smirnov"
    ):
        compare_laws(ours(planted(factor), windows), theirs, LEVEL)


def test_the_planting_itself_is_innocent(case, windows, theirs, planted) -> None:
    compare_laws(ours(planted(1.0), windows), theirs, LEVEL)


def test_on_the_samples_alone_the_error_would_pass() -> None:
    """Why the distances from the median are tested too: where the output is normal, as behind a linear layer."""
    random = np.random.default_rng(1)
    true, wrong = random.standard_normal((DRAWS, WINDOWS)), 1.2 * random.standard_normal((DRAWS, WINDOWS))

    def rejected(one: np.ndarray, other: np.ndarray) -> int:
        p = [stats.ks_2samp(one[:, k], other[:, k], method="asymp").pvalue for k in range(WINDOWS)]
        return int(np.sum(np.array(p) < LEVEL / (2 * WINDOWS)))

    # Distribution functions of N(0, 1) and N(0, 1.2²) are 0.044 apart at most, of |N| 0.088; the test sees 0.075.
    assert rejected(true, wrong) <= 2
    assert rejected(np.abs(true), np.abs(wrong)) >= 10


def test_a_wrong_place_is_rejected(theirs) -> None:
    off = theirs + 0.2 * theirs.std(axis=0)
    with pytest.raises(murho.ExportError, match="samples another distribution"):
        compare_laws(off, theirs[::-1], LEVEL)


def test_the_false_alarm_rate_is_kept() -> None:
    """Of 300 true comparisons at level 0.05 some 15 are rejected; 5 standard errors (3.8 each) more are allowed."""
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        one, other = random.standard_normal((2, 200, 2))
        try:
            compare_laws(one, other, 0.05)
        except murho.ExportError:
            alarms += 1
    assert alarms <= 15 + 5 * np.sqrt(300 * 0.05 * 0.95)


def test_every_export_was_compared_in_law(exported, format: str) -> None:
    for name in ("demo", "gru_linear", "mlp"):
        report = read(exported(name).path(format)).card.verification["law"]
        assert report["draws"] == 1000
        assert report["smallest_p"] > report["threshold"]


# Independence, from what the artifact does: "bare" hands out the weights of its three sites, w = μ + σ ε


@pytest.fixture
def noise(exported, format: str) -> Callable[..., np.ndarray]:
    """noise(seed, draws) -> [S, 3, 40], the ε of its sites: one layer, another, the first again."""
    case = exported("bare")
    model = murho.load(case.path(format), trusted=True)
    mu, sigma = (
        np.stack([getattr(case.posteriors[layer], part).double().numpy() for layer in ("one", "two", "one")])
        for part in ("mu", "sigma")
    )

    def measure(seed: int, draws: Any = 4000) -> np.ndarray:
        weights = model.samples(np.ones((1, 1), np.float32), draws, seed).astype(np.float64).reshape(-1, 3, 40)
        return (weights - mu) / sigma

    return measure


def test_noise_is_standard_normal(noise) -> None:
    epsilon = noise(5)
    # w is a float32: (w - μ) / σ carries its rounding, 2^-24 · |w| / σ < 1e-5 here, far below what the test can see.
    assert stats.kstest(epsilon.ravel(), "norm").pvalue > 1e-5
    assert abs(epsilon.std() - 1) < 5 / np.sqrt(2 * epsilon.size)


def test_two_sites_are_uncorrelated(noise) -> None:
    epsilon = noise(5)
    one, two = epsilon[:, 0].ravel(), epsilon[:, 1].ravel()
    bound = 5 / np.sqrt(len(one))  # standard error of a correlation of zero: 1/sqrt(pairs)
    assert abs(np.corrcoef(one, two)[0, 1]) < bound
    assert abs(np.corrcoef(one**2, two**2)[0, 1]) < bound


def test_elements_draws_and_seeds_are_uncorrelated(noise) -> None:
    epsilon, other = noise(5), noise(6)
    pairs = 4000
    # All 120 × 119 / 2 pairs of weights at once: the largest of 7140 is below 6 standard errors but for 1.4e-5.
    between = np.corrcoef(epsilon.reshape(pairs, 120).T)[np.triu_indices(120, 1)]
    assert np.abs(between).max() < 6 / np.sqrt(pairs)
    bound = 5 / np.sqrt(epsilon.size)
    assert abs(np.corrcoef(epsilon.ravel(), other.ravel())[0, 1]) < bound
    assert abs(np.corrcoef(epsilon[1:].ravel(), epsilon[:-1].ravel())[0, 1]) < 5 / np.sqrt(epsilon[1:].size)


def test_calls_of_one_layer_have_noise_of_their_own(noise) -> None:
    """BLiTZ samples a layer anew at each call; one noise for both would widen the spread."""
    epsilon = noise(5)
    one, again = epsilon[:, 0].ravel(), epsilon[:, 2].ravel()
    assert abs(np.corrcoef(one, again)[0, 1]) < 5 / np.sqrt(len(one))


def test_seeds_differ_and_repeat(case, windows, format: str) -> None:
    model = murho.load(case.path(format), trusted=True)
    answers = {seed: model.predict(windows, 500, 0.9, seed) for seed in (0, 1)}
    again = murho.load(case.path(format), trusted=True).predict(windows, 500, 0.9, 0)
    np.testing.assert_array_equal(answers[0].samples, again.samples)
    assert (answers[0].mean != answers[1].mean).all()
    # Means of independent draws differ by sqrt(2/500) standard deviations, seldom by more than five of these.
    difference = np.abs(answers[0].mean - answers[1].mean) / answers[0].std
    assert difference.max() < 5 * np.sqrt(2 / 500)


def test_frozen_noise_would_be_noticed(case, windows, monkeypatch) -> None:
    """What a naive export does: the same answer for all seeds and draws."""
    from murho.export import proof

    subject = examine(case.network, torch.from_numpy(case.example), Plan(case.scaling))
    engine = open_engine(read(case.onnx), "cpu")
    frozen = dataclasses.make_dataclass("Frozen", ["samples", "name"])
    one_seed = frozen(lambda x, draws, seed, observed: engine.samples(x, draws, 0, observed), "x")
    one_draw = frozen(lambda x, draws, seed, observed: engine.samples(x, draws * 0, seed, observed), "x")
    calls = iter(range(9))
    restless = frozen(lambda x, draws, seed, observed: engine.samples(x, draws, next(calls), observed), "x")
    for broken, message in (
        (one_seed, r"same answer for two seeds: its noise is frozen"),
        (one_draw, r"same answer for all draws: its noise is frozen"),
        (restless, r"two answers for the same draws and seed"),
    ):
        with pytest.raises(murho.ExportError, match=message):
            proof._alive(subject, broken)


def test_probabilities_near_one_are_not_told_apart_by_their_rounding() -> None:
    """A float32 softmax and a float64 one put the last bits of certain classes in different places."""
    random = np.random.default_rng(2)
    logits = 14 + 2 * random.standard_normal((2, DRAWS))
    below = np.float32(1) - np.spacing(np.float32(0.5)) * np.round(np.exp(-logits[0]) / np.spacing(np.float32(0.5)))
    ours, theirs = below.astype(np.float32), (1 / (1 + np.exp(-logits[1]))).astype(np.float32)
    rounded_up = np.where(ours == 1, ours, np.nextafter(ours, np.float32(0)))  # one unit in the last place off
    assert stats.ks_2samp(rounded_up, theirs, method="asymp").pvalue < 1e-7
    compare_laws(rounded_up[:, np.newaxis], theirs[:, np.newaxis], LEVEL)
