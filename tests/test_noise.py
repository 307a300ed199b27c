"""Observation noise and paths: against the generator's numpy form, BLiTZ's own network, and closed forms."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from blitz.modules import BayesianGRU, BayesianLinear
from torch import nn

import murho
from murho import ExportError, InputError, Noise, Scaling
from murho.export import to_onnx, to_torchscript, verify
from murho.export.generator import normals
from murho.export.montecarlo import Plan
from murho.export.recognition import read_posteriors
from murho.export.reference import Reference, generator_epsilon
from murho.models import Regressor

SEED = 11
STREAM = 2**31
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
WRITE = {"onnx": to_onnx, "torchscript": to_torchscript}
SUFFIX = {"onnx": "onnx", "torchscript": "pt"}


class Last(nn.Module):
    """A linear function of the window's last row: an AR(1) process whose coefficient is not known."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.layer = BayesianLinear(1, 1, bias=False)
        set_posterior(self.layer, mean, std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, -1])


class Recurrent(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.gru, self.head = BayesianGRU(1, 4, posterior_rho_init=-2.0), nn.Linear(4, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0][:, -1])


def set_posterior(layer: nn.Module, mean: float, std: float) -> None:
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("_sampler.mu"):
                parameter.fill_(mean)
            if name.endswith("_sampler.rho"):
                parameter.fill_(math.log(math.expm1(std)))


def student(z: np.ndarray, degrees: int, n: int) -> np.ndarray:
    """[S, n] from the stream [S, n · (degrees + 1)]."""
    if not degrees:
        return z
    blocks = z.reshape(len(z), degrees + 1, n)
    return blocks[:, 0] / np.sqrt((blocks[:, 1:] ** 2).mean(axis=1))


def unit_noise(draws: np.ndarray, n: int, degrees: int) -> np.ndarray:
    return student(normals(draws, SEED, STREAM, n * (degrees + 1)), degrees, n)


# name: (network, values predicted in a pass, noise, horizon, scaling)
CASES: dict[str, tuple[Any, int, Noise | None, int, Scaling]] = {
    "constant": (lambda: Recurrent(2), 2, Noise(scale=(0.3, 0.6)), 1, Scaling((2.0,), (3.0,), (2.0,), (3.0,))),
    "constant, Student": (lambda: Recurrent(1), 1, Noise("student-t", 3, (0.4,)), 1, Scaling()),
    "learned": (lambda: Recurrent(4), 2, Noise(), 1, Scaling((0.0,), (3.0,), (0.0,), (2.0, 4.0), "differences")),
    "learned, Student": (
        lambda: Recurrent(4), 2, Noise("student-t", 5), 1, Scaling((0.0,), (0.3,), (0.0,), (0.2,), "returns"),
    ),
    "path without noise": (lambda: Recurrent(1), 1, None, 3, Scaling((2.0,), (3.0,), (2.0,), (3.0,))),
    "path": (
        lambda: Recurrent(1), 1, Noise("student-t", 4, (0.2,)), 4, Scaling((0.0,), (3.0,), values="differences"),
    ),
    "path, learned": (lambda: Recurrent(2), 1, Noise(), 3, Scaling((0.0,), (0.3,), (0.0,), (0.1,), "returns")),
}  # fmt: skip


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, made = tmp_path_factory.mktemp("noise"), {}

    def make(name: str, format: str) -> tuple[nn.Module, Path, np.ndarray]:
        if (name, format) not in made:
            build, _, noise, horizon, scaling = CASES[name]
            torch.manual_seed(3)
            network = build()
            x = np.random.default_rng(5).normal(20, 3, (9, 6, 1)).astype(np.float32)
            path = folder / f"{name}.{SUFFIX[format]}"
            WRITE[format](network, path, x, scaling=scaling, noise=noise, horizon=horizon)
            made[name, format] = network, path, x
        return made[name, format]

    return make


def rolled(name: str, network: nn.Module, x: np.ndarray, draws: np.ndarray, observed: bool) -> np.ndarray:
    """[S, B, O] in raw units: BLiTZ's network draw by draw in float64, noise and feeding back written out here."""
    _, width, noise, horizon, scaling = CASES[name]
    reference = Reference(network, read_posteriors(network), Plan(Scaling()))
    mean, scale = np.float32(scaling.input_mean), np.float32(scaling.input_scale)
    outputs = horizon if horizon > 1 else width
    epsilon = unit_noise(draws, outputs, noise.degrees) if noise and observed else np.zeros((len(draws), outputs))
    answers = []
    for draw, unit in zip(draws, epsilon, strict=True):
        window, steps = x, []
        for step in range(horizon):
            last = window[:, -1:]
            seen = {"levels": window, "differences": window - last, "returns": (window - last) / last}[scaling.values]
            inputs = torch.from_numpy((seen - mean) / scale)
            y = reference.given([inputs], [int(draw)], generator_epsilon(SEED))["output"][0]
            size = noise.scale if noise else 0.0
            if noise and noise.learned:
                y, r = y[:, : y.shape[1] // 2], y[:, y.shape[1] // 2 :]
                size = np.log1p(np.exp(r)) + 0.001
            y = y + np.asarray(size) * (unit[step : step + 1] if horizon > 1 else unit)
            y = y * scaling.output_scale + scaling.output_mean
            base = last[:, 0].astype(np.float64)
            y = {"levels": y, "differences": base + y, "returns": base * (1 + y)}[scaling.values]
            steps.append(y)
            window = np.concatenate([window[:, 1:], y[:, :1, None].astype(np.float32)], axis=1)
        answers.append(np.concatenate(steps, axis=1))
    return np.stack(answers)


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_samples_are_those_of_the_formula(case, format: str, name: str, observed: bool) -> None:
    network, path, x = case(name, format)
    draws = np.array([0, 3, 17, 2**32 - 1])
    got = murho.load(path, trusted=True).samples(x[:4], draws, SEED, noise=observed)
    want = rolled(name, network, x[:4], draws, observed)
    assert got.shape == want.shape
    # 1e-5 of the spread of the answers, and what float32 loses by storing them at their size
    np.testing.assert_allclose(got, want, rtol=3e-7, atol=1e-5 * np.abs(want - x[:4, -1:, 0]).max())


def test_noise_of_another_seed_or_draw_is_another(case, format: str) -> None:
    _, path, x = case("constant", format)
    model = murho.load(path, trusted=True)
    one = model.samples(x[:1], 64, SEED) - model.samples(x[:1], 64, SEED, noise=False)
    other = model.samples(x[:1], 64, SEED + 1) - model.samples(x[:1], 64, SEED + 1, noise=False)
    assert len(np.unique(one[:, 0, 0])) == 64
    assert abs(np.corrcoef(one[:, 0, 0], other[:, 0, 0])[0, 1]) < 6 / math.sqrt(64)


def test_student_noise_has_its_law() -> None:
    from scipy import stats

    unit = unit_noise(np.arange(20000), 1, 5)[:, 0]
    assert stats.kstest(unit, stats.t(5).cdf).pvalue > 1e-4
    assert stats.kstest(unit, stats.norm.cdf).pvalue < 1e-4  # and could be told from another


@pytest.mark.parametrize("name", ["learned, Student", "path"])
def test_verify_repeats_the_proof(case, format: str, name: str) -> None:
    network, path, x = case(name, format)
    assert verify(path, network, x, trusted=True)["passed"]


def test_a_wrong_noise_is_seen(case, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from murho.export import reference

    network, _, x = case("constant", format)
    _, _, noise, _, scaling = CASES["constant"]
    monkeypatch.setattr(reference, "unit_noise", lambda *_: np.zeros(2))
    with pytest.raises(ExportError, match="disagrees with BLiTZ at equal noise"):
        WRITE[format](network, tmp_path / f"wrong.{SUFFIX[format]}", x, scaling=scaling, noise=noise)


def test_a_foreign_host_gets_the_same(case) -> None:
    _, path, x = case("path", "onnx")
    session = onnxruntime.InferenceSession(path)
    assert [part.name for part in session.get_inputs()] == ["x", "draws", "seed", "levels", "noise"]
    for on in (0, 1):
        feeds = {"draws": np.arange(32), "seed": np.array(SEED), "levels": np.float32([0.5, 0.9])}
        got = session.run(None, {"x": x, **feeds, "noise": np.array(on, np.float32)})
        answer = murho.load(path, trusted=True).predict(x, 32, [0.5, 0.9], SEED, noise=bool(on))
        names = ("samples", "mean", "std", "lower", "upper")
        for name, values in zip(names, got, strict=True):
            np.testing.assert_allclose(values, getattr(answer, name), rtol=1e-5, atol=1e-5, err_msg=name)


# Known answers


def test_a_linear_gaussian_model(format: str, tmp_path: Path) -> None:
    network = nn.Sequential(BayesianLinear(2, 1))
    set_posterior(network[0], 0.5, 0.3)
    path, noise = tmp_path / f"linear.{SUFFIX[format]}", 0.8
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 2)).astype(np.float32)
    WRITE[format](network, path, x[:32], noise=Noise(scale=(noise,)), scaling=Scaling(output_scale=(2.0,)))
    model = murho.load(path, trusted=True)
    # The truth of each row has weights and noise of its own: the model's predictive law.
    ones = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    weights = 0.5 + 0.3 * rng.standard_normal(ones.shape)
    truth = 2 * (weights * ones).sum(axis=1) + 2 * noise * rng.standard_normal(len(x))
    check_coverage(model, x, truth[:, None])

    draws = 40_000
    answer = model.predict(x[:5], draws, seed=SEED, parts=True)
    epistemic = 4 * 0.3**2 * (ones[:5] ** 2).sum(axis=1)
    # A variance of S normal numbers has a relative standard error of √(2/S); the covariance of the parts is in the sum.
    allowed = 5 * math.sqrt(2 / draws)
    np.testing.assert_allclose(answer.epistemic[:, 0], epistemic, rtol=allowed)
    np.testing.assert_allclose(answer.std[:, 0] ** 2, epistemic + 4 * noise**2, rtol=allowed)
    both = epistemic + 4 * noise**2
    np.testing.assert_allclose(answer.aleatoric[:, 0], 4 * noise**2, atol=(2 * allowed * both).max())


def test_an_autoregression(format: str, tmp_path: Path) -> None:
    mean, std, noise, steps = 0.8, 0.05, 0.5, 7
    network, path = Last(mean, std), tmp_path / f"ar.{SUFFIX[format]}"
    rng = np.random.default_rng(2)
    x = rng.normal(0, 2, (800, 2, 1)).astype(np.float32)
    WRITE[format](network, path, x[:32], noise=Noise(scale=(noise,)), horizon=steps)
    model = murho.load(path, trusted=True)
    a = mean + std * rng.standard_normal(len(x))
    truth, y = [], x[:, -1, 0].astype(np.float64)
    for _ in range(steps):
        y = a * y + noise * rng.standard_normal(len(x))
        truth.append(y)
    check_coverage(model, x, np.stack(truth, axis=1))

    draws = 40_000
    start = np.float32([3.0])
    answer = model.predict(start.reshape(1, 1, 1).repeat(2, axis=1), draws, seed=SEED, parts=True)
    node, weight = np.polynomial.hermite_e.hermegauss(40)  # exact for polynomials in a up to degree 79
    weight = weight / weight.sum()
    power = (mean + std * node)[:, None] ** np.arange(steps + 1)
    first, second = weight @ power, weight @ power**2
    epistemic = 9 * (second - first**2)[1:]
    aleatoric = noise**2 * np.cumsum(second)[:-1]
    allowed = 6 * math.sqrt(2 / draws)
    np.testing.assert_allclose(
        answer.epistemic[0], epistemic, rtol=1.5 * allowed
    )  # powers of normals have heavier tails
    np.testing.assert_allclose(answer.std[0] ** 2, epistemic + aleatoric, rtol=1.5 * allowed)
    np.testing.assert_allclose(answer.aleatoric[0], aleatoric, atol=(2 * allowed * (epistemic + aleatoric)).max())


def check_coverage(model: murho.Model, x: np.ndarray, truth: np.ndarray) -> None:
    """Within three binomial standard errors, at every level and step.

    The rows share the draws, so that their number adds its own binomial error to all rows alike: there are many.
    """
    answers = [model.predict(x[k : k + 100], 20_000, LEVELS, SEED) for k in range(0, len(x), 100)]
    lower, upper = (np.concatenate([getattr(a, end) for a in answers], axis=1) for end in ("lower", "upper"))
    inside = ((lower <= truth) & (truth <= upper)).mean(axis=1)  # [K, O]
    level = np.array(LEVELS)[:, None]
    error = np.sqrt(level * (1 - level) / len(truth))
    assert (np.abs(inside - level) <= 3 * error).all(), (np.abs(inside - level) / error).round(1)


def test_weights_stay_the_same_along_a_path(tmp_path: Path) -> None:
    """Without noise an AR(1) path is y·a, y·a², …: a draw has one coefficient."""
    network, path = Last(0.9, 0.2), tmp_path / "ar.onnx"
    to_onnx(network, path, np.ones((4, 2, 1), np.float32), horizon=5)
    samples = (
        murho.load(path, trusted=True).samples(np.full((1, 2, 1), 2, np.float32), 50, SEED)[:, 0].astype(np.float64)
    )
    a = samples[:, 0] / 2
    assert a.std() > 0.1
    np.testing.assert_allclose(samples, 2 * a[:, None] ** np.arange(1, 6), rtol=1e-5)


def test_a_path_gives_the_law_of_a_sum(case) -> None:
    _, path, x = case("path", "onnx")
    samples = murho.load(path, trusted=True).samples(x[:1], 500, SEED)[:, 0]
    assert np.var(samples.sum(axis=1)) > 1.5 * samples.var(axis=0).sum()  # steps of a path hang together


# Errors


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (Recurrent(3), {"noise": Noise()}, r"a prediction and a scale for each value.*returns \[batch, 3\]"),
        (Recurrent(2), {"noise": Noise(scale=(1.0, 1.0, 1.0))}, "3 scales, but the network predicts 2 values"),
        (Recurrent(2), {"horizon": 3}, r"predicts the next value alone, \[batch, 1\]; it returns \[batch, 2\]"),
        (Recurrent(1), {"horizon": 0}, "horizon must be a whole number of steps of at least 1, not 0"),
        (Recurrent(2), {"horizon": 3, "noise": Noise(scale=(1.0,))}, "predicts the next value alone"),
    ],
)
def test_what_cannot_be_exported(network: nn.Module, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ExportError, InputError), match=message):
        to_onnx(network, tmp_path / "model.onnx", np.ones((4, 6, 1), np.float32), **options)
    assert not list(tmp_path.iterdir())


def test_a_path_needs_windows_of_one_column(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[batch, time, 1\]; example has shape \(4, 3\)"):
        to_onnx(Regressor(3), tmp_path / "model.onnx", np.ones((4, 3), np.float32), horizon=2)


def test_probabilities_have_no_noise(tmp_path: Path) -> None:
    network, x = Regressor(3, outputs=2), np.ones((4, 3), np.float32)
    with pytest.raises(InputError, match="Class probabilities have no observation noise"):
        to_onnx(network, tmp_path / "model.onnx", x, task="classification", noise=Noise())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cauchy",), "one of 'gaussian', 'student-t', not 'cauchy'"),
        (("student-t", 2), "a whole number of at least 3, not 2"),
        (("gaussian", 5), "0 for a Gaussian, not 5"),
        (("gaussian", 0, (-1.0,)), "finite numbers of at least 0"),
    ],
)
def test_noise_is_checked(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Noise(*arguments)


def test_values_are_checked() -> None:
    with pytest.raises(InputError, match="one of 'levels', 'differences', 'returns', not 'logs'"):
        Scaling(values="logs")
