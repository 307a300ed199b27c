"""Layers as people write them: BLiTZ's with other defaults, copies of BLiTZ's classes, samplers of one's own."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blitz.modules as blitz
import numpy as np
import pytest
import torch
from blitz.modules.base_bayesian_module import BayesianModule as BlitzModule
from blitz.modules.weight_sampler import TrainableRandomDistribution as BlitzSampler
from cases import RHO, Forward, rows, tokens
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

import murho
from murho.export import register_layer, to_onnx, to_pt2, to_torchscript
from murho.export.kinds import _KINDS
from murho.export.recognition import read_posteriors
from murho.export.samplers import spread
from murho.train.elbo import elbo_backward, sampled_layers

FORMATS: dict[str, Callable[..., Any]] = {".onnx": to_onnx, ".pt": to_torchscript, ".pt2": to_pt2}


@pytest.fixture(params=FORMATS)
def export(request, tmp_path: Path) -> Callable[..., murho.Card]:
    """Export in one format, which proves the file against the network, and look at it from outside once more."""

    def write(network: nn.Module, x: np.ndarray, **options: Any) -> murho.Card:
        path = tmp_path / f"net{request.param}"
        card = FORMATS[request.param](network, path, x, **options)
        check_moments(path, network, x)
        return card

    return write


def check_moments(path: Path, network: nn.Module, x: np.ndarray) -> None:
    """Mean and spread of 4000 draws are those of the network's own forward passes, within six standard errors."""
    draws = 4000
    ours = murho.load(path, trusted=True).samples(x[:1], np.arange(draws)).reshape(draws, -1)
    with torch.no_grad():
        torch.manual_seed(0)
        theirs = np.stack([network(torch.from_numpy(x[:1])).numpy().ravel() for _ in range(draws // 4)])
    spread = theirs.std(axis=0)
    assert np.all(spread > 0)
    assert np.all(np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 6 * spread * (5 / draws) ** 0.5)
    assert np.all(np.abs(np.log(ours.std(axis=0) / spread)) < 6 * (5 / draws) ** 0.5)


# BLiTZ's classes as a project keeps its own copies of them, under the same names


class BayesianModule(nn.Module):
    pass


class TrainableRandomDistribution(nn.Module):
    def __init__(self, mu: torch.Tensor, rho: torch.Tensor) -> None:
        super().__init__()
        self.mu, self.rho = nn.Parameter(mu), nn.Parameter(rho)

    def sample(self) -> torch.Tensor:
        self.sigma = torch.log1p(torch.exp(self.rho))
        self.w = self.mu + self.sigma * torch.randn_like(self.mu)
        return self.w

    def log_posterior(self) -> torch.Tensor:
        return torch.distributions.Normal(self.mu, self.sigma).log_prob(self.w).sum()


class Prior(nn.Module):
    def log_prior(self, w: torch.Tensor) -> torch.Tensor:
        return -w.abs().sum()


class Copied(BayesianModule):
    """Draws each of its tensors, and adds up its two densities as BLiTZ's loss wants them."""

    Sampler: Callable[..., Any] = TrainableRandomDistribution

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            mu, rho = nn.Parameter(0.3 * torch.randn(shape)), nn.Parameter(-2 + 0.1 * torch.randn(shape))
            setattr(self, f"{name}_mu", mu)
            setattr(self, f"{name}_rho", rho)
            setattr(self, f"{name}_sampler", self.Sampler(mu, rho))
        self.names, self.prior = list(shapes), Prior()
        self.log_prior = self.log_variational_posterior = 0

    def drawn(self) -> list[torch.Tensor]:
        samplers = [getattr(self, f"{name}_sampler") for name in self.names]
        weights = [sampler.sample() for sampler in samplers]
        self.log_prior = sum(self.prior.log_prior(w) for w in weights)
        self.log_variational_posterior = sum(sampler.log_posterior().sum() for sampler in samplers)
        return weights


class BayesianLinear(Copied):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(weight=(outputs, inputs), bias=(outputs,))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.drawn()
        return functional.linear(x, weight, bias)


class BayesianConv2d(Copied):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(weight=(outputs, inputs, kernel, kernel), bias=(outputs,))
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.drawn()
        return functional.conv2d(x, weight, bias, self.stride)


class BayesianEmbedding(Copied):
    def __init__(self, count: int, width: int) -> None:
        super().__init__(weight=(count, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.embedding(x, *self.drawn())


class BayesianLSTM(Copied):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(weight_ih=(inputs, 4 * hidden), weight_hh=(hidden, 4 * hidden), bias=(4 * hidden,))
        self.hidden = hidden

    def forward(self, x: torch.Tensor, hidden_states: Any = None) -> Any:
        weight_ih, weight_hh, bias = self.drawn()
        zeros = torch.zeros(len(x), self.hidden, dtype=x.dtype)
        h, c = (zeros, zeros) if hidden_states is None else hidden_states
        sequence = []
        for t in range(x.shape[1]):
            i, f, g, o = (x[:, t] @ weight_ih + h @ weight_hh + bias).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            sequence.append(h)
        return torch.stack(sequence, dim=1), (h, c)


class BayesianGRU(Copied):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(weight_ih=(inputs, 4 * hidden), weight_hh=(hidden, 4 * hidden), bias=(4 * hidden,))
        self.hidden = hidden

    def forward(self, x: torch.Tensor, hidden_states: Any = None) -> Any:
        weight_ih, weight_hh, bias = self.drawn()
        h = torch.zeros(len(x), self.hidden, dtype=x.dtype) if hidden_states is None else hidden_states
        b = bias.chunk(4)
        ih, hh = weight_ih.chunk(4, dim=1), weight_hh.chunk(4, dim=1)
        sequence = []
        for t in range(x.shape[1]):
            now = x[:, t]
            r = torch.sigmoid(now @ ih[0] + h @ hh[0] + b[0])
            z = torch.sigmoid(now @ ih[1] + h @ hh[1] + b[1])
            n = torch.tanh(now @ ih[2] + b[2] + r * (h @ hh[3] + b[3]))
            h = (1 - z) * n + z * h
            sequence.append(h)
        return torch.stack(sequence, dim=1), h


class Everything(nn.Module):
    """Every copy in one network: tokens through an embedding, a GRU and an LSTM, then a convolution and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.gru, self.lstm = BayesianEmbedding(12, 2), BayesianGRU(2, 3), BayesianLSTM(3, 4)
        self.filters, self.head = BayesianConv2d(1, 2, 3, stride=2), BayesianLinear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence, state = self.gru(self.embedding(x))
        sequence, _ = self.lstm(sequence, (functional.pad(state, (0, 1)), functional.pad(state, (1, 0))))
        image = self.filters(functional.pad(sequence, (0, 0, 4, 0)).unsqueeze(1))
        return self.head(image.flatten(2).mean(dim=2))


def test_copies_of_blitzs_layers_are_exported(export) -> None:
    torch.manual_seed(0)
    card = export(Everything(), tokens(5))
    assert [site.kind for site in card.sites] == [
        "BayesianEmbedding", "BayesianGRU", "BayesianLSTM", "BayesianConv2d", "BayesianLinear",
    ]  # fmt: skip


def test_copies_are_known_by_what_they_compute_under_any_name() -> None:
    class Dense(BayesianLinear):
        pass

    class Memory(BayesianGRU):
        pass

    for cls in (Dense, Memory):
        cls.__mro__[1].__name__ = "Renamed"
    try:
        network = nn.ModuleDict({"a": Dense(3, 2), "b": Memory(2, 3), "c": BayesianLSTM(2, 3)})
        found = {name: posterior.kind.name for name, posterior in read_posteriors(network).items()}
        assert found == {"a": "BayesianLinear", "b": "BayesianGRU", "c": "BayesianLSTM"}
    finally:
        for cls, name in ((Dense, "BayesianLinear"), (Memory, "BayesianGRU")):
            cls.__mro__[1].__name__ = name


def test_copies_are_trained_with_their_complexity() -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(rows(3))
    network = nn.Sequential(BayesianLinear(3, 2), OnBlitz(2, 1))
    copied, _ = network
    likelihood, complexity = elbo_backward(network, x, torch.zeros(5, 1), nn.functional.mse_loss, 1, 0.5)
    assert sampled_layers(network) == [copied]  # the other has no densities to add
    assert complexity == pytest.approx(0.5 * (copied.log_variational_posterior - copied.log_prior).item())
    assert likelihood > 0
    assert copied.weight_sampler.rho.grad.abs().min() > 0


# Subclasses that change defaults alone


class Wide(blitz.BayesianLinear):
    """What a project always passes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, prior_sigma_1=1.0, prior_pi=0.5, **RHO)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}"


class Memory(blitz.BayesianLSTM):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, prior_sigma_1=1.0, **RHO)


class Filters(blitz.BayesianConv1d):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, **RHO)


@pytest.mark.parametrize("export", [".onnx"], indirect=True)  # the zoo has it in every format
def test_a_subclass_that_changes_defaults_is_the_layer_that_it_inherits_from(export) -> None:
    network = Forward(
        lambda net, x: net.head(net.memory(net.filters(x.transpose(1, 2)).transpose(1, 2))[0][:, -1]),
        filters=Filters(2, 3), memory=Memory(3, 4), head=Wide(4, 2),
    )  # fmt: skip
    card = export(network, rows(5, 2))
    assert [site.kind for site in card.sites] == ["BayesianConv1d", "BayesianLSTM", "BayesianLinear"]


# One by one: a copied layer on BLiTZ's base and samplers, BLiTZ's layer with a sampler or a prior of one's own


class OnBlitz(BlitzModule):
    """A linear layer of an older form: no flags, no priors."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_sampler = BlitzSampler(0.3 * torch.randn(outputs, inputs), torch.full((outputs, inputs), -2.0))
        self.bias_sampler = BlitzSampler(torch.randn(outputs), torch.full((outputs,), -2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias_sampler.sample(), x, self.weight_sampler.sample().t())


class Exponential(TrainableRandomDistribution):
    """σ = exp(ρ)."""

    def sample(self) -> torch.Tensor:
        self.sigma = self.rho.exp()
        self.w = torch.distributions.Normal(self.mu, self.sigma).rsample()
        return self.w


class Stretched(TrainableRandomDistribution):
    """σ = 0.001 + 3 softplus(ρ), which no table of ours lists."""

    def sample(self) -> torch.Tensor:
        self.sigma = 1e-3 + 3 * functional.softplus(self.rho)
        self.w = self.mu + self.sigma * torch.empty_like(self.mu).normal_()
        return self.w


def with_samplers(cls: type) -> nn.Module:
    """BLiTZ's layer with samplers of another class put in."""
    layer = blitz.BayesianLinear(4, 3, **RHO)
    for name in ("weight", "bias"):
        old = getattr(layer, f"{name}_sampler")
        setattr(layer, f"{name}_sampler", cls(old.mu.detach(), old.rho.detach()))
    layer.weight_prior_dist = Prior()
    return layer


ONE_BY_ONE: dict[str, Callable[[], nn.Module]] = {
    "a layer on BLiTZ's base": lambda: OnBlitz(4, 3),
    "a copied sampler, a prior of one's own": lambda: with_samplers(TrainableRandomDistribution),
    "another σ": lambda: with_samplers(Exponential),
    "a σ that no table lists": lambda: with_samplers(Stretched),
}


@pytest.mark.parametrize("export", [".onnx", ".pt"], indirect=True)
def test_single_classes_of_ones_own_are_exported(export) -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList(build() for build in ONE_BY_ONE.values())
    export(Forward(lambda net, x: torch.cat([layer(x) for layer in net.layers], dim=1), layers=layers), rows(4))


@pytest.mark.parametrize("cls", [TrainableRandomDistribution, Exponential, Stretched])
def test_the_spread_read_is_the_one_that_the_sampler_has(cls: type) -> None:
    layer = with_samplers(cls)
    sigma = spread(layer.weight_sampler)
    assert sigma is not None
    layer.weight_sampler.sample()
    np.testing.assert_allclose(sigma, layer.weight_sampler.sigma.detach(), rtol=3e-7)


def test_half_storage_takes_samplers_of_ones_own_of_double_precision(tmp_path: Path) -> None:
    network = nn.Sequential(with_samplers(Exponential), nn.Tanh(), BayesianLinear(3, 2)).double()
    to_onnx(network, tmp_path / "net.onnx", rows(4), storage="half")


class Uniform(TrainableRandomDistribution):
    def sample(self) -> torch.Tensor:
        self.w = self.mu + functional.softplus(self.rho) * (2 * torch.rand_like(self.mu) - 1)
        return self.w


class Together(TrainableRandomDistribution):
    """One ε for all weights."""

    def sample(self) -> torch.Tensor:
        self.w = self.mu + functional.softplus(self.rho) * torch.randn(())
        return self.w


class Radial(TrainableRandomDistribution):
    def sample(self) -> torch.Tensor:
        noise = torch.randn_like(self.mu)
        self.w = self.mu + functional.softplus(self.rho) * noise / noise.norm()
        return self.w


class Slight(TrainableRandomDistribution):
    """A spread of 0.999 of what it seems to be, by a second normal that is not torch's next."""

    def sample(self) -> torch.Tensor:
        noise = torch.randn_like(self.mu)
        self.w = self.mu + functional.softplus(self.rho) * (0.999 * noise + 0.001 * torch.randn_like(self.mu))
        return self.w


@pytest.mark.parametrize("cls", [Uniform, Together, Radial, Slight])
def test_a_sampler_of_another_law_is_refused(tmp_path: Path, cls: type) -> None:
    words = r"Layer '0' draws its weight by a sample\(\) of its own .*not N\(μ, σ²\)"
    with pytest.raises(murho.ExportError, match=words):
        to_onnx(nn.Sequential(with_samplers(cls)), tmp_path / "net.onnx", rows(4))
    assert list(tmp_path.iterdir()) == []


def test_recognising_leaves_a_sampler_as_it_was() -> None:
    sampler = with_samplers(Stretched).weight_sampler
    mu, state = sampler.mu.detach().clone(), torch.get_rng_state()
    spread(sampler)
    assert torch.equal(sampler.mu, mu)
    assert torch.equal(torch.get_rng_state(), state)


# A changed forward is refused, with the lines that teach it


class Squared(blitz.BayesianLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).square()


class Twice(BayesianLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (super().forward(x) + super().forward(x)) / 2


class Transposed(BayesianLinear):
    """Keeps its weight [inputs, outputs], which a square one does not show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.drawn()
        return x @ weight + bias


class Careful(BayesianLinear):
    """Draws while it is trained only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return super().forward(x)
        return functional.linear(x, self.weight_sampler.mu, self.bias_sampler.mu)


class Gated(BayesianModule):
    """Two tensors of names that no layer of BLiTZ's has."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_sampler = BlitzSampler(torch.randn(4), torch.full((4,), -2.0))
        self.shift_sampler = BlitzSampler(torch.randn(4), torch.full((4,), -2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.gate_sampler.sample()) + self.shift_sampler.sample()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "another function": (lambda: Squared(4, 3, **RHO), r"With the same weights it computes something else than B"),
    "a weight that lies the other way": (lambda: Transposed(4, 4), r"computes something else than BayesianLinear"),
    "two samples a pass": (lambda: Twice(4, 3), r"it calls weight_sampler\.sample\(\) 2 times in a forward pass"),
    "no sample in evaluation": (lambda: Careful(4, 3), r"In evaluation mode it calls weight_sampler\.sample\(\) 0 "),
    "another input": (lambda: Transposed(4, 3), r"Given \(4, 4\), as BayesianLinear takes it, it fails \(Run"),
    "other tensors": (Gated, r"No layer of BLiTZ's draws such tensors\."),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_changed_forward_is_refused(tmp_path: Path, name: str) -> None:
    build, words = REFUSED[name]
    with pytest.raises(murho.ExportError, match=words):
        to_onnx(nn.Sequential(build()), tmp_path / "net.onnx", rows(4))


@pytest.fixture
def forgotten():
    before = dict(_KINDS)
    yield
    _KINDS.clear()
    _KINDS.update(before)


BODIES = {
    Squared: ("    return y", "    return y.square()"),
    Transposed: ("weight.transpose(1, 2)", "weight"),
    Gated: ("y = ...", "y = x * torch.sigmoid(gate).unsqueeze(1) + shift.unsqueeze(1)"),
}


@pytest.mark.parametrize("cls", BODIES)
def test_the_lines_of_the_refusal_teach_murho_the_layer(tmp_path: Path, forgotten, cls: type) -> None:
    path = tmp_path / "net.onnx"
    torch.manual_seed(0)
    layer = cls() if cls is Gated else cls(4, 4)
    network = nn.Sequential(layer, nn.Tanh())
    layers = layer.weight_sampler if cls is not Gated else layer.gate_sampler
    layers.rho.data.fill_(-2.0)
    with pytest.raises(murho.ExportError) as refusal:
        to_onnx(network, path, rows(4))
    lines = str(refusal.value).partition("\n\n")[2]
    old, new = BODIES[cls]
    assert lines.count(old) == 1
    pasted = tmp_path / "pasted_lines.py"
    pasted.write_text("import torch\n" + lines.replace(old, new))
    sys.modules[__name__.rpartition(".")[2]] = sys.modules[__name__]
    spec = importlib.util.spec_from_file_location("pasted_lines", pasted)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert [site.kind for site in to_onnx(network, path, rows(4)).sites] == [cls.__name__]
    check_moments(path, network, rows(4))


def test_a_subclass_of_a_registered_layer_is_one(tmp_path: Path, forgotten) -> None:
    @register_layer(Gated, ("gate", "shift"))
    def gated(layer, weights, x):
        return x * torch.sigmoid(weights["gate"]).unsqueeze(1) + weights["shift"].unsqueeze(1)

    class Default(Gated):
        pass

    assert to_onnx(nn.Sequential(Default()), tmp_path / "net.onnx", rows(4)).sites[0].kind == "Gated"


# Layers that torch does not know of


class Helper:
    """No module."""

    def __init__(self, *layers: nn.Module) -> None:
        self.layers = layers


class Kept(nn.Module):
    """Two layers, kept as a function makes of them: `keep` gives self.layers, and `two` finds them there again."""

    def __init__(self, keep: Callable[..., Any], two: Callable[[Any], Any], registered: bool) -> None:
        super().__init__()
        layers = blitz.BayesianLinear(4, 4, **RHO), blitz.BayesianLinear(4, 2, **RHO)
        if registered:
            self.first, self.second = layers
        self.layers, self.two = keep(*layers), two

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.two(self.layers)
        return second(torch.tanh(first(x)))


KEPT: dict[str, tuple[Callable[..., Any], Callable[[Any], Any], str]] = {
    "list": (
        lambda a, b: [a, b], lambda kept: kept,
        r"^Kept keeps modules in self\.layers, a plain list, where torch does not see them: self\.layers\[0\], "
        r"self\.layers\[1\]\. They are not in network\.parameters\(\), so an optimizer does not train them, nor in its "
        r"state_dict\. Write self\.layers = nn\.ModuleList\(…\), and train",
    ),
    "tuple": (lambda a, b: (a, b), lambda kept: kept, r"self\.layers, a plain tuple, .* nn\.ModuleList\(…\)"),
    "dict": (
        lambda a, b: {"a": a, "b": b}, lambda kept: (kept["a"], kept["b"]),
        r"self\.layers, a plain dict, .*: self\.layers\['a'\], self\.layers\['b'\]\. .* nn\.ModuleDict\(…\)",
    ),
    "lists in one another": (
        lambda a, b: [[a], {"b": (b,)}], lambda kept: (kept[0][0], kept[1]["b"][0]),
        r"self\.layers\[0\]\[0\], self\.layers\[1\]\['b'\]\[0\]\. .* nn\.ModuleList\(…\)",
    ),
    "an object that is no module": (
        Helper, lambda kept: kept.layers,
        r"self\.layers, a Helper, which is no module, .*: self\.layers\.layers\[0\], "
        r".*Let Helper inherit from nn\.Module",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", KEPT)
def test_layers_that_torch_does_not_know_of_are_named_with_the_change(tmp_path: Path, how: str) -> None:
    keep, two, words = KEPT[how]
    network = Kept(keep, two, registered=False)
    assert not list(network.parameters())
    with pytest.raises(murho.ExportError, match=words):
        to_onnx(network, tmp_path / "net.onnx", rows(4))


@pytest.mark.parametrize("how", ["list", "lists in one another", "an object that is no module"])
def test_containers_of_layers_that_are_registered_too_change_nothing(tmp_path: Path, how: str) -> None:
    keep, two, _ = KEPT[how]
    network = Kept(keep, two, registered=True)
    before = network.layers
    to_onnx(network, tmp_path / "net.onnx", rows(4))
    check_moments(tmp_path / "net.onnx", network, rows(4))
    assert network.layers is before
    assert list(two(before)) == [network.first, network.second]


def test_the_advice_for_a_list_makes_it_exportable(tmp_path: Path) -> None:
    keep, two, _ = KEPT["list"]
    network = Kept(keep, two, registered=False)
    network.layers = nn.ModuleList(network.layers)
    assert len(list(network.parameters())) == 16
    to_onnx(network, tmp_path / "net.onnx", rows(4))


@pytest.mark.parametrize("export", [".onnx", ".pt"], indirect=True)
def test_torchs_own_layers_in_a_plain_list_are_exported_with_a_note(export) -> None:
    network = Kept(lambda a, _: [nn.Linear(4, 4), a], lambda kept: kept, registered=False)
    network.head = network.layers.pop()
    network.two = lambda kept: (kept[0], network.head)
    with pytest.warns(
        UserWarning, match=r"self\.layers\[0\]\. .* They are exported as they are\. Write self\.layers = "
    ):
        export(network, rows(4))


def test_a_kept_method_of_a_layer_is_refused_and_the_layer_itself_is_not(tmp_path: Path) -> None:
    network = Forward(lambda net, x: net.sample(x), layer=blitz.BayesianLinear(4, 2, **RHO))
    network.sample = network.layer.forward
    with pytest.raises(murho.ExportError, match=r"Forward keeps a method of a layer, self\.sample, .* Keep the layer"):
        to_onnx(network, tmp_path / "net.onnx", rows(4))
    network.sample = network.layer
    to_onnx(network, tmp_path / "net.onnx", rows(4))


def test_a_layer_may_be_called_by_its_forward_or_with_names(tmp_path: Path) -> None:
    layers = {name: blitz.BayesianLinear(4, 4, **RHO) for name in ("a", "b")}
    network = Forward(lambda net, x: net.b.forward(torch.tanh(net.a(x=x))), **layers)
    to_onnx(network, tmp_path / "net.onnx", rows(4), sampling="local")
    to_onnx(network, tmp_path / "net.onnx", rows(4))
    check_moments(tmp_path / "net.onnx", network, rows(4))


def test_a_network_may_inherit_from_blitzs_module(tmp_path: Path) -> None:
    class Net(BlitzModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = blitz.BayesianLinear(4, 2, **RHO)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.layer(x))

    assert [site.layer for site in to_onnx(Net(), tmp_path / "net.onnx", rows(4)).sites] == ["layer"]


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = blitz.BayesianLinear(4, 4, **RHO)
        self.scale_sampler = BlitzSampler(torch.ones(4), torch.full((4,), -2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.scale_sampler.sample()


def test_weights_that_a_network_draws_beside_its_layers_are_refused(tmp_path: Path) -> None:
    words = r"The network draws weights itself \(scale\) and has Bayesian layers inside it \(layer\)\. Put "
    with pytest.raises(murho.ExportError, match=words):
        to_onnx(Scaled(), tmp_path / "net.onnx", rows(4))


# Pruned layers


def removed(layer: nn.Module) -> nn.Module:
    """Weights below 0.08 are removed from the sampler: μ = 0, σ = 0."""
    with torch.no_grad():
        small = layer.weight_sampler.mu.abs() < 0.08
        layer.weight_sampler.mu[small] = 0.0
        layer.weight_sampler.rho[small] = -torch.inf
    assert 0 < small.sum() < small.numel()
    return layer


@pytest.mark.parametrize(
    ("export", "options"),
    [(".onnx", {}), (".onnx", {"sampling": "local"}), *((format, {"storage": "half"}) for format in FORMATS)],
    indirect=["export"],
)
def test_removed_weights_stay_removed(export, options: dict[str, str]) -> None:
    torch.manual_seed(0)
    layers = removed(blitz.BayesianLinear(4, 6, **RHO)), removed(blitz.BayesianLinear(6, 2, **RHO))
    card = export(nn.Sequential(layers[0], nn.Tanh(), layers[1]), rows(4), **options)
    assert not card.sites[0].trained  # what is left of ρ is where BLiTZ starts it


def test_a_network_whose_every_weight_has_no_spread_is_refused(tmp_path: Path) -> None:
    layer = blitz.BayesianLinear(4, 2)
    for sampler in (layer.weight_sampler, layer.bias_sampler):
        sampler.rho.data.fill_(-torch.inf)
    with pytest.raises(murho.ExportError, match=r"σ is 0 for every weight of the network that is not frozen"):
        to_onnx(nn.Sequential(layer), tmp_path / "net.onnx", rows(4))


@pytest.mark.parametrize("how", ["new tensors", "torch's prune"])
def test_pruning_the_layer_alone_changes_nothing_and_is_said(tmp_path: Path, how: str) -> None:
    network = nn.Sequential(blitz.BayesianLinear(4, 6, **RHO), nn.Tanh(), nn.Linear(6, 1))
    to_onnx(network, tmp_path / "before.onnx", rows(4))
    layer = network[0]
    if how == "new tensors":
        keep = layer.weight_mu.detach().abs() > 0.08
        layer.weight_mu = nn.Parameter(layer.weight_mu.detach() * keep)
        layer.weight_rho = nn.Parameter(layer.weight_rho.detach().masked_fill(~keep, -30.0))
    else:
        prune.l1_unstructured(layer, "weight_mu", 0.5)
        prune.l1_unstructured(layer, "weight_rho", 0.5)
    words = r"weight_mu differs from weight_sampler\.mu, and weight_rho from weight_sampler\.rho: the network draws its"
    with pytest.warns(UserWarning, match=words):
        to_onnx(network, tmp_path / "after.onnx", rows(4))
    ours, before = (murho.load(tmp_path / f"{name}.onnx").samples(rows(4)) for name in ("after", "before"))
    np.testing.assert_array_equal(ours, before)


@pytest.mark.parametrize("export", [".onnx", ".pt"], indirect=True)
def test_torchs_prune_works_on_samplers_and_on_layers_of_torch(export) -> None:
    torch.manual_seed(0)
    layer, head = blitz.BayesianLinear(4, 6, **RHO), nn.Linear(6, 1)
    prune.l1_unstructured(layer.weight_sampler, "mu", 0.5)
    prune.l1_unstructured(layer.weight_sampler, "rho", 0.5)
    prune.l1_unstructured(head, "weight", 0.5)
    assert (layer.weight_sampler.mu == 0).sum() == 12
    with pytest.warns(UserWarning, match=r"weight_sampler\.rho was pruned to 0, and there σ is softplus\(0\) = 0\.69"):
        export(nn.Sequential(layer, nn.Tanh(), head), rows(4))


def test_old_weight_norm_is_copied(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning):
        normed = nn.utils.weight_norm(nn.Linear(4, 3))
    to_onnx(nn.Sequential(normed, blitz.BayesianLinear(3, 2, **RHO)), tmp_path / "net.onnx", rows(4))
