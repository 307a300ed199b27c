from dataclasses import replace

import pytest
import torch
from blitz.modules import BayesianGRU
from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from random_networks import SIZES, Convolution, Linear, Parallel, Plain, Recurrent, Spec, bayesian_calls, build, specs
from random_parity import MismatchError, check, why_refused

from murho import ExportError

# Of each form of input, others for each format: 48 networks. torch's exporters take most of the time.
EXAMPLES = {"onnx": 3, "torchscript": 2, "pt2": 1}


@pytest.mark.parametrize("format", EXAMPLES)
@pytest.mark.parametrize("form", SIZES)
def test_a_random_network_says_what_blitz_says(form: str, format: str) -> None:
    tried: set[Spec] = set()

    @seed(list(EXAMPLES).index(format))
    @settings(
        max_examples=EXAMPLES[format],
        database=None,
        deadline=None,
        phases=[Phase.generate],  # a failure prints its spec; shrinking it would take many minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(specs(form))
    def holds(spec: Spec) -> None:
        assert 1 <= bayesian_calls(spec.blocks) <= 6
        try:
            check(build(spec), (format,))
        except ExportError as error:
            if why_refused(error):
                reject()  # for another network in its place
            raise
        tried.add(spec)

    holds()
    assert len(tried) == EXAMPLES[format]


def test_a_tensor_that_is_flattened_twice_is_exported_to_onnx() -> None:
    flat = Plain("flatten")
    convolution = Convolution(out=3, kernel=2, padding=1, groups=2, bias=False)
    spec = Spec("map2", (Parallel((flat, convolution), (flat,)),), head=3)
    assert check(build(spec), ("onnx",)).error <= 1e-5


GRU = Spec("sequence", (Recurrent("gru", 4), Linear(2)))


def spread(network: torch.nn.Module) -> None:
    """σ larger by 1 %, by way of ρ."""
    with torch.no_grad():
        for name, rho in network.named_parameters():
            if name.endswith("_sampler.rho"):
                rho.copy_(torch.log(torch.expm1(1.01 * torch.log1p(torch.exp(rho)))))


def swap_gates(network: torch.nn.Module) -> None:
    """The reset and update gates of a GRU, one in the place of the other."""
    gru = next(module for module in network.modules() if isinstance(module, BayesianGRU))
    with torch.no_grad():
        for sampler in (gru.weight_ih_sampler, gru.weight_hh_sampler, gru.bias_sampler):
            h = gru.out_features
            sampler.mu.copy_(torch.cat([sampler.mu[..., h : 2 * h], sampler.mu[..., :h], sampler.mu[..., 2 * h :]], -1))


@pytest.mark.parametrize("damage", [spread, swap_gates])
def test_a_file_of_another_posterior_is_seen(damage) -> None:
    built = build(GRU)
    damage(built.network)  # the reference is built afresh from the spec, and does not have it
    with pytest.raises(MismatchError, match="'output', B=1"):
        check(built, ("torchscript",))


def test_noise_of_another_site_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(Spec("rows", (Parallel((Linear(3),), (Plain("tanh"), Linear(3))),)))
    assert check(built, ("torchscript",)).error <= 1e-5
    swapped = replace(built, spec=Spec("rows", (Parallel((Plain("tanh"), Linear(3)), (Linear(3),)),)))
    with pytest.raises(MismatchError):
        check(swapped, ("torchscript",))


def test_a_spec_prints_as_what_builds_it_again() -> None:
    again = build(eval(repr(GRU))).network.state_dict()
    for name, values in build(GRU).network.state_dict().items():
        assert name.endswith("eps_w") or torch.equal(values, again[name]), name  # BLiTZ leaves that memory as it is
