"""Where BLiTZ behaves otherwise than one may think: what BLiTZ does, then what murho does about it."""

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from blitz.modules import BayesianConv1d, BayesianConv2d, BayesianEmbedding, BayesianGRU, BayesianLinear, BayesianLSTM
from blitz.modules.weight_sampler import TrainableRandomDistribution
from blitz.utils import variational_estimator
from blitz.utils.layer_wrappers import Flipout, Radial
from onnx.numpy_helper import to_array
from torch import nn
from torch.nn.functional import dropout

import murho
from murho.export import to_onnx, to_torchscript
from murho.export.generator import normals
from murho.runtime.artifact import SUFFIXES

EXPORTS = {"onnx": to_onnx, "torchscript": to_torchscript}
RHO = {"posterior_rho_init": -2.0}
SURE = {"posterior_rho_init": -30.0}  # σ = 1e-13: BLiTZ's sampled forward pass at its means


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@variational_estimator
class Forward(nn.Module):
    """A network whose forward is given."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward(self, x)


def rows(*sizes: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(sizes, dtype=np.float32)


def frozen(layer: Any) -> Any:
    layer.freeze = True
    return layer


def beside(layer: nn.Module, take: Callable[[Any], torch.Tensor] = lambda y: y) -> nn.Module:
    """A network with an output of its layer, and another that is random, without which there is no export."""
    return Forward(
        lambda net, x: {"layer": take(net.layer(x)), "random": net.other(x.flatten(1)[:, :1].float())},
        layer=layer,
        other=BayesianLinear(1, 1, **RHO),
    )


def samples(path: Path, x: np.ndarray, draws: int = 64, name: str = "layer") -> np.ndarray:
    return murho.load(path).predict_all(x, draws, seed=3)[name].samples


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def drawn(layer: Any, draw: int, columns: dict[str, list[slice]], bias: bool = True) -> list[np.ndarray]:
    """Weights of a recurrent layer under seed 3, float64: μ + log(1 + exp ρ) ε, of the columns that are in use."""
    parts = []
    for name in ("weight_ih", "weight_hh", "bias"):
        sampler = getattr(layer, f"{name}_sampler")
        mu, sigma = numbers(sampler.mu), np.log1p(np.exp(numbers(sampler.rho)))
        used = columns.get(name, [slice(None)])
        scale = 1 if bias or name != "bias" else 0
        parts.append([scale * np.concatenate([v[..., c] for c in used], axis=-1) for v in (mu, sigma)])
    epsilon = normals([draw], 3, 0, sum(mu.size for mu, _ in parts))[0].astype(np.float64)
    weights = []
    for mu, sigma in parts:
        weights.append(mu + sigma * epsilon[: mu.size].reshape(mu.shape))
        epsilon = epsilon[mu.size :]
    return weights


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(x: np.ndarray, w: np.ndarray, u: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The textbook's LSTM (Hochreiter & Schmidhuber 1997, with forget gates), x [B, T, F] -> [B, T, H]."""
    h = c = np.zeros((len(x), u.shape[0]))
    sequence = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w + h @ u + b, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        sequence.append(h)
    return np.stack(sequence, axis=1)


def gru_by_hand(x: np.ndarray, w: np.ndarray, u: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The GRU of Cho et al. 2014 with the reset after the product, x [B, T, F] -> [B, T, H]."""
    size = u.shape[0]
    h = np.zeros((len(x), size))
    sequence = []
    for t in range(x.shape[1]):
        from_x, from_h = x[:, t] @ w + b[: 3 * size], h @ u
        r = sigmoid(from_x[:, :size] + from_h[:, :size])
        z = sigmoid(from_x[:, size : 2 * size] + from_h[:, size : 2 * size])
        n = np.tanh(from_x[:, 2 * size :] + r * (from_h[:, 2 * size :] + b[3 * size :]))
        h = (1 - z) * n + z * h
        sequence.append(h)
    return np.stack(sequence, axis=1)


# 1: two copies of each tensor


def test_a_frozen_layer_uses_stale_means_after_a_copy(path: Path) -> None:
    network = copy.deepcopy(beside(BayesianLinear(3, 2, **RHO)))
    layer, x = network.layer, rows(4, 3)
    start = numbers(layer.weight_sampler.mu)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network(torch.ones(4, 3))["layer"].sum().backward()
    optimizer.step()
    layer.freeze = True
    moved, bias = numbers(layer.weight_sampler.mu), numbers(layer.bias_sampler.mu)
    stale = numbers(network(torch.from_numpy(x))["layer"])
    np.testing.assert_array_equal(numbers(layer.weight_mu), start)
    assert np.abs(moved - start).min() > 0.1
    assert np.abs(stale - (x @ moved.T + bias)).max() > 0.1

    with pytest.warns(UserWarning, match=r"Layer 'layer': weight_mu differs from weight_sampler\.mu.* murho exports"):
        to_onnx(network, path, x)
    assert np.abs(samples(path, x) - (x @ moved.T + bias)).max() < 1e-5


def test_moped_unties_rho(path: Path) -> None:
    network = Forward(lambda net, x: net.layer(x), layer=BayesianLinear(3, 2))
    network.MOPED_(delta=0.5)
    layer = network.layer
    assert not torch.equal(layer.weight_rho, layer.weight_sampler.rho)

    to_onnx(network, path, rows(4, 3))
    tensors = {tensor.name: to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    means = np.concatenate([numbers(sampler.mu).ravel() for sampler in (layer.weight_sampler, layer.bias_sampler)])
    np.testing.assert_allclose(tensors["network.layer.sigma"], 0.5 * np.abs(means), rtol=1e-5)


# 3: the noise is part of the state


def test_noise_in_the_state_is_ignored(path: Path, tmp_path: Path) -> None:
    network, x = nn.Sequential(BayesianLinear(3, 2, **RHO)), rows(4, 3)
    state = network.state_dict()
    assert "0.weight_sampler.eps_w" in state
    for key in state:
        if key.endswith("eps_w"):
            state[key] = torch.full_like(state[key], float("nan"))
    other = nn.Sequential(BayesianLinear(3, 2, **RHO))
    other.load_state_dict(state)
    assert torch.isfinite(other(torch.ones(1, 3))).all()  # BLiTZ draws it anew before it is read

    one, again = to_onnx(network, path, x), to_onnx(other, tmp_path / "again.onnx", x)
    assert one.posterior_sha256 == again.posterior_sha256
    np.testing.assert_array_equal(murho.load(path).samples(x), murho.load(tmp_path / "again.onnx").samples(x))


# 4: σ overflows


def test_a_large_rho(path: Path) -> None:
    network, x = nn.Sequential(BayesianLinear(1, 1, bias=False)), np.ones((2, 1), np.float32)
    sampler = network[0].weight_sampler
    with torch.no_grad():
        sampler.rho.fill_(100.0)
    assert not torch.isfinite(network(torch.from_numpy(x))).any()

    to_onnx(network, path, x)
    want = sampler.mu.item() + 100 * normals(np.arange(64), 3, 0, 1)[:, 0]  # softplus(100) = 100
    np.testing.assert_allclose(murho.load(path).samples(x, 64, seed=3)[:, 0, 0], want, rtol=1e-5)


# 5: live tensors


def test_a_network_that_cannot_be_copied(path: Path) -> None:
    network, x = nn.Sequential(BayesianLinear(3, 4, **RHO), nn.Dropout(), frozen(BayesianLinear(4, 1))), rows(4, 3)
    network(torch.from_numpy(x)).sum().backward()
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly by the user"):
        copy.deepcopy(network)
    before = {key: value.clone() for key, value in network.state_dict().items() if not key.endswith("eps_w")}
    gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        to_onnx(network, path, x)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        assert (parameter.grad is None) if gradient is None else torch.equal(parameter.grad, gradient)
    assert network.training
    assert [network[0].freeze, network[2].freeze] == [False, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in network.modules())
    network(torch.from_numpy(x)).sum().backward()


# 6 and 9: recurrent layers without bias; columns that a GRU never reads


def test_an_lstm_without_bias(path: Path) -> None:
    layer, x = BayesianLSTM(2, 3, bias=False, **RHO), rows(4, 5, 2)
    with pytest.raises(TypeError, match="NoneType"):
        layer(torch.from_numpy(x))

    to_onnx(Forward(lambda net, x: net.layer(x)[0], layer=layer), path, x)
    got = murho.load(path).samples(x, 8, seed=3)
    for draw in range(8):
        want = lstm_by_hand(x.astype(np.float64), *drawn(layer, draw, {}, bias=False))
        np.testing.assert_allclose(got[draw], want, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_gru(path: Path, bias: bool) -> None:
    layer, x = BayesianGRU(2, 3, bias=bias, **RHO), rows(4, 5, 2)
    if bias:
        layer.freeze = True
        before = numbers(layer(torch.from_numpy(x))[0])
        with torch.no_grad():
            layer.weight_ih_sampler.mu[:, 9:] = 1e6
            layer.weight_hh_sampler.mu[:, 6:9] = 1e6
        np.testing.assert_array_equal(numbers(layer(torch.from_numpy(x))[0]), before)
        layer.freeze = False
    else:
        for layer.freeze in (True, False):
            with pytest.raises(TypeError, match="not subscriptable"):
                layer(torch.from_numpy(x))

    card = to_onnx(Forward(lambda net, x: net.layer(x)[0], layer=layer), path, x)
    assert card.sites[0].shapes == {"weight_ih": (2, 9), "weight_hh": (3, 9), "bias": (12,)}
    used = {"weight_ih": [slice(0, 9)], "weight_hh": [slice(0, 6), slice(9, 12)]}
    got = murho.load(path).samples(x, 8, seed=3)
    for draw in range(8):
        want = gru_by_hand(x.astype(np.float64), *drawn(layer, draw, used, bias))
        np.testing.assert_allclose(got[draw], want, atol=1e-5)


# 7: peepholes


@pytest.mark.parametrize("freeze", [False, True])
def test_a_peephole_is_the_sampled_one(path: Path, freeze: bool) -> None:
    layer, x = BayesianLSTM(2, 3, peephole=True, **SURE), rows(4, 5, 2)
    sampled = numbers(layer(torch.from_numpy(x))[0])
    layer.freeze = True
    assert np.abs(numbers(layer(torch.from_numpy(x))[0]) - sampled).max() > 0.1

    layer.freeze = freeze
    with pytest.warns(UserWarning, match=r"Layer 'layer': BLiTZ's LSTM with peephole=True is not the textbook's"):
        to_onnx(beside(layer, lambda y: y[0]), path, x)
    assert np.abs(samples(path, x) - sampled).max() < 1e-5


# 8 and 10: posterior sharpening


def test_sharpening_without_sharpen(path: Path) -> None:
    network, x = Forward(lambda net, x: net.lstm(x, None, x.sum())[0], lstm=BayesianLSTM(2, 3)), rows(4, 5, 2)
    with pytest.raises(Exception, match=r"."):
        network(torch.from_numpy(x))

    with pytest.raises(murho.ExportError, match=r"Layer 'lstm' is called with sharpen_loss.* Leave it out of the call"):
        to_onnx(network, path, x)


def test_a_gru_is_told_a_loss_and_ignores_it(path: Path) -> None:
    network, x = Forward(lambda net, x: net.gru(x, None, x.sum())[0], gru=BayesianGRU(2, 3)), rows(4, 5, 2)
    assert network(torch.from_numpy(x)).shape == (4, 5, 3)

    with pytest.raises(murho.ExportError, match=r"Layer 'gru' is called with sharpen_loss, which makes its weights"):
        to_onnx(network, path, x)


def test_sharpening_never_runs(path: Path, tmp_path: Path) -> None:
    network, x = Forward(lambda net, x: net.lstm(x)[0], lstm=BayesianLSTM(2, 3, sharpen=True, **RHO)), rows(4, 5, 2)
    inputs = torch.from_numpy(x)
    torch.manual_seed(1)
    answer = network.forward_with_sharpening(inputs, torch.zeros(4, 5, 3), nn.functional.mse_loss)
    torch.manual_seed(1)
    network(inputs)
    assert torch.equal(answer, network(inputs))  # a second pass like any other

    one = to_onnx(network, path, x)
    with torch.no_grad():
        for name, eta in network.lstm.named_parameters():
            if name.endswith("_eta"):
                eta.fill_(1e6)
    again = to_onnx(network, tmp_path / "again.onnx", x)
    assert one.posterior_sha256 == again.posterior_sha256
    np.testing.assert_array_equal(murho.load(path).samples(x), murho.load(tmp_path / "again.onnx").samples(x))


# 11: Flipout


def test_flipout_has_another_spread(path: Path) -> None:
    layer, x = Flipout(BayesianLinear)(3, 1, bias=False, posterior_rho_init=-6.0), np.ones((1, 3), np.float32)
    with torch.no_grad():
        layer.weight_sampler.rho.fill_(-5.0)
        flipped = torch.stack([layer(torch.from_numpy(x)) for _ in range(200)]).std().item()
    sigma = np.sqrt(3) * np.log1p(np.exp(-5.0))  # of the posterior: a sum of three weights
    assert flipped > 5 * sigma

    network = nn.Sequential(layer)
    with pytest.raises(murho.ExportError, match=r"Layer '0' is a BLiTZ Flipout layer.*Pass flipout=\"plain\""):
        to_onnx(network, path, x)
    to_onnx(network, path, x, flipout="plain")
    got = murho.load(path).samples(x, 4000).std()
    assert abs(got / sigma - 1) < 5 / np.sqrt(2 * 4000)  # five standard errors


@pytest.mark.parametrize("cls", [BayesianGRU, BayesianEmbedding])
def test_flipout_that_fails(path: Path, cls: Any) -> None:
    layer = Flipout(cls)(4, 3)
    x = rows(2, 5, 4) if cls is BayesianGRU else np.zeros((2, 5), np.int64)
    with pytest.raises((TypeError, RuntimeError, NotImplementedError)):
        layer(torch.from_numpy(x))

    with pytest.raises(murho.ExportError, match=r"Layer 'layer' is a BLiTZ Flipout layer"):
        to_onnx(Forward(lambda net, x: net.layer(x)[0], layer=layer), path, x)


# 12: Radial, and other samplers


def test_radial_changes_nothing(path: Path) -> None:
    network, x = nn.Sequential(BayesianLinear(3, 2, **RHO)), rows(4, 3)
    torch.manual_seed(1)
    before = network(torch.from_numpy(x))
    try:
        assert Radial(BayesianLinear) is BayesianLinear
        torch.manual_seed(1)
        assert torch.equal(network(torch.from_numpy(x)), before)

        with pytest.warns(UserWarning, match=r"Layer '0': BLiTZ's Radial changes nothing .* exported as the plain"):
            to_onnx(network, path, x)
    finally:
        del BayesianLinear.sample


class Uniform(TrainableRandomDistribution):
    """Draws another law than BLiTZ's."""

    def sample(self) -> torch.Tensor:
        super().sample()
        self.w = self.mu + self.sigma * (2 * torch.rand(self.mu.shape) - 1)
        return self.w


def test_a_sampler_of_another_law_is_refused(path: Path) -> None:
    layer = BayesianLinear(3, 2, **RHO)
    layer.weight_sampler = Uniform(layer.weight_mu, layer.weight_rho)
    assert layer(torch.ones(1, 3)).shape == (1, 2)  # BLiTZ takes it

    with pytest.raises(murho.ExportError, match=r"Layer '0' draws its weight by a sample\(\) of its own"):
        to_onnx(nn.Sequential(layer), path, rows(4, 3))


# 13: no bias


def test_linear_without_bias(path: Path) -> None:
    layer, x = BayesianLinear(3, 2, bias=False, **RHO), rows(4, 3)
    with pytest.raises(RuntimeError, match="dtype"):  # its zeros stay float32, whatever the layer is
        copy.deepcopy(layer).double()(torch.from_numpy(x).double())

    card = to_onnx(nn.Sequential(layer), path, x)
    assert card.sites[0].shapes == {"weight": (2, 3)}
    assert np.all(murho.load(path).samples(0 * x) == 0)


# 14: embeddings


def test_the_padding_row_is_sampled(path: Path) -> None:
    layer, x = BayesianEmbedding(5, 2, padding_idx=0, **RHO), np.array([[0, 1], [0, 0]])
    with torch.no_grad():
        assert layer(torch.from_numpy(x))[1].std(dim=0).max() == 0 != layer(torch.from_numpy(x)).abs().min()
        assert not torch.equal(layer(torch.from_numpy(x))[1], layer(torch.from_numpy(x))[1])

    with pytest.warns(UserWarning, match=r"Layer '0': BLiTZ samples the padding row 0 like any other"):
        to_onnx(nn.Sequential(layer), path, x)
    assert murho.load(path).samples(x, 32)[:, 1, 0].std(axis=0).min() > 0.05


def test_a_frozen_max_norm_writes_to_mu_in_blitz_only(path: Path) -> None:
    x = np.array([[0, 1], [2, 3]])
    blitz = frozen(BayesianEmbedding(5, 3, max_norm=0.1, **RHO))
    start = numbers(blitz.weight_mu)
    with torch.no_grad():
        blitz(torch.from_numpy(x))
    rewritten = numbers(blitz.weight_mu)
    assert np.abs(rewritten - start)[:4].max() > 0.01

    layer = frozen(BayesianEmbedding(5, 3, max_norm=0.1, **RHO))
    mu = numbers(layer.weight_mu)
    lengths = np.linalg.norm(mu, axis=1, keepdims=True)
    want = (mu * np.minimum(1, 0.1 / (lengths + 1e-7)))[x]
    to_onnx(beside(layer), path, x)
    np.testing.assert_array_equal(numbers(layer.weight_sampler.mu), mu)
    np.testing.assert_array_equal(numbers(layer.weight_mu), mu)
    assert np.abs(samples(path, x) - want).max() < 1e-6


# 15: the order of a convolution's arguments


def test_groups_come_before_stride(path: Path) -> None:
    layer, x = BayesianConv1d(2, 4, 3, 2, **RHO), rows(4, 2, 9)
    assert (layer.groups, layer.stride) == (2, 1)
    with pytest.raises(TypeError):
        BayesianConv2d(2, 4, 3)  # in two dimensions the kernel must be a tuple

    card = to_onnx(nn.Sequential(layer), path, x)
    assert card.sites[0].shapes["weight"] == (4, 1, 3)
    assert murho.load(path).samples(x, 4).shape == (4, 4, 4, 7)


# 16: BLiTZ's own intervals


def test_mfvi_forward(path: Path) -> None:
    network = Forward(lambda net, x: (net.layer(x), x), layer=BayesianLinear(3, 2, **RHO))
    single = Forward(lambda net, x: net.layer(x), layer=BayesianLinear(3, 2, **RHO))
    x = rows(4, 3)
    with pytest.raises(TypeError):
        network.mfvi_forward(torch.from_numpy(x))
    assert torch.isnan(single.mfvi_forward(torch.from_numpy(x), 1)[1]).all()
    single.freeze_()
    assert (single.mfvi_forward(torch.from_numpy(x))[1] == 0).all()

    to_onnx(network, path, x)
    model = murho.load(path)
    assert model.predict(x, 16).samples.shape == (16, 4, 2)
    with pytest.raises(murho.InputError, match=r"draws must be at least 2, since one draw has no spread; got 1"):
        model.predict(x, 1)
    with pytest.raises(murho.ExportError, match=r"Every BLiTZ layer of the network is frozen"):
        to_onnx(single, path, x)


# 17: freezing is no evaluation mode


def test_eval_goes_on_sampling(path: Path) -> None:
    network, x = nn.Sequential(frozen(BayesianLinear(3, 4, **RHO)), BayesianLinear(4, 1, **RHO)).eval(), rows(4, 3)
    one, again = (network[0](torch.from_numpy(x)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(network(torch.from_numpy(x)), network(torch.from_numpy(x)))

    card = to_onnx(network, path, x)
    assert [site.layer for site in card.sites] == ["1"]
    assert np.ptp(murho.load(path).samples(x, 8), axis=0).min() > 0


# 18: two calls are two samples


def test_two_calls_have_two_noises(path: Path) -> None:
    network, x = Forward(lambda net, x: net.layer(x) - net.layer(x), layer=BayesianLinear(3, 2, **RHO)), rows(4, 3)
    assert network(torch.from_numpy(x)).abs().min() > 0

    card = to_onnx(network, path, x)
    assert [site.layer for site in card.sites] == ["layer", "layer"]
    difference = murho.load(path).samples(x, 4000)[:, 0, 0]
    sigma = np.log1p(np.exp(numbers(network.layer.weight_sampler.rho)[0]))
    bias = np.log1p(np.exp(numbers(network.layer.bias_sampler.rho)[0]))
    want = np.sqrt(2 * (np.sum(sigma**2 * x[0] ** 2) + bias**2))
    assert abs(difference.std() / want - 1) < 5 / np.sqrt(2 * 4000)  # five standard errors


# 19: one weight for the whole sequence and batch


def test_one_weight_for_all_steps_and_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = BayesianLSTM(2, 3, **RHO), rows(4, 6, 2)
    calls: list[int] = []
    sample = TrainableRandomDistribution.sample
    with monkeypatch.context() as patch:
        patch.setattr(TrainableRandomDistribution, "sample", lambda self: (calls.append(1), sample(self))[1])
        layer(torch.from_numpy(x))
    assert len(calls) == 3  # weight_ih, weight_hh and bias

    card = to_onnx(Forward(lambda net, x: net.layer(x)[0], layer=layer), path, x)
    assert card.sites[0].n == 2 * 12 + 3 * 12 + 12
    got = murho.load(path).samples(x, 8, seed=3)
    for draw in range(8):
        want = lstm_by_hand(x.astype(np.float64), *drawn(layer, draw, {}))
        np.testing.assert_allclose(got[draw], want, atol=1e-5)


# 20: modules of torch that know a training mode


def test_batch_normalisation_in_training(path: Path) -> None:
    network, x = nn.Sequential(BayesianLinear(3, 2, **SURE), nn.BatchNorm1d(2)), rows(4, 3)
    with torch.no_grad():
        whole, alone = network(torch.from_numpy(x)), network(torch.from_numpy(x[:2]))
    assert (whole[:2] - alone).abs().max() > 0.1  # a row's answer depends on the rows beside it

    network.append(BayesianLinear(2, 2, **RHO))
    with pytest.warns(UserWarning, match=r"running statistics take the place of those at hand in '1'"):
        to_onnx(network, path, x)
    network.eval()
    mean = numbers(network[:2](torch.from_numpy(x))) @ numbers(network[2].weight_mu).T + numbers(network[2].bias_mu)
    got = murho.load(path).samples(x, 4000)
    assert np.abs(got.mean(axis=0) - mean).max() < 5 * got.std(axis=0).max() / np.sqrt(4000)  # five standard errors


def test_dropout_is_off(path: Path) -> None:
    network = nn.Sequential(nn.Dropout(0.5), BayesianLinear(3, 2, bias=False, **SURE), BayesianLinear(2, 2, **RHO))
    x = rows(4, 3)
    first = numbers(network[:2](torch.from_numpy(x)))
    assert np.abs(first - numbers(network[:2](torch.from_numpy(x)))).max() > 0.01

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # σ is where it started
        card = to_onnx(network, path, x, training={"epochs": 3})
    assert card.training == {"epochs": 3, "dropout": "off"}
    assert network.training
    network.eval()
    mean = numbers(network[:2](torch.from_numpy(x))) @ numbers(network[2].weight_mu).T + numbers(network[2].bias_mu)
    got = murho.load(path).samples(x, 4000)
    assert np.abs(got.mean(axis=0) - mean).max() < 5 * got.std(axis=0).max() / np.sqrt(4000)  # five standard errors


def test_dropout_that_is_always_on_is_refused(path: Path) -> None:
    network, x = Forward(lambda net, x: dropout(net.layer(x), 0.5), layer=BayesianLinear(3, 40, **SURE)), rows(4, 3)
    network.eval()
    with torch.no_grad():
        assert not torch.equal(network(torch.from_numpy(x)) == 0, network(torch.from_numpy(x)) == 0)

    with pytest.raises(murho.ExportError, match=r"two answers for the same weights, .*dropout that is always on"):
        to_onnx(network, path, x)


# What no file can repeat


def test_a_branch_on_a_value_names_the_line(tmp_path: Path, format: str) -> None:
    inner = Forward(lambda net, x: net.layer(x) if x.sum() > 0 else -net.layer(x), layer=BayesianLinear(3, 3, **RHO))
    network, x = nn.Sequential(nn.Linear(3, 3), nn.Sequential(inner), nn.ReLU()), rows(4, 3)
    with pytest.raises(murho.ExportError, match=r"\.py:\d+: `inner = .*` branches on values.*torch\.where"):
        EXPORTS[format](network, (tmp_path / "net").with_suffix(SUFFIXES[format]), x)


def test_a_posterior_that_never_left_its_start(path: Path) -> None:
    network, x = nn.Sequential(BayesianLinear(30, 2), BayesianLinear(2, 40)), rows(4, 30)
    sigma = torch.log1p(torch.exp(network[0].weight_rho)).mean().item()
    assert sigma < 0.0011  # BLiTZ's start, ρ = -7
    with torch.no_grad():
        network[1].weight_sampler.rho += 1
        network[1].bias_sampler.rho += 1

    with pytest.warns(UserWarning, match=r"Layer '0': σ is still where BLiTZ starts it \(mean 0\.0009") as caught:
        card = to_onnx(network, path, x)
    assert not [warning for warning in caught if "Layer '1'" in str(warning.message)]
    assert [site.trained for site in card.sites] == [False, True]
