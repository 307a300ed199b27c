"""Observation noise in training: likelihoods against scipy, residual noise against what made the data."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import murho
from murho import InputError, Noise
from murho.export import to_onnx
from murho.models import Autoregressor, Forecaster, Regressor
from murho.train import Part, Series, fit, load_checkpoint, prepare, prepare_rows, residual_noise, standardise
from murho.train.likelihood import negative_log_likelihood


def series(values: np.ndarray) -> Series:
    return Series("made", "y", (), values.astype(np.float32)[:, None], np.arange(len(values)))


@pytest.mark.parametrize("noise", [Noise(), Noise("student-t", 3), Noise("student-t", 8)])
def test_the_likelihood_is_scipys(noise: Noise) -> None:
    random = np.random.default_rng(0)
    mean, r, truth = random.standard_normal((3, 50, 2)) * 2
    scale = np.logaddexp(0, r) + 0.001
    law = stats.t(noise.degrees, mean, scale) if noise.degrees else stats.norm(mean, scale)
    output = torch.from_numpy(np.concatenate([mean, r], axis=1))
    got = negative_log_likelihood(noise)(output, torch.from_numpy(truth)).item()
    assert got == pytest.approx(-law.logpdf(truth).sum(axis=1).mean(), rel=1e-12)


def test_a_learned_scale_is_learned() -> None:
    """y = 2x + noise of size 0.3 + x for x in 0 … 1."""
    random = np.random.default_rng(0)
    x = random.uniform(0, 1, (3000, 1))
    size = 0.3 + x
    data = prepare_rows(x, 2 * x + size * random.standard_normal((3000, 1)), name="made")
    torch.manual_seed(0)
    network = Regressor(1, (16,), learned_noise=True)
    fit(network, data, noise=Noise(), epochs=60, samples=1, batch_size=64, progress=False)
    rows = Part(np.float32([[0.2], [0.8]]), np.zeros((2, 1), np.float32), np.arange(2))
    asked, _ = standardise(rows, data.scaling)
    with torch.no_grad():
        output = torch.stack([network(torch.from_numpy(asked)) for _ in range(50)]).mean(dim=0).double().numpy()
    found = (np.logaddexp(0, output[:, 1]) + 0.001) * data.scaling.output_scale
    np.testing.assert_allclose(found, [0.5, 1.1], rtol=0.15)


@pytest.mark.parametrize(("distribution", "degrees"), [("gaussian", 0), ("student-t", 4)])
def test_residual_noise_is_what_made_the_data(distribution: str, degrees: int) -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal((4000, 2))
    unit = random.standard_t(degrees, (4000, 2)) if degrees else random.standard_normal((4000, 2))
    data = prepare_rows(x, x @ [[1.0, 0.0], [1.0, 2.0]] + np.array([0.5, 2.0]) * unit, name="made")
    torch.manual_seed(0)
    network = Regressor(2, (), 2)
    fit(network, data, epochs=25, samples=1, batch_size=64, progress=False)
    found = residual_noise(network, data, distribution, degrees)
    assert (found.distribution, found.degrees) == (distribution, degrees)
    # 420 residuals: a scale has a relative standard error of √(1 / 840) = 3.5 %, of a Student-t somewhat more
    np.testing.assert_allclose(np.array(found.scale) * data.scaling.output_scale, [0.5, 2.0], rtol=0.15)


def test_residual_noise_leaves_out_the_weights_doubt() -> None:
    """A network whose weights scatter by as much as the truth: half of the mean square is its own."""
    random = np.random.default_rng(2)
    x = np.ones((4000, 1)) + 0.01 * random.standard_normal((4000, 1))
    data = prepare_rows(x, random.standard_normal((4000, 1)), name="made")
    network = Regressor(1, ())
    layer = network.layers[0]
    with torch.no_grad():
        for name, values in layer.named_parameters():
            if name.endswith("_sampler.mu"):
                values.zero_()
            if name.endswith("_sampler.rho"):
                values.fill_(math.log(math.expm1(0.5)) if "bias" in name else -20)
    found = residual_noise(network, data)
    # var(y) = 1, of which 0.25 · (1 + 1/64) is taken off; the mean of 64 draws is off by 0.5 / 8
    assert found.scale[0] == pytest.approx(math.sqrt(0.75), abs=0.06)


def test_a_checkpoint_keeps_the_noise(tmp_path: Path) -> None:
    data = prepare(series(np.random.default_rng(0).standard_normal(200).cumsum() + 50), 5, 2, values="returns")
    path = tmp_path / "c.pt"
    network = Forecaster(hidden=3, horizon=2, learned_noise=True)
    fit(network, data, noise=Noise("student-t", 5), epochs=1, checkpoint=path, progress=False)
    loaded = load_checkpoint(path)
    assert loaded.noise == Noise("student-t", 5)
    assert loaded.network().config["learned_noise"] is True
    assert len(loaded.fingerprint) == len(set(loaded.fingerprint)) == min(256, len(data.train))
    with pytest.raises(InputError, match="trained with noise="):
        fit(network, data, noise=Noise(), epochs=2, checkpoint=path, resume=True, progress=False)


@pytest.mark.parametrize(
    ("network", "noise", "message"),
    [
        (Forecaster(hidden=2, horizon=2), Noise(), r"expected \[1, 4\].*learned_noise=True"),
        (Forecaster(hidden=2, horizon=2, learned_noise=True), None, r"gives shape \[1, 4\]"),
        (Forecaster(hidden=2, horizon=2), Noise(scale=(1.0, 1.0)), "Constant noise is fitted after the training"),
    ],
)
def test_noise_and_network_must_fit(network: torch.nn.Module, noise: Noise | None, message: str) -> None:
    data = prepare(series(np.arange(100.0) % 7 + 1), 5, 2)
    with pytest.raises(InputError, match=message):
        fit(network, data, noise=noise, epochs=1, progress=False)


def test_classes_have_no_noise() -> None:
    data = prepare_rows(np.eye(3).repeat(20, axis=0), np.arange(3).repeat(20), classes=["a", "b", "c"], name="made")
    with pytest.raises(InputError, match="classification has no observation noise"):
        fit(Regressor(3, outputs=6), data, noise=Noise(), epochs=1, progress=False)


# What the network sees of a series


@pytest.mark.parametrize("values", ["differences", "returns"])
def test_changes_are_scaled_by_their_root_mean_square(values: str) -> None:
    made = 100 * np.exp(0.02 * np.random.default_rng(0).standard_normal(300).cumsum())
    data = prepare(series(made), 6, 3, values=values)
    x, y = standardise(data.train, data.scaling)
    np.testing.assert_allclose(np.sqrt((x[:, :-1] ** 2).mean()), 1, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt((y**2).mean(axis=0)), 1, rtol=1e-5)
    assert (x[:, -1] == 0).all()
    last = data.train.x[:, -1:, 0].astype(np.float64)
    raw = y * data.scaling.output_scale
    want = last + (raw if values == "differences" else last * raw)
    np.testing.assert_allclose(want, data.train.y, rtol=1e-6)
    assert len(data.scaling.output_scale) == 3


@pytest.mark.parametrize("values", ["differences", "returns"])
def test_the_artifact_undoes_it(values: str, tmp_path: Path) -> None:
    """A network that answers 0 forecasts the last value, in any unit."""
    made = 100 * np.exp(0.02 * np.random.default_rng(0).standard_normal(300).cumsum())
    data = prepare(series(made), 6, 3, values=values)
    network = Autoregressor(6, horizon=3, hidden=(4,))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("_sampler.mu"):
                parameter.zero_()
            if name.endswith("_sampler.rho"):
                parameter.fill_(-9)
    to_onnx(network, tmp_path / "m.onnx", data.train.x[:16], scaling=data.scaling, task="forecast")
    answer = murho.load(tmp_path / "m.onnx").predict(data.test.x, 32)
    np.testing.assert_allclose(answer.mean, np.repeat(data.test.x[:, -1], 3, axis=1), rtol=1e-4)


def test_returns_need_values_above_zero() -> None:
    with pytest.raises(InputError, match=r"Returns need values above 0, but 'made' goes down to -1"):
        prepare(series(np.arange(100.0) % 7 - 1), 5, values="returns")
    with pytest.raises(InputError, match="A window of 1 row has no differences"):
        prepare(series(np.arange(100.0) % 7), 1, values="differences")
    with pytest.raises(InputError, match="not 'logs'"):
        prepare(series(np.arange(100.0) % 7), 5, values="logs")


# The network for long windows


def test_an_autoregressor_is_linear_plus_layers() -> None:
    torch.manual_seed(0)
    network = Autoregressor(5, 2, (4,), 3, learned_noise=True).eval()
    for layer in network.modules():
        if hasattr(layer, "freeze_"):
            layer.freeze_()
    x = torch.randn(7, 5, 2)
    y = network(x)
    assert y.shape == (7, 6)
    flat = x.flatten(1)
    torch.testing.assert_close(y[:, :3], network.layers(flat)[:, :3] + network.linear(flat))
    torch.testing.assert_close(y[:, 3:], network.layers(flat)[:, 3:])
    assert Autoregressor(**network.config).config == network.config
    assert Autoregressor(5)(torch.randn(2, 5, 1)).shape == (2, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "window must be a whole number of at least 1, got 0"),
        ({"hidden": ()}, "hidden must be a tuple of whole numbers of at least 1, 1 or more of them"),
        ({"learned_noise": 1}, "learned_noise must be True or False, got 1"),
    ],
)
def test_settings_of_an_autoregressor(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Autoregressor(**settings)
