from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from blitz.modules import BayesianGRU, BayesianLinear, BayesianLSTM
from torch import nn

import murho
from murho.export import to_onnx
from murho.export.generator import normals
from murho.export.montecarlo import PLAIN, MonteCarloNetwork, Plan, trial_run
from murho.export.recognition import read_posteriors
from murho.export.reference import Reference, generator_epsilon
from murho.export.signature import Input
from murho.runtime.artifact import read
from murho.runtime.compare import relative_error
from murho.runtime.engines import open_engine

# float32 arithmetic in another order, relative to the largest value of the network's output
TOLERANCE = 1e-5
SEED = 5

SEQUENCES = ["demo", "lstm_lstm_linear", "gru_linear", "lstm_linear_linear"]
STEPS, BATCHES, DRAWS = (1, 21, 50), (1, 3, 64), (2, 64, 1000)


def check(got: np.ndarray, want: np.ndarray, case: Any) -> None:
    """Samples in the network's units against BLiTZ's."""
    assert got.shape == want.shape, case
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max(), case


def check_raw(case: Any, got: np.ndarray, want: np.ndarray) -> None:
    """Raw units: 1e-5 and what storing the value in float32 must lose, half a spacing at each of two steps."""
    raw = want * np.float64(case.scaling.output_scale) + np.float64(case.scaling.output_mean)
    error, allowed = relative_error(got, raw, case.scaling.output_scale, case.scaling.output_mean)
    largest_raw, largest = np.abs(raw).max(), np.abs(want).max()
    assert got.shape == want.shape
    assert (
        allowed <= TOLERANCE + np.spacing(np.float32(largest_raw)) / np.min(case.scaling.output_scale) / largest * 1.001
    )
    assert error <= allowed


@pytest.fixture(scope="module")
def reference(exported) -> Callable[[str, int], tuple[np.ndarray, np.ndarray]]:
    """reference(name, steps): inputs [64, steps, F] in raw units and BLiTZ's 1000 draws of them in the network's units.

    BLiTZ takes 15 s for each network, so it is asked once per length: its draws are the same for any number of them,
    and its rows for any batch (test_blitz_itself_treats_rows_and_draws_alone).
    """
    known: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}

    def answer(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
        if (name, steps) not in known:
            case = exported(name)
            x = inputs(case, max(BATCHES), steps)
            known[name, steps] = x, case.blitz(x, range(max(DRAWS)), SEED)
        return known[name, steps]

    return answer


def inputs(case: Any, batch: int, steps: int) -> np.ndarray:
    random = np.random.default_rng(steps).standard_normal((batch, steps, case.example.shape[2]))
    return (random * case.scaling.input_scale + case.scaling.input_mean).astype(np.float32)


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("steps", STEPS)
def test_blitz_itself_treats_rows_and_draws_alone(exported, reference, name: str, steps: int) -> None:
    case = exported(name)
    x, want = reference(name, steps)
    for batch in BATCHES[:2]:
        got = case.blitz(x[:batch], [1, 999, 40], SEED)
        check(got, want[[1, 999, 40], :batch], (name, batch))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", SEQUENCES)
def test_equal_noise_equal_answer(exported, reference, format: str, name: str, steps: int) -> None:
    case = exported(name)
    model = murho.load(case.path(format), trusted=True)
    x, want = reference(name, steps)
    for batch in BATCHES:
        for draws in DRAWS:
            check_raw(case, model.samples(x[:batch], draws, SEED), want[:draws, :batch])


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_comparison_can_fail(exported, reference, format: str, name: str) -> None:
    """One draw taken for another, and a hundredth of a per cent, are both seen."""
    case = exported(name)
    x, want = reference(name, 21)
    got = murho.load(case.path(format), trusted=True).samples(x, 64, SEED)
    with pytest.raises(AssertionError):
        check_raw(case, np.roll(got, 1, axis=0), want[:64])
    with pytest.raises(AssertionError):
        check(case.in_network_units(got) * 1.0001, want[:64], name)


def sample_tensors(case: Any, format: str, x: np.ndarray, draws: np.ndarray, levels: list[float]) -> list[np.ndarray]:
    """All five outputs of the bare file, without murho."""
    if format == "onnx":
        session = onnxruntime.InferenceSession(str(case.onnx), providers=["CPUExecutionProvider"])
        feeds = {"x": x, "draws": draws, "seed": np.array(SEED, np.int64), "levels": np.array(levels, np.float32)}
        return session.run(["samples", "mean", "std", "lower", "upper"], feeds)
    module = torch.jit.load(case.torchscript)
    tensors = torch.from_numpy(x), torch.from_numpy(draws), torch.tensor(SEED), torch.tensor(levels)
    return [output.numpy() for output in module(*tensors)]


@pytest.mark.parametrize("name", ["demo", "mlp", "every_step"])
@pytest.mark.parametrize("draws", [2, 3, 64, 1001])
def test_the_files_own_statistics(exported, format: str, name: str, draws: int) -> None:
    case = exported(name)
    x, levels = case.example[:4], [0.5, 0.9, 0.95, 0.999, 1e-3]
    samples, mean, std, lower, upper = sample_tensors(case, format, x, np.arange(draws), levels)
    wide = samples.astype(np.float64)
    # The levels come as float32: numpy must be asked for the same numbers.
    tails = [(1 - np.float64(np.float32(level))) / 2 for level in levels]
    # A mean of n float32 of size m: at worst about log2(n) roundings of m/2^24 each (pairwise), 11 here; quantiles: 3.
    m = np.abs(samples).max()
    np.testing.assert_allclose(mean, wide.mean(0), rtol=0, atol=16 * m * 2**-24)
    np.testing.assert_allclose(std, wide.std(0, ddof=1), rtol=1e-5, atol=16 * m * 2**-24)
    np.testing.assert_allclose(lower, np.quantile(wide, tails, axis=0), rtol=0, atol=4 * m * 2**-24)
    np.testing.assert_allclose(upper, np.quantile(wide, [1 - t for t in tails], axis=0), rtol=0, atol=4 * m * 2**-24)


@pytest.mark.parametrize("name", ["demo", "mlp"])
def test_the_files_samples_are_the_runtimes(exported, format: str, name: str) -> None:
    case = exported(name)
    samples, *_ = sample_tensors(case, format, case.example[:3], np.arange(32), [0.95])
    engine = open_engine(read(case.path(format)), "cpu", compiled=False)
    np.testing.assert_array_equal(samples, engine.samples((case.example[:3],), np.arange(32), SEED, observed=True)[0])
    usual = murho.load(case.path(format), trusted=True).samples(case.example[:3], 32, SEED)
    np.testing.assert_allclose(usual, samples, rtol=0, atol=TOLERANCE * np.abs(samples).max())


@pytest.mark.parametrize("name", ["zoo", "every_step", "residual", "mlp", "double", "bare"])
def test_layers_of_every_kind(exported, format: str, name: str) -> None:
    """Frozen layers, a layer called twice, states handed in and out, torch's own layers, no biases, every step, …"""
    case = exported(name)
    model = murho.load(case.path(format), trusted=True)
    rng = np.random.default_rng(3)
    for batch in (1, 2, 6, 17):
        for steps in (1, 3, 21) if case.example.ndim == 3 else (None,):
            sizes = (batch, steps, 2) if steps else (batch, *case.example.shape[1:])
            x = rng.standard_normal(sizes, dtype=np.float32)
            check(model.samples(x, [0, 5, 2**32 - 1], SEED), case.blitz(x, [0, 5, 2**32 - 1], SEED), (name, sizes))


def test_the_engines_agree_draw_by_draw(exported) -> None:
    case = exported("zoo")
    one, other = (
        murho.load(case.path(format), trusted=True).samples(case.example, 100, SEED)
        for format in ("onnx", "torchscript")
    )
    check(one, other.astype(np.float64), "zoo")


def test_sites_of_the_zoo(exported) -> None:
    """Frozen layers have no site, a layer that is called twice has two."""
    card = murho.load(exported("zoo").onnx).card
    assert [(site.layer, site.kind) for site in card.sites] == [
        ("first", "BayesianLSTM"),
        ("gru", "BayesianGRU"),
        ("twice", "BayesianLinear"),
        ("twice", "BayesianLinear"),
    ]
    assert card.training["dropout"] == "off"


def test_the_weights_are_mu_plus_sigma_times_the_generators_noise(exported, format: str) -> None:
    """The network hands out its weights: against the definition itself, without any code that exports."""
    case = exported("bare")
    names = [0, 1, 77, 2**32 - 1]
    got = murho.load(case.path(format), trusted=True).samples(np.ones((1, 1), np.float32), names, -9)[:, 0]
    for site, layer in enumerate((case.network.one, case.network.two, case.network.one)):
        mu = layer.weight_sampler.mu.detach().double().numpy().ravel()
        sigma = np.logaddexp(0, layer.weight_sampler.rho.detach().double().numpy().ravel())
        want = mu + sigma * normals(names, -9, site, 40)
        np.testing.assert_allclose(
            got[:, 40 * site : 40 * site + 40], want, rtol=0, atol=TOLERANCE * np.abs(want).max()
        )


# Variants of a forward pass, by the folded network in plain torch: the form that both files are traced from.


def plain_against_blitz(network: nn.Module, x: torch.Tensor, draws: list[int] | None = None) -> bool:
    """Compare and return whether x had to be repeated for every draw."""
    draws = draws or [0, 3, 8]
    posteriors = read_posteriors(network)
    plan = trial_run(network, posteriors, Plan(murho.Scaling()), [Input("x", x[:1])])
    folded = MonteCarloNetwork(network, posteriors, plan, PLAIN)
    got = folded.samples(x, torch.tensor(draws), torch.tensor(SEED)).numpy()
    want = Reference(network, posteriors, plan).given([x], draws, generator_epsilon(SEED))["output"]
    check(got, want, type(network).__name__)
    return plan.per_draw


def lstm(*sizes: int, **more: Any) -> nn.Module:
    return BayesianLSTM(*sizes, posterior_rho_init=-2.0, **more)


class Forward(nn.Module):
    """A network whose forward is given."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self._forward(self, x)


def frozen(layer: nn.Module) -> nn.Module:
    layer.freeze = True
    return layer


def own_states(net: Any, x: torch.Tensor) -> torch.Tensor:
    start = x.new_zeros(x.shape[0], 4) + 0.3
    sequence, (h, c) = net.one(x, (start, start * 2))
    return net.two(sequence, (h, c))[0][:, -1] + h


def one_state_shared(net: Any, x: torch.Tensor) -> torch.Tensor:
    h, _ = net.one(x)
    return net.two(x, (h[:, -1], x.new_ones(x.shape[0], 4)))[0][:, -1]


VARIANTS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "states passed in": lambda: (Forward(own_states, one=lstm(2, 4), two=lstm(4, 4)), (5, 2)),
    "one state shared, one not": lambda: (Forward(one_state_shared, one=lstm(2, 4), two=lstm(2, 4)), (5, 2)),
    "gru state passed in": lambda: (
        Forward(lambda net, x: net.gru(x, x[:, 0])[1], gru=BayesianGRU(2, 2, posterior_rho_init=-2.0)),
        (5, 2),
    ),
    "lstm (output, state)": lambda: (Forward(lambda net, x: net.lstm(x), lstm=lstm(2, 4)), (5, 2)),
    "lstm without bias": lambda: (Forward(lambda net, x: net.lstm(x)[0], lstm=lstm(2, 4, bias=False)), (5, 2)),
    "gru without bias": lambda: (
        Forward(lambda net, x: net.gru(x)[1], gru=BayesianGRU(2, 4, bias=False, posterior_rho_init=-2.0)),
        (5, 2),
    ),
    "linear without bias": lambda: (nn.Sequential(BayesianLinear(3, 2, bias=False)), (3,)),
    "linear over steps": lambda: (nn.Sequential(BayesianLinear(3, 4), nn.Tanh(), BayesianLinear(4, 1)), (6, 3)),
    "linear over two axes": lambda: (nn.Sequential(BayesianLinear(3, 2)), (4, 5, 3)),
    "frozen first": lambda: (nn.Sequential(frozen(BayesianLinear(3, 4)), BayesianLinear(4, 2)), (3,)),
    "frozen without bias": lambda: (
        Forward(lambda net, x: net.two(net.one(x)[0])[0], one=frozen(lstm(2, 4, bias=False)), two=lstm(4, 2)),
        (5, 2),
    ),
    "frozen gru without bias": lambda: (
        Forward(lambda net, x: net.two(net.one(x)[0])[0], one=frozen(BayesianGRU(2, 4, bias=False)), two=lstm(4, 2)),
        (5, 2),
    ),
    "one step only": lambda: (Forward(lambda net, x: net.lstm(x)[0][:, -1], lstm=lstm(2, 4)), (1, 2)),
    "a single unit": lambda: (Forward(lambda net, x: net.lstm(x)[0][:, -1], lstm=lstm(1, 1)), (4, 1)),
    "shared module": lambda: (
        (lambda shared: nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), shared))(BayesianLinear(3, 3)),
        (3,),
    ),
    "batch normalisation in evaluation": lambda: (
        nn.Sequential(nn.BatchNorm1d(3), BayesianLinear(3, 4), nn.BatchNorm1d(4), BayesianLinear(4, 1)),
        (3,),
    ),
    "time first inside": lambda: (
        Forward(
            lambda net, x: net.out(net.plain(net.lstm(x)[0].transpose(0, 1))[0][-1]),
            lstm=lstm(2, 4), plain=nn.LSTM(4, 3), out=BayesianLinear(3, 1),
        ),
        (5, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_a_forward_pass(name: str) -> None:
    torch.manual_seed(4)
    network, sizes = VARIANTS[name]()
    assert plain_against_blitz(network.eval(), torch.randn(7, *sizes)) is False


RESIDUALS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "sum": lambda: (Forward(lambda net, x: x + net.one(x), one=BayesianLinear(3, 3)), (3,)),
    "concatenation": lambda: (Forward(lambda net, x: torch.cat([x, net.one(x)], 1), one=BayesianLinear(3, 2)), (3,)),
    "two first layers": lambda: (
        Forward(
            lambda net, x: net.one(x)[0] * net.two(x[:, :, :1])[0] + x[:, -1:],
            one=lstm(2, 2), two=BayesianGRU(1, 2),
        ),
        (5, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RESIDUALS)
def test_branches_around_the_first_layer(name: str) -> None:
    torch.manual_seed(4)
    network, sizes = RESIDUALS[name]()
    assert plain_against_blitz(network, torch.randn(7, *sizes)) is True


def test_two_branches_of_bayesian_layers_need_no_repetition() -> None:
    torch.manual_seed(4)
    network = Forward(lambda net, x: net.one(x) + net.two(x), one=BayesianLinear(3, 2), two=BayesianLinear(3, 2))
    assert plain_against_blitz(network, torch.randn(7, 3)) is False


def test_sigma_is_softplus_where_blitz_overflows() -> None:
    """BLiTZ's log1p(exp(ρ)) is infinite above ρ = 88; there softplus(ρ) = ρ to the last bit."""
    layer = BayesianLinear(2, 2)
    layer.weight_sampler.rho.data.fill_(100.0)
    assert read_posteriors(nn.Sequential(layer))["0"].sigma[:4].tolist() == [100.0] * 4


@pytest.mark.parametrize("training", [True, False])
def test_export_leaves_the_network_as_it_was(training: bool, tmp_path: Any) -> None:
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(), nn.BatchNorm1d(4), BayesianLinear(4, 4), frozen(BayesianLinear(4, 1))
    )
    network.train(training)
    network[2].eval()
    network(torch.randn(2, 3))  # live weights of a pass with gradients: BLiTZ's deepcopy then fails
    densities = [network[index].log_prior for index in (3, 4)]
    noise = [key for key in network.state_dict() if key.endswith("eps_w")]
    before = {key: value.clone() for key, value in network.state_dict().items() if key not in noise}
    flags = [(module.training, getattr(module, "freeze", None)) for module in network.modules()]
    gradients = [parameter.requires_grad for parameter in network.parameters()]
    names = {name: set(vars(module)) for name, module in network.named_modules()}
    random, numpy_random = torch.get_rng_state(), np.random.get_state()[1].copy()
    to_onnx(network, tmp_path / "network.onnx", torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), random)
    assert np.array_equal(np.random.get_state()[1], numpy_random)
    after = {key: value for key, value in network.state_dict().items() if key not in noise}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [(module.training, getattr(module, "freeze", None)) for module in network.modules()] == flags
    assert [parameter.requires_grad for parameter in network.parameters()] == gradients
    assert {name: set(vars(module)) for name, module in network.named_modules()} == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert densities == [network[index].log_prior for index in (3, 4)]
    network.train()
    assert network(torch.randn(5, 3)).requires_grad
