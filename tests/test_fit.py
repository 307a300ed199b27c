import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from blitz.modules import BayesianGRU, BayesianLinear, BayesianLSTM
from torch import nn

from murho.models import Forecaster
from murho.runtime.errors import ArtifactError, InputError, MurhoError
from murho.train import Dataset, Series, fit, load_checkpoint, prepare, save_checkpoint
from murho.train.elbo import elbo_backward
from murho.train.weights_file import to_bytes

FAST = {"epochs": 3, "batch_size": 16, "samples": 2, "learning_rate": 0.02, "progress": False}


def dataset(horizon: int = 1, rows: int = 150, features: int = 1) -> Dataset:
    noise = np.random.default_rng(0).standard_normal((rows, features))
    values = 50 + 5 * np.sin(np.arange(rows) / 4)[:, None] + 0.3 * noise
    names = tuple(f"f{k}" for k in range(1, features))
    series = Series("wave", "t", names, values.astype(np.float32), np.arange(rows), ("One repair.",))
    return prepare(series, window=6, horizon=horizon)


def forecaster(seed: int = 0, **settings: object) -> Forecaster:
    torch.manual_seed(seed)
    return Forecaster(**{"hidden": 3, **settings})


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items() if not key.endswith("eps_w")}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class CtrlC:
    """Mean squared error that is interrupted at its n-th call."""

    def __init__(self, at: int) -> None:
        self.calls, self.at = 0, at

    def __call__(self, prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return nn.functional.mse_loss(prediction, y)


def calls_per_epoch(data: Dataset) -> int:
    windows = len(data.train) - round(0.15 * len(data.train))
    return 2 * -(-windows // FAST["batch_size"]) + 8  # 2 samples for each batch, then 8 of the validation windows


# The loss and its gradient


def one_weight() -> tuple[BayesianLinear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return BayesianLinear(1, 1, bias=False, prior_sigma_1=1.0, prior_pi=1.0, posterior_rho_init=-1.0), *torch.randn(
        2, 8, 1
    )


def closed_form(layer: BayesianLinear, x: torch.Tensor, y: torch.Tensor, epsilon: torch.Tensor, weight: float) -> dict:
    """Gradients for w = μ + σ ε, prior N(0, 1), q = N(μ, σ²), of mean_k [mean (w x - y)² + KL_k · weight].

    log q(w) = -log σ - ε²/2 + const, log p(w) = -w²/2 + const. BLiTZ adds 1e-6 to the prior's density, which changes
    the slope of log p by less than 1e-4 of itself here.
    """
    mu, rho = layer.weight_sampler.mu.double(), layer.weight_sampler.rho.double()
    sigma = torch.log1p(torch.exp(rho))
    w = mu + sigma * epsilon.double()  # (K, 1, 1)
    slope = (2 * (w * x.double() - y.double()) * x.double()).mean(1, keepdim=True) + weight * w
    mean_mu = slope.mean().item()
    mean_sigma = ((slope * epsilon).mean() - weight / sigma).item()
    return {"mu": mean_mu, "rho": mean_sigma * torch.sigmoid(rho).item(), "sigma": sigma.item()}


def test_gradient_against_the_closed_form_and_blitz() -> None:
    layer, x, y = one_weight()
    samples, weight = 4, 0.1
    torch.manual_seed(1)
    epsilon = torch.stack([torch.empty(1, 1).normal_() for _ in range(samples)])

    torch.manual_seed(1)
    elbo_backward(layer, x, y, nn.functional.mse_loss, samples, weight)
    expected = closed_form(layer, x, y, epsilon, weight)
    assert layer.weight_sampler.mu.grad.item() == pytest.approx(expected["mu"], rel=1e-3)
    assert layer.weight_sampler.rho.grad.item() == pytest.approx(expected["rho"], rel=1e-3)

    # BLiTZ's own loss over four samples: the mean's slope is right, the deviation's uses the last ε for all samples.
    layer.zero_grad()
    torch.manual_seed(1)
    loss = 0
    for _ in range(samples):
        loss += nn.functional.mse_loss(layer(x), y) + (layer.log_variational_posterior - layer.log_prior) * weight
    (loss / samples).backward()
    assert layer.weight_sampler.mu.grad.item() == pytest.approx(expected["mu"], rel=1e-3)
    assert layer.weight_sampler.rho.grad.item() != pytest.approx(expected["rho"], rel=0.1)


def test_blitz_shrinks_the_slope_of_sigma_to_a_kth() -> None:
    """With y = 0, x = 1 and μ = 0 the mean slope of E[w²] in σ is 2σ E[ε²] = 2σ; BLiTZ's with K samples 2σ / K."""
    torch.manual_seed(2)
    samples, replicas = 5, 4000
    layer = BayesianLinear(1, replicas, bias=False, posterior_rho_init=-1.0)
    layer.weight_sampler.mu.data.zero_()
    rho = layer.weight_sampler.rho
    expected = 2 * nn.functional.softplus(rho) * torch.sigmoid(rho)  # dσ/dρ = sigmoid(ρ)
    x = torch.ones(1, 1)

    def squares(w: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return (w**2).sum()

    (sum(squares(layer(x), x) for _ in range(samples)) / samples).backward()
    blitz = (rho.grad / expected).mean().item()
    layer.zero_grad()
    elbo_backward(layer, x, x, squares, samples, 0.0)
    ours = (rho.grad / expected).mean().item()
    # A replica's ratio is mean_k ε_k² here, of variance 2 / K: standard error 0.01. BLiTZ's is ε_K · mean_k ε_k, of
    # variance (K + 1) / K²: standard error 0.008. Bounds at 5 of them.
    assert blitz == pytest.approx(1 / samples, abs=0.04)
    assert ours == pytest.approx(1, abs=0.05)


def test_gradient_against_finite_differences() -> None:
    network = forecaster(layers=2).double()
    x, y = torch.randn(4, 5, 1, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)

    def loss() -> float:
        torch.manual_seed(3)
        return sum(elbo_backward(network, x, y, nn.functional.mse_loss, 3, 0.01))

    original = torch.zeros
    torch.zeros = lambda *size, **options: original(*size, **{"dtype": torch.float64, **options})  # BLiTZ's first state
    try:
        loss()
        gradients = {
            name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
        }
        checked = [
            name for name in gradients if name.endswith(("sampler.rho", "sampler.mu")) or name.startswith("head")
        ]
        assert len(checked) == 14
        for name in checked:
            parameter = network.get_parameter(name).data.view(-1)
            step = 1e-6
            parameter[0] += step
            above = loss()
            parameter[0] -= 2 * step
            below = loss()
            parameter[0] += step
            assert (above - below) / (2 * step) == pytest.approx(gradients[name].view(-1)[0].item(), rel=1e-5, abs=1e-8)
    finally:
        torch.zeros = original


def test_loss_is_the_one_of_blitz() -> None:
    network = forecaster(layers=2)
    x, y = torch.randn(4, 5, 1), torch.randn(4, 1)
    torch.manual_seed(1)
    _, _, likelihood, complexity = network.sample_elbo_detailed_loss(x, y, nn.MSELoss(), 3, 0.01)
    torch.manual_seed(1)
    ours = elbo_backward(network, x, y, nn.functional.mse_loss, 3, 0.01)
    assert ours == pytest.approx((likelihood.item(), complexity.item()), rel=1e-6)


def test_frozen_and_unused_layers_add_nothing() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.frozen, self.unused = (BayesianLinear(1, 1) for _ in range(3))
            self.frozen.freeze = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(self.frozen(x))

    network = Branches()
    x = torch.randn(4, 1)
    network.unused(x).sum().backward()
    network.zero_grad()
    for _ in range(2):
        _, complexity = elbo_backward(network, x, x, nn.functional.mse_loss, 1, 1.0)
    used = network.used.log_variational_posterior - network.used.log_prior
    assert complexity == pytest.approx(used.item())
    assert network.unused.weight_sampler.rho.grad is None


# Training


@pytest.mark.parametrize("settings", [{}, {"cell": "gru"}, {"layers": 2, "features": 2, "horizon": 3}])
def test_learns_a_wave(settings: dict) -> None:
    data = dataset(settings.get("horizon", 1), rows=300, features=settings.get("features", 1))
    network = forecaster(hidden=6, posterior_rho_init=-5.0, **settings)
    history = fit(
        network, data, **{**FAST, "epochs": 12, "batch_size": 32, "learning_rate": 0.05}, complexity_weight=1e-5
    )
    # In standardised units a forecast of the mean has a loss of about 1.
    assert history.best_validation < 0.2
    assert history.likelihood[-1] < 0.5 * history.likelihood[0]
    assert (history.epochs, history.interrupted) == (12, False)
    assert history.best_validation == min(history.validation)
    assert history.best_epoch == 1 + int(np.argmin(history.validation))


class Own(nn.Module):
    """Not wrapped by variational_estimator, with an (output, state) pair and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = BayesianLSTM(1, 3)
        self.second = BayesianGRU(3, 3, freeze=True)
        self.last = BayesianLinear(3, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, _ = self.first(x)
        x, state = self.second(x)
        return self.last(x[:, -1, :]), state


def test_a_users_own_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Own()
    before = weights(network)
    history = fit(network, dataset(), **FAST, checkpoint=tmp_path / "own.pt")
    after = weights(network)
    assert history.epochs == 3
    assert not torch.equal(before["first.weight_ih_sampler.mu"], after["first.weight_ih_sampler.mu"])
    assert torch.equal(before["second.weight_ih_sampler.rho"], after["second.weight_ih_sampler.rho"])
    assert network.second.freeze
    checkpoint = load_checkpoint(tmp_path / "own.pt")
    assert checkpoint.kind.endswith(".Own")
    with pytest.raises(InputError, match=r"holds the weights of .*Own, which murho cannot build"):
        checkpoint.network()
    other = Own()
    checkpoint.restore(other)
    assert same(weights(other), after)
    with pytest.raises(InputError, match="The checkpoint belongs to another network"):
        checkpoint.restore(forecaster())


def test_means_that_came_loose_train_too(tmp_path: Path) -> None:
    """`.double().float()` unties layer.weight_mu from its sampler; training moves the sampler's only."""
    network = forecaster().double().float()
    stale = network.recurrent[0].weight_ih_mu.clone()
    fit(network, dataset(), **FAST, checkpoint=tmp_path / "c.pt")
    sampler = network.recurrent[0].weight_ih_sampler
    assert torch.equal(network.recurrent[0].weight_ih_mu, stale)
    assert not torch.equal(sampler.mu, stale)
    rebuilt = load_checkpoint(tmp_path / "c.pt").network()
    assert torch.equal(rebuilt.recurrent[0].weight_ih_sampler.mu, sampler.mu)


def test_same_seed_same_result() -> None:
    results = []
    for seed in (0, 0, 1):
        network = forecaster()
        results.append((fit(network, dataset(), **FAST, seed=seed), weights(network)))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_threads_are_put_back() -> None:
    before, seen = torch.get_num_threads(), set()

    def record(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return nn.functional.mse_loss(prediction, y)

    fit(forecaster(), dataset(), **{**FAST, "epochs": 1}, threads=before + 1, criterion=record)
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


def test_random_state_outside_is_left_alone() -> None:
    network = forecaster()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit(network, dataset(), **FAST)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
    torch.manual_seed(99)
    again = forecaster()
    torch.manual_seed(99)
    fit(again, dataset(), **FAST)
    assert same(weights(again), weights(network))


@pytest.mark.parametrize("horizon", [1, 4])
def test_what_is_trained_on_and_what_validates(horizon: int) -> None:
    data = dataset(horizon)
    values = {True: set(), False: set()}  # keyed by: with gradient

    def record(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raw = y.detach().numpy() * data.scaling.output_scale[0] + data.scaling.output_mean[0]
        values[torch.is_grad_enabled()].update(np.round(raw, 3).ravel().tolist())
        return nn.functional.mse_loss(prediction, y)

    fit(forecaster(horizon=horizon), data, **{**FAST, "epochs": 1}, criterion=record)
    count = len(data.train)
    kept = count - round(0.15 * count)
    expected = {
        True: data.train.y[: kept - (horizon - 1)],
        False: data.train.y[kept:],
    }
    for key, y in expected.items():
        assert values[key] == set(np.round(y, 3).ravel().tolist())
    assert not values[True] & values[False]


def test_early_stopping_restores_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.0, 2.1, 1.0])
    seen = []

    def planned(network: nn.Module, *_: object, **__: object) -> float:
        seen.append(weights(network))
        return next(losses)

    monkeypatch.setattr(sys.modules["murho.train.fit"], "sampled_loss", planned)
    network = forecaster()
    history = fit(network, dataset(), **{**FAST, "epochs": 6}, patience=3)
    assert history.validation == (3.0, 2.0, 2.5, 2.0, 2.1)
    assert (history.best_epoch, history.best_validation, history.waited) == (2, 2.0, 3)
    assert same(weights(network), seen[1])
    assert not same(seen[1], seen[4])
    assert not network.training


def test_complexity_weight_is_one_by_the_number_of_training_windows(tmp_path: Path) -> None:
    data = dataset()
    fit(forecaster(), data, **FAST, checkpoint=tmp_path / "c.pt")
    kept = len(data.train) - round(0.15 * len(data.train))
    assert load_checkpoint(tmp_path / "c.pt").settings["complexity_weight"] == 1 / kept


def test_progress_shows_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    history = fit(forecaster(), dataset(), **{**FAST, "progress": True})
    shown = " ".join(capsys.readouterr().err.split())
    assert "3/3" in shown
    for name in ("likelihood", "complexity", "validation"):
        assert f"{name} {getattr(history, name)[-1]:.3g}" in shown


# Interrupt and resume


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    settings = {**FAST, "epochs": 5}
    network = forecaster(layers=2)
    whole = fit(network, dataset(), **settings, checkpoint=tmp_path / "whole.pt")
    parts = forecaster(layers=2)
    for epochs in (2, 3, 5):
        torch.manual_seed(epochs)
        history = fit(
            parts, dataset(), **{**settings, "epochs": epochs}, checkpoint=tmp_path / "p.pt", resume=epochs > 2
        )
        parts = forecaster(seed=epochs, layers=2)
    one, other = load_checkpoint(tmp_path / "whole.pt"), load_checkpoint(tmp_path / "p.pt")
    assert history == whole == one.history == other.history
    assert same(one.state, other.state)
    assert same(one.current, other.current)
    assert one.optimizer["param_groups"] == other.optimizer["param_groups"]
    for key, state in one.optimizer["state"].items():
        assert same(state, other.optimizer["state"][key])


def test_interrupted_in_an_epoch_then_resumed(tmp_path: Path) -> None:
    data, path = dataset(), tmp_path / "c.pt"
    settings = {**FAST, "epochs": 4}
    network = forecaster()
    whole = fit(network, data, **settings)

    halted = forecaster()
    history = fit(halted, data, **settings, criterion=CtrlC(2 * calls_per_epoch(data) + 3), checkpoint=path)
    assert (history.interrupted, history.epochs) == (True, 2)
    assert history.validation == whole.validation[:2]
    checkpoint = load_checkpoint(path)
    assert checkpoint.history == history
    assert same(weights(halted), checkpoint.state)

    resumed = forecaster(seed=5)
    assert fit(resumed, data, **settings, checkpoint=path, resume=True) == whole
    assert same(weights(resumed), weights(network))


def test_interrupted_in_the_first_epoch(tmp_path: Path) -> None:
    network = forecaster()
    before = weights(network)
    history = fit(network, dataset(), **FAST, criterion=CtrlC(5), checkpoint=tmp_path / "c.pt")
    assert (history.interrupted, history.epochs, history.best_epoch) == (True, 0, 0)
    assert same(weights(network), before)
    assert list(tmp_path.iterdir()) == []


def test_resume_of_a_finished_training_changes_nothing(tmp_path: Path) -> None:
    network = forecaster()
    history = fit(network, dataset(), **FAST, checkpoint=tmp_path / "c.pt")
    other = forecaster(seed=7)
    assert fit(other, dataset(), **FAST, checkpoint=tmp_path / "c.pt", resume=True) == history
    assert same(weights(other), weights(network))


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    fit(forecaster(), dataset(), **FAST, checkpoint=path)
    before = path.read_bytes()
    for change, message in (
        ({"seed": 1}, "trained with seed=0, now it is 1"),
        ({"learning_rate": 0.5}, "trained with learning_rate=0.02, now it is 0.5"),
        ({"samples": 3}, "trained with samples=2, now it is 3"),
    ):
        with pytest.raises(InputError, match=message):
            fit(forecaster(), dataset(), **{**FAST, **change}, checkpoint=path, resume=True)
    with pytest.raises(InputError, match="trained with complexity_weight="):
        fit(forecaster(), dataset(rows=160), **FAST, checkpoint=path, resume=True)
    data = dataset()
    moved = dataclasses.replace(data, train=dataclasses.replace(data.train, y=data.train.y + 1))
    with pytest.raises(InputError, match="trained with data_sha256="):
        fit(forecaster(), moved, **FAST, checkpoint=path, resume=True)
    with pytest.raises(InputError, match="The checkpoint belongs to another network"):
        fit(forecaster(hidden=4), dataset(), **FAST, checkpoint=path, resume=True)
    assert path.read_bytes() == before


# Things that go wrong


def test_a_loss_that_is_not_finite() -> None:
    data = dataset()
    network = forecaster()
    fit(network, data, **{**FAST, "epochs": 2})
    expected = weights(network)

    def breaks(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        breaks.calls += 1
        loss = nn.functional.mse_loss(prediction, y)
        return loss * float("nan") if breaks.calls > 2 * calls_per_epoch(data) else loss

    breaks.calls = 0
    network = forecaster()
    with pytest.raises(MurhoError, match=r"training loss became nan in epoch 3\. .* Lower the learning rate"):
        fit(network, data, **FAST, criterion=breaks)
    assert same(weights(network), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, got 1.5"),
        ({"samples": 0}, "samples must be a whole number"),
        ({"threads": 0}, "threads must be a whole number"),
        ({"patience": 0}, "patience must be a whole number"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number above 0, got nan"),
        ({"complexity_weight": -1}, "complexity_weight must be a finite number of at least 0, got -1"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"resume": True}, "resume=True needs the checkpoint"),
        ({"checkpoint": "/no/such/folder/c.pt"}, "There is no folder '/no/such/folder' for the checkpoint"),
        ({"checkpoint": "."}, r"The checkpoint '\.' is a folder"),
        ({"checkpoint": "nowhere.pt", "resume": True}, "There is no checkpoint 'nowhere.pt'"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(forecaster(), dataset(), **{**FAST, **change})


def test_networks_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="Linear has no BLiTZ layer that samples"):
        fit(nn.Linear(1, 1), dataset(), **FAST)
    frozen = forecaster()
    frozen.freeze_()
    with pytest.raises(InputError, match="Forecaster has no BLiTZ layer that samples"):
        fit(frozen, dataset(), **FAST)
    with pytest.raises(
        InputError, match=r"gives shape \[1, 2\] for one window, expected \[1, 1\]\. Build it for the h"
    ):
        fit(forecaster(horizon=2), dataset(), **FAST)
    with pytest.raises(InputError, match=r"cannot take an input of shape \[1, 6, 1\]"):
        fit(forecaster(features=2), dataset(), **FAST)


def test_too_few_windows_for_validation() -> None:
    data = dataset(horizon=4)
    short = dataclasses.replace(data, train=dataclasses.replace(data.train, x=data.train.x[:4], y=data.train.y[:4]))
    with pytest.raises(
        InputError, match="The training part has 4 windows, too few to keep some for validation at horizon 4"
    ):
        fit(forecaster(horizon=4), short, **FAST)


# Checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Forecaster]:
    path = tmp_path_factory.mktemp("trained") / "checkpoint.pt"
    network = forecaster(features=2, layers=2)
    fit(network, dataset(features=2), **FAST, checkpoint=path)
    return path, network


def test_checkpoint_is_weights_only_and_complete(trained: tuple[Path, Forecaster]) -> None:
    path, network = trained
    raw = torch.load(path, weights_only=True)
    assert (raw["format"], raw["schema"]) == ("murho.checkpoint", 4)
    assert not any("eps_w" in key for part in ("state", "current") for key in raw[part])
    checkpoint, data = load_checkpoint(path), dataset(features=2)
    assert (checkpoint.kind, checkpoint.config) == ("Forecaster", network.config)
    assert checkpoint.scaling == data.scaling
    for name in ("window", "horizon", "target", "features", "splits", "repairs", "name"):
        assert getattr(checkpoint, name) == getattr(data, name)
    assert checkpoint.history.epochs == 3
    summary = json.loads(json.dumps(checkpoint.summary()))
    assert summary["repairs"] == ["One repair."]
    assert summary["best_validation"] == checkpoint.history.best_validation


def test_checkpoint_network_is_the_trained_one(trained: tuple[Path, Forecaster]) -> None:
    path, network = trained
    rebuilt = load_checkpoint(path).network()
    x = torch.randn(3, 6, 2)
    torch.manual_seed(0)
    expected = network(x)
    torch.manual_seed(0)
    assert torch.equal(rebuilt(x), expected)
    assert not torch.equal(rebuilt(x), rebuilt(x))
    assert not rebuilt.training


def test_noise_buffers_do_not_matter(trained: tuple[Path, Forecaster], tmp_path: Path) -> None:
    network = forecaster()
    for layer in network.recurrent:
        layer.bias_sampler.eps_w.fill_(float("nan"))
    fit(network, dataset(), **FAST, checkpoint=tmp_path / "c.pt")
    assert all(value.isfinite().all() for value in load_checkpoint(tmp_path / "c.pt").state.values())


def test_save_writes_all_or_nothing(
    trained: tuple[Path, Forecaster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(trained[0])
    path = tmp_path / "c.pt"
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()

    def fails(data: object, file: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, checkpoint)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_save_where_it_cannot(trained: tuple[Path, Forecaster], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot write .*: there is no folder"):
        save_checkpoint(tmp_path / "missing" / "c.pt", load_checkpoint(trained[0]))


def test_bad_files(trained: tuple[Path, Forecaster], tmp_path: Path) -> None:
    good = trained[0].read_bytes()
    middle = len(good) // 2
    contents = {
        "empty": b"",
        "text": b"Date,Close\n" * 100,
        "truncated": good[:-100],
        "half": good[:middle],
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=f"{name}' is not a checkpoint, or is damaged"):
            load_checkpoint(path)
    with pytest.raises(InputError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "nowhere.pt")


def test_tampered_weights(trained: tuple[Path, Forecaster], tmp_path: Path) -> None:
    good = trained[0].read_bytes()
    value = load_checkpoint(trained[0]).state["head.weight"].numpy().tobytes()
    place = good.index(value)
    (tmp_path / "c.pt").write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    with pytest.raises(ArtifactError, match=r"is not a checkpoint, or is damaged .its checksum differs"):
        load_checkpoint(tmp_path / "c.pt")


def test_foreign_and_altered_files(trained: tuple[Path, Forecaster], tmp_path: Path) -> None:
    raw = torch.load(trained[0], weights_only=True)
    path = tmp_path / "c.pt"
    less = {key: value for key, value in raw.items() if key != "window"}
    for content, message in (
        (dict(forecaster().state_dict()), "is not a checkpoint of murho"),
        ([1, 2], "its values have no names"),
        ({**raw, "schema": 1}, r"has checkpoint schema 1; this murho reads 4\. .* or train again"),
        (less, "lacks or garbles a field .*window"),
        ({**raw, "history": 3}, "lacks or garbles a field"),
    ):
        path.write_bytes(to_bytes(content))
        with pytest.raises(ArtifactError, match=message):
            load_checkpoint(path)
    path.write_bytes(to_bytes({**raw, "config": {**raw["config"], "hidden": 5}}))
    with pytest.raises(ArtifactError, match="The checkpoint's weights and settings do not agree"):
        load_checkpoint(path).network()
    path.write_bytes(to_bytes(nn.Linear(1, 1)))  # a pickled module
    with pytest.raises(ArtifactError, match="is not a checkpoint, or is damaged"):
        load_checkpoint(path)
