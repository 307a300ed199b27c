import json

import pytest
import torch
from blitz.modules import BayesianGRU, BayesianLSTM
from torch import nn

from murho.models import Forecaster
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
