import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from scipy import stats

from murho.export import functions
from murho.export.generator import normals, torch_normals
from murho.runtime import drawing

# ε = radius · cos or sin of an angle. The radius is at most sqrt(-2 ln 2^-25) = 5.89. The angle, up to 2π, is rounded
# to float32 as a product and as a sum (half a spacing of 2^-21 each: 4.8e-7 in all), and the float32 of π in it is off
# by 2.8e-8 of itself (1.7e-7): this moves ε by 5.89 · 6.5e-7 = 3.8e-6. Logarithm, root, cosine and the last product add
# a few half ULP of a value below 5.9 (2.4e-7 each).
TOLERANCE = 5e-6

SEEDS = (0, 1, 42, -1, -(2**63), 2**63 - 1, 2**32, 2**32 + 42, -(2**40) + 7, 123456789012345)
STREAMS = (0, 3, 31, 2**31 - 1)


def onnx_form(draws: list[int], seed: int, stream: int, n: int) -> np.ndarray:
    session = _session(stream)
    feeds = {"draws": np.array(draws, np.int64), "seed": np.array(seed, np.int64), "n": np.array([n], np.int64)}
    return session.run(None, feeds)[0]


def _session(stream: int) -> onnxruntime.InferenceSession:
    node = helper.make_node("Normals", ["draws", "seed", "n"], ["noise"], domain="murho", stream=stream)
    return _opened(node, [helper.make_tensor_value_info("n", TensorProto.INT64, [1])], [])


def _opened(
    node: onnx.NodeProto, inputs: list[onnx.ValueInfoProto], constants: list[onnx.TensorProto]
) -> onnxruntime.InferenceSession:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "noise",
        [info("draws", TensorProto.INT64, ["S"]), info("seed", TensorProto.INT64, []), *inputs],
        [info(node.output[0], TensorProto.FLOAT, ["S", "n"])],
        constants,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("murho", 1)]
    called = functions.functions({node.op_type})
    model = helper.make_model(graph, functions=called, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def torch_form(draws: list[int], seed: int, stream: int, n: int) -> np.ndarray:
    return torch_normals(torch.tensor(draws), torch.tensor(seed), stream, n).numpy()


SCRIPTED = torch.jit.script(torch_normals)


def scripted_form(draws: list[int], seed: int, stream: int, n: int) -> np.ndarray:
    return SCRIPTED(torch.tensor(draws), torch.tensor(seed), stream, n).numpy()


def compiled_form(draws: list[int], seed: int, stream: int, n: int) -> np.ndarray:
    if drawing._compiled is None:
        pytest.skip("the C code was not compiled")
    out = np.empty((len(draws), n), np.float32)
    drawing._compiled.draw(
        np.array(draws, np.int64), seed, stream, np.zeros(n, np.float32), np.ones(n, np.float32), out
    )
    return out


def numpy_form(draws: list[int], seed: int, stream: int, n: int) -> np.ndarray:
    return normals(draws, seed, stream, n)


DERIVED = {"torch": torch_form, "torchscript": scripted_form, "onnx": onnx_form, "compiled": compiled_form}
FORMS = {"numpy": numpy_form, **DERIVED}
backends = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def by_hand(draw: int, element: int, n: int, seed: int, stream: int) -> float:
    """One normal in Python's own integers and floats, as docs/generator.md defines it."""
    quarter = -(-n // 4)
    j, lane = element % quarter, element // quarter
    key = ((seed ^ (stream << 32)) + 0x9E3779B97F4A7C15) % 2**64
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB % 2**64
    key ^= key >> 31
    v = [(j * 1664525 + 1013904223) % 2**32, (draw * 1664525 + 1013904223) % 2**32, key >> 32, key % 2**32]
    v[0] ^= v[0] >> 16
    v[1] = (v[1] ^ (v[1] >> 16)) * 0x7FEB352D % 2**32
    v[1] = (v[1] ^ (v[1] >> 15)) * 0x846CA68B % 2**32
    v[1] ^= v[1] >> 16

    def mix() -> None:
        v[0] = (v[0] + v[1] * v[3]) % 2**32
        v[1] = (v[1] + v[2] * v[0]) % 2**32
        v[2] = (v[2] + v[0] * v[1]) % 2**32
        v[3] = (v[3] + v[1] * v[2]) % 2**32

    mix()
    v = [k ^ (k >> 16) for k in v]
    mix()
    u = [float(np.float32(k >> 8) * np.float32(2**-24) + np.float32(2**-25)) for k in v]
    radius = math.sqrt(-2 * math.log(u[0 if lane < 2 else 2]))
    angle = 2 * math.pi * u[1 if lane < 2 else 3]
    return radius * (math.cos(angle) if lane % 2 == 0 else math.sin(angle))


@backends
def test_check_values(form) -> None:
    got = form(list(range(1000)), 42, 3, 480)
    assert got.shape == (1000, 480)
    # The printed digits: half a unit of the last one, 5e-8 of values near 1.
    want = [-0.6859747, -1.2199092, -2.0420113, 1.7551338, 0.6792765]
    np.testing.assert_allclose(got[0, :5], want, rtol=0, atol=TOLERANCE)
    assert got.sum(dtype=np.float64) / 480000 == pytest.approx(-0.00221199, abs=1e-7)


@pytest.mark.parametrize("n", [5, 8, functions.ONE_BY_ONE - 1, functions.ONE_BY_ONE, functions.ONE_BY_ONE + 1])
def test_weights_of_small_and_large_layers(n: int) -> None:
    random = np.random.default_rng(n)
    mu, sigma = random.standard_normal((2, n)).astype(np.float32)
    constants = [numpy_helper.from_array(mu, "mu"), numpy_helper.from_array(sigma, "sigma")]
    node = helper.make_node("BayesianWeights", ["draws", "seed", "mu", "sigma"], ["weights"], domain="murho", site=3)
    session = _opened(node, [], constants)
    draws = np.arange(32)
    (got,) = session.run(None, {"draws": draws, "seed": np.array(42)})
    want = mu + sigma * normals(draws, 42, 3, n)
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * np.abs(sigma).max())
    (half,) = session.run(None, {"draws": draws[16:], "seed": np.array(42)})
    assert np.array_equal(half, got[16:])


@backends
@pytest.mark.parametrize("seed", SEEDS)
def test_the_definition_element_by_element(form, seed: int) -> None:
    n, draws = 13, [0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1]
    got = form(draws, seed, 5, n)
    want = [[by_hand(draw, element, n, seed, 5) for element in range(n)] for draw in draws]
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("form", DERIVED.values(), ids=DERIVED.keys())
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 480, 481, 482, 483, 512, 513, 1100])
def test_agrees_with_the_reference(form, stream: int, n: int) -> None:
    """A single wrong bit in the integers moves a normal by far more than the tolerance, somewhere among so many."""
    draws = [0, 7, 100_000, 2**31, 2**32 - 1]
    for seed in (42, -3, 2**33 + 5):
        got = form(draws, seed, stream, n)
        assert got.dtype == np.float32
        assert got.shape == (5, n)
        np.testing.assert_allclose(got, normals(draws, seed, stream, n), rtol=0, atol=TOLERANCE)


@backends
def test_draws_count_modulo_two_to_the_32(form) -> None:
    names = [0, 1, 17, 2**32 - 1]
    np.testing.assert_array_equal(form(names, 9, 1, 50), form([name + 2**32 for name in names], 9, 1, 50))
    np.testing.assert_array_equal(form([2**32 - 1], 9, 1, 50), form([-1], 9, 1, 50))


@backends
def test_an_element_does_not_depend_on_its_company(form) -> None:
    """A draw is the same among others, up to how the place in a vector rounds."""
    together = form(list(range(64)), 3, 2, 100)
    np.testing.assert_allclose(form([40, 9], 3, 2, 100), together[[40, 9]], rtol=0, atol=TOLERANCE)


def test_every_seed_bit_and_stream_counts() -> None:
    keys = [(0, 0)] + [(1 << bit if bit < 63 else -(2**63), 0) for bit in range(64)] + [(0, s) for s in range(1, 32)]
    seen = {normals([0], seed, stream, 8).tobytes() for seed, stream in keys}
    # The high half of a seed is xored into the stream, as the design has it: seed 2^32 · s with stream 0 is seed 0 with
    # stream s.
    shared = sum(1 for s in range(1, 32) if s & (s - 1) == 0)
    assert len(seen) == len(keys) - shared


@pytest.mark.parametrize("seed", [0, 7, -1, 2**40 + 3])
def test_standard_normal(seed: int) -> None:
    sample = normals(np.arange(2000), seed, 1, 500).ravel()
    count = len(sample)
    # Standard errors of mean, variance, skewness and kurtosis of N(0, 1): sqrt(1/n, 2/n, 6/n, 24/n); five of each
    # leave a chance of 6e-7 a test.
    moments = sample.mean(), sample.var() - 1, stats.skew(sample), stats.kurtosis(sample)
    for moment, variance in zip(moments, (1, 2, 6, 24), strict=True):
        assert abs(moment) < 5 * math.sqrt(variance / count)
    assert stats.kstest(sample, "norm").pvalue > 1e-5
    assert stats.kstest(sample[:2000] ** 2, stats.chi2(1).cdf).pvalue > 1e-5


def test_neighbours_are_uncorrelated() -> None:
    count, n = 400, 400
    base = normals(np.arange(count), 11, 4, n)
    others = {
        "stream": normals(np.arange(count), 11, 5, n),
        "seed": normals(np.arange(count), 12, 4, n),
        "seed's upper half": normals(np.arange(count), 11 + 2**32, 4, n),
        "draw": normals(np.arange(1, count + 1), 11, 4, n),
        "element": np.roll(base, 1, axis=1),
        "lane": np.roll(base, n // 4, axis=1),
    }
    # A correlation of independent normals has a standard error of 1/sqrt(pairs); its square (dependence of the spreads)
    # the same. Five of them: 6e-7 a test.
    bound = 5 / math.sqrt(count * n)
    for name, other in others.items():
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < bound, name
        assert abs(np.corrcoef(base.ravel() ** 2, other.ravel() ** 2)[0, 1]) < bound, name


def test_the_correlation_bound_can_fail() -> None:
    base = normals(np.arange(400), 11, 4, 400)
    mixed = base * 0.02 + normals(np.arange(400), 12, 4, 400)
    assert abs(np.corrcoef(base.ravel(), mixed.ravel())[0, 1]) > 5 / math.sqrt(base.size)
