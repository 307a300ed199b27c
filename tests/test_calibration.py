"""Split conformal calibration: the rule, the artifact that carries it, and what is refused."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import murho
from murho import ArtifactError, Calibration, InputError, Noise, Scaling
from murho.export import to_onnx, to_torchscript
from murho.models import Regressor
from murho.runtime import conformal

SEED = 5
LEVELS = (0.5, 0.8, 0.95)
WRITE = {"onnx": to_onnx, "torchscript": to_torchscript}
SUFFIX = {"onnx": ".onnx", "torchscript": ".pt"}
SKEW = Scaling((1.0,), (2.0,), (3.0, -3.0), (4.0, 0.5))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """noisy(format): an artifact x [B, 3] -> [B, 2] with noise."""
    folder, made = tmp_path_factory.mktemp("noisy"), {}

    def make(format: str) -> Path:
        if format not in made:
            torch.manual_seed(0)
            network = Regressor(3, (8,), 2, learned_noise=True, posterior_rho_init=-2.0)
            made[format] = folder / f"noisy{SUFFIX[format]}"
            x = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
            WRITE[format](network, made[format], x, noise=Noise("student-t", 4), scaling=SKEW)
        return made[format]

    return make


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """x [300, 3] and a truth [300, 2] that is wider than the artifact thinks."""
    random = np.random.default_rng(1)
    x = random.standard_normal((300, 3)).astype(np.float32)
    return x, np.array([3.0, -3.0]) + np.array([9.0, 2.0]) * random.standard_t(3, (300, 2))


# The rule


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 2, 9, 19, 20, 99, 100, 1000])
def test_the_rule_is_exact(level: float, n: int) -> None:
    k = math.ceil((n + 1) * Fraction(str(level)))  # in exact arithmetic
    scores = np.random.default_rng(n).permutation(n).astype(float)[:, None]
    want = k - 1 if k <= n else math.inf
    assert conformal.quantile(scores, level)[0] == want
    assert (n >= conformal.rows_needed(level)) == (k <= n)


def test_equal_weights_are_the_rule() -> None:
    scores = np.random.default_rng(0).exponential(size=(57, 3))
    for level in (0.5, 0.8, 0.95):
        equal = conformal.quantile(scores, level, half_life=1e16)
        np.testing.assert_array_equal(equal, conformal.quantile(scores, level))


def test_recent_rows_count_more() -> None:
    """By hand: weights 1/8, 1/4, 1/2 of three rows and 1 for the next; 0.4 of 1.875 lies at or below the last score."""
    scores = np.array([[9.0], [5.0], [1.0]])
    assert conformal.quantile(scores, 0.25, half_life=1.0) == 1  # 0.469 ≤ 0.5
    assert conformal.quantile(scores, 0.4, half_life=1.0) == 5  # 0.75 ≤ 0.5 + 0.25
    assert conformal.quantile(scores, 0.45, half_life=1.0) == 9  # 0.844 ≤ 0.875
    assert conformal.quantile(scores, 0.5, half_life=1.0) == math.inf  # 0.9375 > 0.875


def test_a_score_is_the_factor_that_reaches_the_truth() -> None:
    median, lower, upper = np.float32([[2.0]]), np.float32([[[1.0]]]), np.float32([[[5.0]]])
    for truth, want in ((2.0, 0.0), (5.0, 1.0), (8.0, 2.0), (0.5, 1.5)):
        assert conformal.scores(median, lower, upper, np.array([[truth]])) == want
    flat = conformal.scores(median, median[None], median[None], np.array([[2.0]]))
    assert flat == 0
    assert conformal.scores(median, median[None], median[None], np.array([[2.1]])) == math.inf


def test_new_rows_are_covered() -> None:
    """1000 calibrations of 39 rows: a new row is covered with 80 % exactly, (n + 1)·0.8 being whole."""
    random = np.random.default_rng(0)
    scores = random.exponential(size=(39, 1000))
    factors = conformal.quantile(scores, 0.8)
    covered = (random.exponential(size=(200, 1000)) <= factors).mean()
    # The coverage of one calibration is Beta(32, 8): variance 0.0039; 1000 of them average it.
    assert abs(covered - 0.8) < 4 * math.sqrt(0.0039 / 1000 + 0.16 / 200_000)


# The artifact


def test_calibrated_intervals_cover_the_calibration_rows(noisy, format: str, rows) -> None:
    model, (x, y) = murho.load(noisy(format), trusted=True), rows
    before = model.predict(x, 500, LEVELS, SEED).coverage(y)
    found = model.calibrate(x, y, LEVELS, draws=500, seed=SEED)
    answer = model.predict(x, 500, LEVELS, SEED)
    inside = ((answer.lower <= y) & (y <= answer.upper)).mean(axis=1)
    assert (before < 0.7 * np.array(LEVELS)).all()
    for level, per_output in zip(LEVELS, inside, strict=True):
        np.testing.assert_allclose(per_output, math.ceil(301 * level) / 300, atol=1.1 / 300)  # the last by rounding
    assert found == model.card.calibration
    assert (found.levels, found.rows, found.half_life) == (LEVELS, 300, None)


def test_every_host_gets_the_same_ends(noisy, rows, tmp_path: Path) -> None:
    x, y = rows
    asked = np.float32([0.3, 0.5, 0.6, 0.8, 0.9, 0.95])
    feeds = {"x": x[:7], "draws": np.arange(200), "seed": np.array(SEED), "levels": asked}
    answers = []
    for format in ("onnx", "torchscript"):
        model, path = murho.load(noisy(format), trusted=True), tmp_path / f"calibrated{SUFFIX[format]}"
        model.calibrate(x, y, LEVELS, draws=200)
        model.save(path)
        ours = murho.load(path, trusted=True).predict(x[:7], 200, asked.tolist(), SEED)
        for on in (1.0, 0.0):
            if format == "onnx":
                session = onnxruntime.InferenceSession(path)
                host = session.run(None, {**feeds, "noise": np.array(on, np.float32)})
            else:
                inputs = (torch.from_numpy(np.asarray(v)) for v in (*feeds.values(), np.float32(on)))
                host = [part.numpy() for part in torch.jit.load(path)(*inputs)]
            want = ours if on else murho.load(path, trusted=True).predict(x[:7], 200, asked.tolist(), SEED, noise=False)
            for name, values in zip(("samples", "mean", "std", "lower", "upper"), host, strict=True):
                np.testing.assert_allclose(values, getattr(want, name), rtol=2e-5, atol=2e-5, err_msg=f"{name} {on}")
        answers.append(ours)
    np.testing.assert_allclose(answers[0].lower, answers[1].lower, rtol=2e-4, atol=2e-4)


def test_ends_by_numpy_in_float64(noisy, rows) -> None:
    """The calibrated ends written out once more, from the samples and the card alone."""
    model, (x, y) = murho.load(noisy("onnx")), rows
    found = model.calibrate(x, y, LEVELS, draws=200)
    answer = model.predict(x[:5], 200, [0.5, 0.65, 0.95], SEED)
    samples = answer.samples.astype(np.float64)
    median = np.median(samples, axis=0)
    for k, level in enumerate((0.5, 0.65, 0.95)):
        factor = np.array([np.interp(level, found.levels, [row[o] for row in found.factors]) for o in range(2)])
        low, high = (np.quantile(samples, (1 + sign * level) / 2, axis=0) for sign in (-1, 1))
        np.testing.assert_allclose(answer.lower[k], median - factor * (median - low), rtol=1e-5)
        np.testing.assert_allclose(answer.upper[k], median + factor * (high - median), rtol=1e-5)


def test_uncalibrated_ends_are_quantiles(noisy, format: str, rows) -> None:
    model, (x, y) = murho.load(noisy(format), trusted=True), rows
    before = model.predict(x[:5], 200, LEVELS, SEED)
    model.calibrate(x, y, LEVELS, draws=200)
    after = model.predict(x[:5], 200, LEVELS, SEED, calibrated=False)
    np.testing.assert_array_equal(before.lower, after.lower)
    np.testing.assert_array_equal(before.samples, model.predict(x[:5], 200, LEVELS, SEED).samples)


def test_a_saved_artifact_is_whole(noisy, format: str, rows, tmp_path: Path) -> None:
    model, (x, y) = murho.load(noisy(format), trusted=True), rows
    model.calibrate(x, y, half_life=100.0)
    path = tmp_path / f"calibrated{SUFFIX[format]}"
    model.save(path)
    again = murho.load(path, trusted=True)
    assert again.card == model.card
    assert again.card.calibration.half_life == 100
    np.testing.assert_array_equal(again.predict(x).lower, model.predict(x).lower)
    again.calibrate(x, y)  # anew, from the samples and not from what was stretched
    assert again.card.calibration == murho.load(noisy(format), trusted=True).calibrate(x, y)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        murho.load(path, trusted=True)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_usual_levels(noisy, rows) -> None:
    x, y = rows
    model = murho.load(noisy("onnx"))
    assert model.calibrate(x, y).levels == (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
    assert model.calibrate(x[:30], y[:30]).levels == (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


# What is refused


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda x, y: (x, y[:-1]), {}, r"y must be \[rows = 300, output = 2\], as was predicted, but is \(299, 2\)"),
        (lambda x, y: (x, y[:, :1]), {}, r"but is \(300, 1\)"),
        (lambda x, y: (x, np.where(np.arange(300)[:, None] == 7, np.nan, y)), {}, r"finite, but y\[7, 0\] is nan"),
        (lambda x, y: (np.where(x == x[3, 1], np.nan, x), y), {}, r"x must be finite, but x\[3, 1\]"),
        (lambda x, y: (x[:18], y[:18]), {}, r"Level 0.95 needs at least 19 calibration rows.*there are 18"),
        (lambda x, y: (x[:98], y[:98]), {"levels": [0.99]}, r"Level 0.99 needs at least 99 calibration rows"),
        (lambda x, y: (x, y), {"levels": [0.95], "half_life": 5.0}, "with a half-life of 5 weigh too little"),
        (lambda x, y: (x, y), {"half_life": 0}, "half_life must be a number of rows above 0"),
        (lambda x, y: (x, y), {"levels": [1.5]}, "level must lie between 0 and 1"),
        (lambda x, y: (x, y), {"levels": np.linspace(0.1, 0.9, 17).tolist()}, "16 levels at most, not 17"),
        (lambda x, y: (x, y.astype(str)), {}, "y must hold numbers"),
    ],
)  # fmt: skip
def test_bad_calibration_data(noisy, rows, change: Any, options: dict[str, Any], message: str) -> None:
    model = murho.load(noisy("onnx"))
    before = model.card
    with pytest.raises(InputError, match=message):
        model.calibrate(*change(*rows), **options)
    assert model.card is before


def test_levels_above_the_calibrated_ones(noisy, rows) -> None:
    model = murho.load(noisy("onnx"))
    model.calibrate(*rows, [0.8, 0.9])
    with pytest.raises(InputError, match=r"calibrated up to level 0\.9; 0\.95 was asked for"):
        model.predict(rows[0], level=0.95)
    assert model.predict(rows[0], level=0.95, calibrated=False).level == 0.95
    assert model.predict(rows[0], level=0.3).level == 0.3


def test_rows_that_training_saw(trained, dataset, tmp_path: Path) -> None:
    from murho.runtime.fingerprint import fingerprint

    path = tmp_path / "demo.onnx"
    to_onnx(
        trained, path, dataset.test.x[:16], scaling=dataset.scaling, noise=Noise(scale=(0.1,)), task="forecast",
        training={"fingerprint": fingerprint(dataset.train.x)},
    )  # fmt: skip
    model = murho.load(path, trusted=True)
    with pytest.raises(InputError, match="holds rows that the network was trained on"):
        model.calibrate(dataset.train.x[-500:], dataset.train.y[-500:])
    assert model.calibrate(dataset.calibration.x, dataset.calibration.y).rows == len(dataset.calibration)


def test_an_output_without_noise_and_spread(tmp_path: Path) -> None:
    path = tmp_path / "flat.onnx"
    torch.manual_seed(0)
    network = torch.nn.Sequential(Regressor(3, ()), torch.nn.ReLU())
    with torch.no_grad():
        network[0].layers[0].bias_sampler.mu.fill_(1.0)
    x = np.random.default_rng(0).uniform(-1, 0, (40, 3)).astype(np.float32)
    to_onnx(network, path, np.abs(x))
    with torch.no_grad():
        flat = -100 * np.ones((40, 3), np.float32)
        flat[:, :] = -100 * np.sign(network[0].layers[0].weight_sampler.mu.numpy())
    model = murho.load(path, trusted=True)
    assert np.ptp(model.samples(flat)) == 0
    with pytest.raises(InputError, match=r"intervals that have no length.*with observation noise"):
        model.calibrate(flat, np.arange(40.0))


def test_probabilities_are_not_calibrated(tmp_path: Path) -> None:
    path, x = tmp_path / "classes.onnx", np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    to_onnx(Regressor(3, outputs=2), path, x, task="classification")
    with pytest.raises(InputError, match="no probabilities"):
        murho.load(path, trusted=True).calibrate(x, np.zeros((40, 2)))


def test_saving_under_another_format(noisy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.onnx, not model\.pt"):
        murho.load(noisy("onnx")).save(tmp_path / "model.pt")
    with pytest.raises(InputError, match="Cannot write"):
        murho.load(noisy("onnx")).save(tmp_path / "nowhere" / "model.onnx")


def test_the_card_keeps_it() -> None:
    made = Calibration((0.5, 0.9), ((1.0, 2.0), (1.5, 2.5)), 100, 20.0, "abc")
    levels, factors = conformal.tables(made)
    assert levels.shape == (16,)
    assert factors.shape == (16, 2)
    asked = np.float32([0.1, 0.5, 0.7, 0.9, 0.99])
    np.testing.assert_allclose(
        conformal.factors_at(made, asked), [[1, 2], [1, 2], [1.25, 2.25], [1.5, 2.5], [1.5, 2.5]], rtol=1e-6
    )
