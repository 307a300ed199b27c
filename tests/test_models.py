import itertools
import json

import pytest
import torch
from blitz.modules import BayesianConv2d, BayesianGRU, BayesianLinear, BayesianLSTM
from torch import nn

from murho.models import Classifier, Forecaster, Regressor
from murho.runtime.errors import InputError


def test_default_is_the_tutorials_network() -> None:
    torch.manual_seed(0)
    network = Forecaster()
    torch.manual_seed(0)
    recurrent = BayesianLSTM(1, 10, prior_sigma_1=1, prior_pi=1, posterior_rho_init=-3)
    head = nn.Linear(10, 1)
    x = torch.randn(4, 21, 1)
    torch.manual_seed(1)
    got = network(x)
    torch.manual_seed(1)
    expected = head(recurrent(x)[0][:, -1, :])
    assert got.shape == (4, 1)
    assert torch.equal(got, expected)
    assert torch.equal(network.nn_kl_divergence(), recurrent.log_variational_posterior - recurrent.log_prior)


@pytest.mark.parametrize(("cell", "layer"), [("lstm", BayesianLSTM), ("gru", BayesianGRU)])
def test_layers_features_and_horizon(cell: str, layer: type) -> None:
    network = Forecaster(features=3, hidden=4, layers=2, cell=cell, horizon=7)
    assert [type(part) for part in network.recurrent] == [layer, layer]
    assert [(part.in_features, part.out_features) for part in network.recurrent] == [(3, 4), (4, 4)]
    x = torch.randn(5, 6, 3)
    torch.manual_seed(1)
    got = network(x)
    torch.manual_seed(1)
    hidden, _ = network.recurrent[0](x)
    hidden, _ = network.recurrent[1](hidden)
    assert got.shape == (5, 7)
    assert torch.equal(got, network.head(hidden[:, -1, :]))


def test_wrapped_by_variational_estimator() -> None:
    network = Forecaster(hidden=3)
    x, y = torch.randn(4, 5, 1), torch.randn(4, 1)
    assert network.sample_elbo(inputs=x, labels=y, criterion=nn.MSELoss(), sample_nbr=2).requires_grad
    network.freeze_()
    assert torch.equal(network(x), network(x))
    network.unfreeze_()
    assert not torch.equal(network(x), network(x))


def test_prior_and_posterior_reach_every_layer() -> None:
    beliefs = {"prior_sigma_1": 0.5, "prior_pi": 0.25, "posterior_rho_init": -5.0, "prior_sigma_2": 0.1}
    network = Forecaster(layers=2, **beliefs)
    for layer in network.recurrent:
        assert {name: getattr(layer, name) for name in beliefs} == beliefs
        # ρ starts at -5 with standard deviation 0.1: the mean of 440 and more is within 5 standard errors
        assert abs(layer.weight_hh_sampler.rho.mean().item() + 5) < 5 * 0.1 / 400**0.5


def test_config_rebuilds_the_network() -> None:
    network = Forecaster(features=2, hidden=4, layers=2, cell="gru", horizon=3, prior_sigma_1=2, prior_pi=0.5)
    config = json.loads(json.dumps(network.config))
    twin = Forecaster(**config)
    assert twin.config == network.config
    twin.load_state_dict(network.state_dict())
    x = torch.randn(2, 5, 2)
    torch.manual_seed(0)
    expected = network(x)
    torch.manual_seed(0)
    assert torch.equal(twin(x), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0}, "features must be a whole number of at least 1, got 0"),
        ({"hidden": 2.0}, "hidden must be a whole number of at least 1, got 2.0"),
        ({"layers": True}, "layers must be a whole number of at least 1, got True"),
        ({"horizon": -1}, "horizon must be a whole number of at least 1, got -1"),
        ({"cell": "rnn"}, "cell must be one of 'lstm', 'gru', got 'rnn'"),
        ({"cell": ["lstm"]}, "cell must be one of"),
        ({"prior_sigma_1": 0}, "prior_sigma_1 must be a finite number above 0, got 0"),
        ({"prior_sigma_2": float("nan")}, "prior_sigma_2 must be a finite number above 0, got nan"),
        ({"prior_pi": 1.5}, "prior_pi must be a number from 0 to 1, got 1.5"),
        ({"posterior_rho_init": float("inf")}, "posterior_rho_init must be a finite number, got inf"),
        ({"posterior_rho_init": "-3"}, "posterior_rho_init must be a finite number, got '-3'"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Forecaster(**arguments)


# Tables and images

BELIEFS = {"prior_sigma_1": 0.5, "prior_pi": 0.25, "posterior_rho_init": -6.0, "prior_sigma_2": 0.1}


def bayesian(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, BayesianLinear | BayesianConv2d)]


@pytest.mark.parametrize(("hidden", "outputs"), [((50,), 1), ((), 2), ([8, 4, 3], 5)])
def test_regressor_is_linear_layers_with_relu_between(hidden: tuple, outputs: int) -> None:
    network = Regressor(3, hidden=hidden, outputs=outputs)
    layers = bayesian(network)
    sizes = [3, *hidden, outputs]
    assert [(layer.in_features, layer.out_features) for layer in layers] == list(itertools.pairwise(sizes))
    x = torch.randn(7, 3)
    torch.manual_seed(1)
    got = network(x)
    torch.manual_seed(1)
    expected = x
    for layer in layers[:-1]:
        expected = layer(expected).clamp(min=0)
    expected = layers[-1](expected)
    assert got.shape == (7, outputs)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("arguments", "shape", "flat"),
    [
        ({}, (1, 28, 28), 16 * 4 * 4),  # LeNet's own sizes
        ({"size": 8, "kernel": 3, "padding": 1}, (1, 8, 8), 16 * 2 * 2),
        ({"channels": 3, "size": 32, "filters": [4], "hidden": (), "classes": 2}, (3, 32, 32), 4 * 14 * 14),
        ({"size": 9, "filters": (2, 3, 4), "kernel": 3, "padding": 1}, (1, 9, 9), 4 * 1 * 1),  # odd sides: 9, 4, 2
    ],
)
def test_classifier_is_a_lenet(arguments: dict, shape: tuple, flat: int) -> None:
    network = Classifier(**arguments)
    convolutions = [layer for layer in bayesian(network) if isinstance(layer, BayesianConv2d)]
    linear = [layer for layer in bayesian(network) if isinstance(layer, BayesianLinear)]
    filters = list(arguments.get("filters", (6, 16)))
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == list(
        itertools.pairwise([shape[0], *filters])
    )
    assert linear[0].in_features == flat
    x = torch.randn(5, *shape)
    torch.manual_seed(1)
    got = network(x)
    torch.manual_seed(1)
    expected = x
    for layer in convolutions:
        expected = nn.functional.max_pool2d(layer(expected).clamp(min=0), 2)
    expected = expected.flatten(1)
    for layer in linear[:-1]:
        expected = layer(expected).clamp(min=0)
    assert got.shape == (5, arguments.get("classes", 10))
    assert torch.equal(got, linear[-1](expected))


@pytest.mark.parametrize("network", [Regressor(4, (8,)), Classifier(size=8, kernel=3, padding=1)])
def test_tables_and_images_are_wrapped_by_variational_estimator(network: nn.Module) -> None:
    x = torch.randn(4, 4) if isinstance(network, Regressor) else torch.randn(4, 1, 8, 8)
    y = torch.randn(4, 1) if isinstance(network, Regressor) else torch.tensor([0, 1, 2, 9])
    criterion = nn.MSELoss() if isinstance(network, Regressor) else nn.CrossEntropyLoss()
    assert network.sample_elbo(inputs=x, labels=y, criterion=criterion, sample_nbr=2).requires_grad
    network.freeze_()
    frozen = network(x)
    assert torch.equal(frozen, network(x))
    network.unfreeze_()
    assert not torch.equal(network(x), network(x))
    # The means were drawn anew in place: the frozen pass reads layer.weight_mu, sampling layer.weight_sampler.mu.
    for layer in bayesian(network):
        assert layer.weight_mu.data_ptr() == layer.weight_sampler.mu.data_ptr()


@pytest.mark.parametrize("make", [lambda: Regressor(40, (50, 60), **BELIEFS), lambda: Classifier(**BELIEFS)])
def test_beliefs_reach_every_layer_of_tables_and_images(make: object) -> None:
    torch.manual_seed(0)
    for layer in bayesian(make()):
        assert {name: getattr(layer, name) for name in BELIEFS} == BELIEFS
        rho = torch.cat([layer.weight_sampler.rho.flatten(), layer.bias_sampler.rho])
        assert abs(rho.mean().item() + 6) < 5 * 0.1 / len(rho) ** 0.5


def test_the_signal_keeps_its_size() -> None:
    """He et al. 2015: means from N(0, 2 / inputs) keep E[h²]; BLiTZ's own multiply it by 2.56 in each layer."""
    torch.manual_seed(0)
    x = torch.randn(200, 512)
    ours, blitz = Regressor(512, (512,) * 6), nn.Sequential(*[BayesianLinear(512, 512) for _ in range(6)])
    layers = bayesian(ours)
    signals = {"ours": x, "blitz": x}
    for layer, plain in zip(layers[:-1], blitz, strict=True):
        signals["ours"] = nn.functional.linear(signals["ours"], layer.weight_sampler.mu).clamp(min=0)
        signals["blitz"] = nn.functional.linear(signals["blitz"], plain.weight_sampler.mu).clamp(min=0)
    # Each layer of 512 multiplies E[h²] by 1 with a relative deviation of at most √(5 / 512) = 0.1: 0.24 after 6.
    assert signals["ours"].square().mean().item() == pytest.approx(1, abs=5 * 0.24)
    assert signals["ours"].square().mean().item() > 0.2
    assert signals["blitz"].square().mean().item() > 2.56**6 / 4
    last = layers[-1].weight_sampler.mu
    assert last.std().item() == pytest.approx((1 / 512) ** 0.5, rel=5 / (2 * 512) ** 0.5)


def test_means_of_a_convolution_count_its_kernel() -> None:
    torch.manual_seed(0)
    mean = bayesian(Classifier(channels=2, filters=(64,), kernel=5))[0].weight_sampler.mu
    assert mean.shape == (64, 2, 5, 5)
    assert mean.std().item() == pytest.approx((2 / 50) ** 0.5, rel=5 / (2 * mean.numel()) ** 0.5)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Regressor(3, (5, 4), 2, prior_sigma_1=2, prior_pi=0.5), (3,)),
        (Classifier(channels=2, size=12, classes=3, filters=(2,), kernel=3, padding=1, hidden=(7,)), (2, 12, 12)),
    ],
)
def test_config_rebuilds_tables_and_images(network: nn.Module, shape: tuple) -> None:
    twin = type(network)(**json.loads(json.dumps(network.config)))
    assert twin.config == network.config
    twin.load_state_dict(network.state_dict())
    x = torch.randn(2, *shape)
    torch.manual_seed(0)
    expected = network(x)
    torch.manual_seed(0)
    assert torch.equal(twin(x), expected)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Regressor, {"features": 0}, "features must be a whole number of at least 1, got 0"),
        (Regressor, {"features": 1, "outputs": 0}, "outputs must be a whole number of at least 1, got 0"),
        (Regressor, {"features": 1, "hidden": 50}, "hidden must be a tuple of whole numbers of at least 1, got 50"),
        (Regressor, {"features": 1, "hidden": (5, 0)}, r"hidden must be a tuple of whole .* got \(5, 0\)"),
        (Regressor, {"features": 1, "hidden": "5"}, "hidden must be a tuple of whole numbers of at least 1, got '5'"),
        (Regressor, {"features": 1, "prior_sigma_1": 0}, "prior_sigma_1 must be a finite number above 0, got 0"),
        (
            Regressor,
            {"features": 1, "posterior_rho_init": True},
            "posterior_rho_init must be a finite number, got True",
        ),
        (Classifier, {"channels": 0}, "channels must be a whole number of at least 1, got 0"),
        (Classifier, {"size": 28.0}, "size must be a whole number of at least 1, got 28.0"),
        (Classifier, {"kernel": (5, 5)}, r"kernel must be a whole number of at least 1, got \(5, 5\)"),
        (Classifier, {"classes": 1}, "classes must be a whole number of at least 2, got 1"),
        (Classifier, {"padding": -1}, "padding must be a whole number of at least 0, got -1"),
        (Classifier, {"filters": ()}, r"filters must be a tuple of whole numbers .*, 1 or more of them, got \(\)"),
        (Classifier, {"prior_pi": 2}, "prior_pi must be a number from 0 to 1, got 2"),
        (
            Classifier,
            {"size": 8},
            "becomes too small: convolution 2 of 2 gets 2 × 2 pixels, and with kernel=5 and padding=0 leaves fewer "
            "than the 2 × 2 that pooling needs. Give a larger size or padding, a smaller kernel, or fewer filters",
        ),
        (Classifier, {"size": 5}, "too small: convolution 1 of 2 gets 5 × 5 pixels"),
    ],
)
def test_bad_arguments_of_tables_and_images(make: type, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**arguments)


def test_the_smallest_image() -> None:
    assert Classifier(size=16)(torch.zeros(1, 1, 16, 16)).shape == (1, 10)  # 16 → 12 → 6 → 2 → 1
    with pytest.raises(InputError, match="becomes too small"):
        Classifier(size=15)
