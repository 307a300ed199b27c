"""The truth is BLiTZ's forward in float64; what a file may be off it follows from what BLiTZ's own float32 is off."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianEmbedding, BayesianGRU, BayesianLinear, BayesianLSTM
from cases import Forward
from torch import Tensor, nn
from yardstick import grown

import murho
from murho import Scaling
from murho.export import functions, proof, samplers, to_onnx, to_ort, to_pt2, to_torchscript, verify, writer, yardstick
from murho.export.generator import normals
from murho.export.montecarlo import Plan
from murho.export.precision import in_precision
from murho.export.reference import Reference, generator_epsilon
from murho.export.subject import examine
from murho.runtime.artifact import read
from murho.runtime.compare import MULTIPLE, TOLERANCE

EXPORTS = {"onnx": to_onnx, "pt": to_torchscript, "pt2": to_pt2}
WIDE = {"posterior_rho_init": -3.0}


def rows(*sizes: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(sizes, dtype=np.float32)


# Networks whose float32 is coarse


def deep() -> tuple[nn.Module, np.ndarray]:
    """Twelve layers that each magnify what the one before rounded."""
    inner = [part for _ in range(12) for part in (grown(BayesianLinear(24, 24, **WIDE), 6.0), nn.Tanh())]
    return nn.Sequential(BayesianLinear(8, 24, **WIDE), *inner, BayesianLinear(24, 1, **WIDE)), rows(5, 8)


def wide() -> tuple[nn.Module, np.ndarray]:
    """A sum of 512 terms that nearly cancel to an angle."""
    first, head = BayesianLinear(512, 16, **WIDE), BayesianLinear(16, 1, **WIDE)
    return Forward(lambda net, x: net.head(torch.sin(net.first(x + 30.0))), first=first, head=head), rows(5, 512)


def long() -> tuple[nn.Module, np.ndarray]:
    """200 steps with large weights."""
    lstm, head = grown(BayesianLSTM(1, 16, **WIDE), 12.0), BayesianLinear(16, 1, **WIDE)
    return Forward(lambda net, x: net.head(net.lstm(x)[0][:, -1]), lstm=lstm, head=head), rows(5, 200, 1)


def front(small: float = 1e-3) -> tuple[nn.Module, np.ndarray]:
    """The small difference of two layers, before any weight is sampled."""
    one, other, head = nn.Linear(64, 16), nn.Linear(64, 16), BayesianLinear(16, 1, **WIDE)
    other.load_state_dict(one.state_dict())
    network = Forward(
        lambda net, x: net.head((net.one(x) - net.other(x + small)) / small), one=one, other=other, head=head
    )
    return network, rows(5, 64)


def small() -> tuple[nn.Module, np.ndarray]:
    return nn.Sequential(BayesianLinear(3, 8, **WIDE), nn.Tanh(), BayesianLinear(8, 1, **WIDE)), rows(5, 3)


COARSE = {"deep": deep, "wide": wide, "long": long, "front": front}


def made(build: Callable[[], tuple[nn.Module, np.ndarray]]) -> tuple[nn.Module, np.ndarray]:
    torch.manual_seed(0)
    return build()


@pytest.fixture(autouse=True)
def few_draws_in_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "LAW_DRAWS", 200)  # the tests in law are not what is tried here


@pytest.mark.parametrize("name", COARSE)
def test_a_network_whose_float32_is_coarse_is_held_to_float64(tmp_path: Path, name: str) -> None:
    network, x = made(COARSE[name])
    card = to_onnx(network, tmp_path / "a.onnx", x)
    exact = card.verification["exact"]
    assert exact["truth"] == "float64"
    assert exact["multiple"] == MULTIPLE
    assert exact["float32_error"] > TOLERANCE / MULTIPLE
    assert exact["allowed"] == pytest.approx(MULTIPLE * exact["float32_error"])
    assert exact["largest_error"] <= exact["allowed"]
    if name == "long":  # errors grow along a sequence, and so does what is allowed: a step is held to what it rounds
        allowed = {case["steps"]: case["allowed"] for case in exact["cases"]}
        assert allowed[1] < 1.1 * TOLERANCE
        assert allowed[203] > 5 * TOLERANCE
    # Held to BLiTZ's float32, as if that were the truth, the file would be further off than 1e-5.
    if name == "front":  # which torch computes as BLiTZ does
        return
    subject = examine(network, x, Plan(Scaling()))
    subject = dataclasses.replace(subject, plan=dataclasses.replace(subject.plan, precise=False))
    with pytest.raises(murho.ExportError, match=r"disagrees with BLiTZ .* \(allowed: 1e-05\)"):
        proof.prove(subject, read(tmp_path / "a.onnx"))


def test_what_a_coarse_network_needs_holds_wherever_two_forms_are_compared(tmp_path: Path) -> None:
    network, x = made(front)
    for suffix, export in EXPORTS.items():
        assert export(network, tmp_path / f"a.{suffix}", x).verification["passed"]
        assert verify(tmp_path / f"a.{suffix}", network, x, trusted=True)["passed"]
    to_ort(tmp_path / "a.onnx", tmp_path / "a.ort")


def test_a_network_whose_answers_hold_few_digits_gets_a_note(tmp_path: Path) -> None:
    network, x = made(lambda: front(1e-5))
    with pytest.warns(
        UserWarning, match=r"magnifies what float32 rounds: .* float64 by up to 0\.\d+ of the largest\. "
    ):
        card = to_onnx(network, tmp_path / "a.onnx", x)
    assert card.verification["exact"]["allowed"] > writer.MOST_MAGNIFIED


def test_a_network_that_float32_holds_is_held_to_1e_5(tmp_path: Path) -> None:
    network, x = made(small)
    exact = to_onnx(network, tmp_path / "a.onnx", x).verification["exact"]
    assert exact["allowed"] == TOLERANCE
    assert 0 < exact["float32_error"] < 1e-6


# What is planted is found


def swap(name: str, old: str, new: str) -> dict[str, Any]:
    attributes, inputs, outputs, body = functions._SOURCES[name]
    assert old in body
    return {name: (attributes, inputs, outputs, body.replace(old, new))}


PLANTED = {
    "gates swapped": lambda: swap("BayesianLSTMLast", "gate_i, gate_f, gate_g", "gate_f, gate_i, gate_g"),
    "noise not scaled": lambda: swap("BayesianWeights", "scatter = Mul(sigma, noise)", "scatter = Mul(mu, noise)"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_wrong_graph_is_seen_in_a_coarse_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    network, x = made(long)
    for name, source in PLANTED[what]().items():
        monkeypatch.setitem(functions._SOURCES, name, source)
    with pytest.raises(murho.ExportError, match=r"disagrees with BLiTZ at equal noise by"):
        to_onnx(network, tmp_path / "a.onnx", x)
    assert list(tmp_path.iterdir()) == []


def one_off(monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """The file that is built has one weight of one layer off by a thousandth; a coded one by one code."""
    built = writer.MonteCarloNetwork

    def planted(network: nn.Module, posteriors: dict[str, Any], *rest: Any) -> Any:
        layer, right = next(reversed(posteriors.items()))
        values = getattr(right, which).clone()
        values[len(values) // 2] *= 1.001
        wrong = dataclasses.replace(right, **{which: values})
        if right.coded:
            codes = right.coded.codes.clone()
            codes[len(codes) // 2] += 1 if codes[len(codes) // 2] < 255 else -1
            form = dataclasses.replace(right.coded, codes=codes)
            wrong = dataclasses.replace(right, sigma=form.expanded()[1], coded=form)
        return built(network, {**posteriors, layer: wrong}, *rest)

    monkeypatch.setattr(writer, "MonteCarloNetwork", planted)


@pytest.mark.parametrize("storage", ["float32", "half"])
@pytest.mark.parametrize("suffix", EXPORTS)
@pytest.mark.parametrize("name", ["small", "front"])
def test_one_sigma_off_by_a_thousandth_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str, storage: str
) -> None:
    network, x = made({"small": small, **COARSE}[name])
    one_off(monkeypatch, "sigma")
    with pytest.raises(
        murho.ExportError, match=r"σ number \d+ of layer '(2|head)' is .* in place of .*, and 1 of \d+ differ"
    ):
        EXPORTS[suffix](network, tmp_path / f"a.{suffix}", x, storage=storage)
    assert list(tmp_path.iterdir()) == []


def test_samples_alone_would_not_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = made(front)
    one_off(monkeypatch, "sigma")
    monkeypatch.setattr(proof, "check_weights", lambda *_: {})
    assert to_onnx(network, tmp_path / "a.onnx", x).verification["passed"]


@pytest.mark.parametrize("suffix", EXPORTS)
def test_one_mean_of_a_frozen_layer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    network, x = made(small)
    network[2].freeze = True
    one_off(monkeypatch, "mu")
    with pytest.raises(murho.ExportError, match=r"The file holds .*weight"):
        EXPORTS[suffix](network, tmp_path / f"a.{suffix}", x)


def test_one_sigma_of_a_local_site_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = made(small)
    one_off(monkeypatch, "sigma")
    with pytest.raises(murho.ExportError, match=r"σ number 4 of layer '2' is"):
        to_onnx(network, tmp_path / "a.onnx", x, sampling="local")


def test_a_sigma_read_otherwise_than_blitz_computes_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = made(small)
    right = samplers.softplus

    def wrong(rho: Tensor) -> Tensor:
        sigma = right(rho)
        sigma.view(-1)[0] *= 1.001
        return sigma

    monkeypatch.setattr(samplers, "softplus", wrong)
    with pytest.raises(murho.ExportError, match=r"murho reads another weight: σ number 0 of layer '0' is"):
        to_onnx(network, tmp_path / "a.onnx", x)


# The user's network in float64, and as it was


class Everything(nn.Module):
    """Buffers, plain tensors, a cache and zeros of its own beside layers of BLiTZ's and torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = BayesianEmbedding(5, 3, **WIDE), BayesianLSTM(3, 4, **WIDE)
        self.gru, self.norm = BayesianGRU(4, 4, **WIDE), nn.BatchNorm1d(4)
        self.head = BayesianLinear(4, 2, **WIDE)
        self.register_buffer("shift", torch.full((4,), 0.1))
        self.plain, self.several, self.cache = torch.full((4,), 0.3), [torch.ones(4), torch.tensor(2.0)], None

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        states = torch.zeros(x.shape[0], 4), torch.zeros(x.shape[0], 4, dtype=torch.float32)
        x = self.gru(self.lstm(x, states)[0])[0][:, -1].float()
        self.cache = self.norm(x) * self.plain + self.shift / self.several[1] + torch.tensor([0.5]) * self.several[0]
        return self.head(self.cache)


def tokens(network: nn.Module) -> tuple[Reference, Tensor]:
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (4, 6)))
    return examine(network, x, Plan(Scaling())).reference, x


def held(network: nn.Module) -> list[Any]:
    """Which tensors a network holds, where, and what they hold."""
    found = []
    for name, module in network.named_modules():
        for key, value in {**module._parameters, **module._buffers, **vars(module)}.items():
            if isinstance(value, Tensor):
                bits = (
                    None if key == "eps_w" else value.detach().numpy().tobytes()
                )  # BLiTZ overwrites it at each sample
                found.append((name, key, id(value), value.data_ptr(), value.dtype, value.stride(), bits))
    return found


def test_the_truth_is_the_closed_form_in_float64() -> None:
    network, x = made(small)
    reference = examine(network, x, Plan(Scaling())).reference
    got = reference.given([torch.from_numpy(x)], [3, 4], generator_epsilon(1))["output"]
    for k, draw in enumerate((3, 4)):
        y = x.astype(np.float64)
        for site, layer in enumerate((network[0], network[2])):
            samplers = layer.weight_sampler, layer.bias_sampler
            mu, rho = (
                np.concatenate([getattr(s, p).detach().double().flatten() for s in samplers]) for p in ("mu", "rho")
            )
            weights = mu + np.log1p(np.exp(rho)) * normals([draw], 1, site, len(mu))[0].astype(np.float64)
            y = y @ weights[: layer.weight_mu.numel()].reshape(layer.weight_mu.shape).T
            y += weights[layer.weight_mu.numel() :]
            y = np.tanh(y) if site == 0 else y
        np.testing.assert_allclose(got[k], y, rtol=1e-13)


def test_what_a_forward_makes_in_float32_is_widened() -> None:
    torch.manual_seed(0)
    reference, x = tokens(Everything().eval())
    assert reference.plan.precise
    got, coarse = (
        reference.given([x], [3, 4], generator_epsilon(1), precision=precision)["output"]
        for precision in (torch.float64, torch.float32)
    )
    assert 0 < np.abs(got - coarse).max() < 1e-6 * np.abs(got).max()
    assert not np.array_equal(got, got.astype(np.float32))


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_put_back_to_the_very_same_tensors(fails: bool) -> None:
    network = Everything()
    network.norm.eval()
    reference, x = tokens(network)
    before, layer = held(network), network.head
    assert layer.weight_mu.data_ptr() == layer.weight_sampler.mu.data_ptr()
    if fails:
        network.head.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("as planned")))
        with pytest.raises(RuntimeError, match="as planned"):
            reference.given([x], [3], generator_epsilon(1))
    else:
        reference.given([x], [3], generator_epsilon(1))
    assert held(network) == before
    assert network.cache is None or network.cache.dtype == torch.float32
    with torch.no_grad():
        layer.weight_sampler.mu[0, 0] = 7.0
    assert layer.weight_mu[0, 0] == 7.0  # still one memory


def test_gradients_and_a_graph_under_way_outlive_it() -> None:
    network, x = made(small)
    loss = network(torch.from_numpy(x)).sum()
    loss.backward(retain_graph=True)
    gradient = network[0].weight_sampler.mu.grad.clone()
    with in_precision(network, torch.float64) as within, within, torch.no_grad():
        assert network(torch.from_numpy(x).double()).dtype == torch.float64
    loss.backward()
    torch.testing.assert_close(network[0].weight_sampler.mu.grad, 2 * gradient)


def test_another_thread_keeps_its_precision() -> None:
    network, _ = made(small)
    with in_precision(network, torch.float64) as within:
        assert torch.zeros(1).dtype == torch.float32
        with within:
            assert torch.zeros(1).dtype == torch.float64
            assert torch.arange(3).float().dtype == torch.float64
            assert torch.ones(1, dtype=torch.float64).to(torch.float32).dtype == torch.float64


def test_a_forward_that_cannot_run_in_float64_is_held_to_blitz_in_float32(tmp_path: Path) -> None:
    def forward(network: Any, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return network.layer(x)

    network = Forward(forward, layer=BayesianLinear(3, 1, **WIDE))
    exact = to_onnx(network, tmp_path / "a.onnx", rows(4, 3)).verification["exact"]
    assert (exact["truth"], exact["float32_error"], exact["allowed"]) == ("float32", None, TOLERANCE)


def test_a_network_in_float64_is_held_to_itself(tmp_path: Path) -> None:
    network, x = made(small)
    exact = to_onnx(network.double(), tmp_path / "a.onnx", x).verification["exact"]
    assert exact["truth"] == "float64"
    assert 0 < exact["float32_error"] < 1e-6
    assert network[0].weight_sampler.mu.dtype == torch.float64


# Other roundings


def test_further_passes_only_where_the_first_explains_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = made(small)
    subject = examine(network, x, Plan(Scaling()))
    measure = yardstick.Yardstick(subject, [(5, 2, None)])
    assert measure.passes == 1
    (case,) = measure.cases
    want, first = case.want["output"], measure.float32_error
    assert measure.compare("output", want, want, ((1.0,), (0.0,))) == (0.0, TOLERANCE)
    assert measure.passes == 1
    error, allowed = measure.compare("output", want * 1.01, want, ((1.0,), (0.0,)))
    assert error > allowed
    assert measure.passes == yardstick.MOST_PASSES
    assert first <= measure.float32_error < 20 * first


def test_the_neighbours_of_a_noise_are_two_units_away() -> None:
    noise = generator_epsilon(3)(0, 0, 1000)
    near = yardstick.nudged(generator_epsilon(3), (1, 0))(0, 0, 1000)
    apart = np.abs(near.astype(np.float64) - noise)
    unit = np.spacing(np.abs(noise).astype(np.float32)).astype(np.float64)
    assert ((0.9 * unit < apart) & (apart < 2.6 * unit)).all()  # after float32's own rounding, of half a unit
    assert 400 < (near > noise).sum() < 600
    remembered = yardstick.remembered(generator_epsilon(3), most=8000)
    assert remembered(0, 0, 1000) is remembered(0, 0, 1000)
    assert remembered(1, 0, 1000) is not remembered(1, 0, 1000)


def test_the_report_in_the_card_is_checked(tmp_path: Path) -> None:
    network, x = made(small)
    card = to_onnx(network, tmp_path / "a.onnx", x)
    for key, value in {"truth": "float16", "float32_error": -1.0, "multiple": 0.0, "allowed": -1.0}.items():
        exact = {**card.verification["exact"], key: value}
        wrong = dataclasses.replace(card, verification={**card.verification, "exact": exact})
        with pytest.raises(murho.ArtifactError, match=rf"verification\.exact\.{key}"):
            murho.runtime.contract.Card.from_json(wrong.to_json())
