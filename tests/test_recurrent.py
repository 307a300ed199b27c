"""A small LSTM run by compiled code: against a closed form in float64, and against the file's own nodes."""

from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn

import murho
from murho.export import to_onnx
from murho.models import Forecaster
from murho.runtime import recurrent
from murho.runtime.artifact import read
from murho.runtime.split import split

EPS = np.finfo(np.float32).eps

compiled_only = pytest.mark.skipif(recurrent._compiled is None, reason="the C code was not compiled")


def floats(random: np.random.Generator, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    return (scale * random.standard_normal(shape)).astype(np.float32)


def run(x: np.ndarray, h: np.ndarray, c: np.ndarray, weight: np.ndarray, sequence: bool = True) -> Any:
    """Sequence [S, B, T, H] and last states [S, B, H] of x [B, T, F] or [S, B, T, F] by compiled code."""
    (draws, gates, _), (rows, steps, inputs) = weight.shape, x.shape[-3:]
    hidden = gates // 4
    out = np.empty((draws, rows, steps, hidden) if sequence else 0, np.float32)
    states = [np.empty((draws, rows, hidden), np.float32) for _ in range(2)]
    recurrent._compiled.lstm((draws, rows, steps, inputs, hidden), x, h, c, weight, False, out, *states)
    return out, *states


def exact(x: np.ndarray, h: np.ndarray, c: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The sequence of hidden states in float64, from the equations of Hochreiter & Schmidhuber's cell (1997)."""
    x, h, c, weight = (array.astype(np.float64) for array in (x, h, c, weight))
    draws, hidden, (rows, steps, inputs) = len(weight), weight.shape[1] // 4, x.shape[-3:]
    x = np.broadcast_to(x, (draws, rows, steps, inputs))
    h, c = (np.broadcast_to(state, (draws, rows, hidden)) for state in (h, c))
    answers = []
    for t in range(steps):
        column = np.concatenate([x[:, :, t], h, np.ones((draws, rows, 1))], axis=2)
        i, f, g, o = np.split(np.einsum("sgk,sbk->sbg", weight, column), 4, axis=2)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        answers.append(h)
    return np.stack(answers, axis=2)


@compiled_only
@pytest.mark.parametrize("draws", [1, 7, 8, 17])
@pytest.mark.parametrize(("inputs", "hidden"), [(1, 1), (1, 10), (3, 5), (4, 8), (2, 13)])
@pytest.mark.parametrize("shared", [True, False])
def test_the_closed_form(draws: int, inputs: int, hidden: int, shared: bool) -> None:
    random = np.random.default_rng(draws + 31 * hidden)
    rows, steps = 3, 6
    lead = () if shared else (draws,)
    x = floats(random, (*lead, rows, steps, inputs))
    h, c = (floats(random, (*lead, rows, hidden)) for _ in range(2))
    weight = floats(random, (draws, 4 * hidden, inputs + hidden + 1), 0.5)
    sequence, h_last, c_last = run(x, h, c, weight)
    want = exact(x, h, c, weight)
    # Each step adds some ten roundings of sums of up to 17 terms below 4; the gates shrink what came before.
    np.testing.assert_allclose(sequence, want, rtol=0, atol=10 * steps * EPS)
    np.testing.assert_array_equal(h_last, sequence[:, :, -1])
    turned = np.ascontiguousarray(weight.transpose(0, 2, 1))
    other, states = np.empty_like(sequence), [np.empty_like(h_last) for _ in range(2)]
    recurrent._compiled.lstm((draws, rows, steps, inputs, hidden), x, h, c, turned, True, other, *states)
    np.testing.assert_array_equal(other, sequence)
    alone = run(x, h, c, weight, sequence=False)
    assert alone[0].size == 0
    np.testing.assert_array_equal(alone[1], h_last)
    np.testing.assert_array_equal(alone[2], c_last)


@compiled_only
@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-2, 1.0, 30.0])
def test_small_gates_lose_nothing_to_cancellation(scale: float) -> None:
    random = np.random.default_rng(0)
    x, weight = floats(random, (40, 1, 1)), floats(random, (16, 12, 5), scale)
    zeros = np.zeros((40, 3), np.float32)
    got, want = run(x, zeros, zeros, weight)[0], exact(x, zeros, zeros, weight)
    # A gate is a sum of two terms below 10 scale, half a spacing off at three roundings. It goes through three sigmoids
    # of slope 1/4 at most and a tanh of 1: 27 scale. These and the products add some ten roundings of the result.
    np.testing.assert_allclose(got, want, rtol=0, atol=(27 * scale + 10 * np.abs(want).max()) * EPS)


@compiled_only
@pytest.mark.parametrize("scale", [100.0, 1e6, 1e30])
def test_large_gates_saturate(scale: float) -> None:
    ones, zeros = np.ones((1, 3, 1), np.float32), np.zeros((1, 1), np.float32)
    for signs in np.ndindex(2, 2, 2, 2):
        i, f, g, o = signs
        weight = np.zeros((1, 4, 3), np.float32)
        weight[0, :, 0] = scale * (2 * np.array(signs) - 1)
        c = 0.0
        for h in run(ones, zeros, zeros, weight)[0].ravel():
            c = f * c + i * (2 * g - 1)
            assert h == pytest.approx(o * np.tanh(c), abs=float(4 * EPS))


@compiled_only
def test_what_is_no_number_stays_none() -> None:
    random = np.random.default_rng(0)
    x, weight = floats(random, (2, 5, 1)), floats(random, (3, 12, 5))
    zeros = np.zeros((2, 3), np.float32)
    x[1, 2] = np.nan
    sequence, h_last, c_last = run(x, zeros, zeros, weight)
    assert np.isfinite(sequence[:, 0]).all()
    assert np.isfinite(sequence[:, 1, :2]).all()
    assert np.isnan(sequence[:, 1, 2:]).all()
    assert np.isnan([h_last[:, 1], c_last[:, 1]]).all()


@compiled_only
def test_a_draw_is_the_same_to_the_bit_in_any_company() -> None:
    random = np.random.default_rng(3)
    x, weight = floats(random, (2, 5, 1)), floats(random, (19, 40, 12))
    zeros = np.zeros((2, 10), np.float32)
    together = run(x, zeros, zeros, weight)[0]
    for draw in range(19):
        np.testing.assert_array_equal(run(x, zeros, zeros, weight[draw : draw + 1])[0][0], together[draw])


@compiled_only
@pytest.mark.parametrize("wrong", range(7))
def test_arrays_that_do_not_fit_are_refused(wrong: int) -> None:
    random = np.random.default_rng(0)
    arrays = [floats(random, shape) for shape in ((2, 5, 1), (2, 3), (2, 3), (4, 12, 5), (4, 2, 5, 3))]
    arrays += [np.empty((4, 2, 3), np.float32) for _ in range(2)]
    recurrent._compiled.lstm((4, 2, 5, 1, 3), *arrays[:4], False, *arrays[4:])
    arrays[wrong] = arrays[wrong].ravel()[:-1].copy()
    with pytest.raises(ValueError, match="do not have the sizes"):
        recurrent._compiled.lstm((4, 2, 5, 1, 3), *arrays[:4], False, *arrays[4:])


class Behind(nn.Module):
    """A Bayesian layer before the LSTM, so that each draw has inputs of its own, and an answer for every step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm, self.head = BayesianLinear(2, 3), BayesianLSTM(3, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(torch.tanh(self.first(x)))[0])


class Stack(Behind):
    """Two LSTMs, of which the second starts from the first one's states, and a way past them."""

    def __init__(self) -> None:
        super().__init__()
        self.second = BayesianLSTM(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside, states = self.lstm(torch.tanh(self.first(x)))
        return self.head(inside + self.second(torch.relu(inside), states)[0]) + x


class Frozen(Behind):
    def __init__(self) -> None:
        super().__init__()
        self.lstm.freeze = True


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in ("forecaster", "path"):
        return Forecaster(hidden=6)
    return {"behind": Behind, "frozen": Frozen, "stack": Stack}[name]()


@compiled_only
@pytest.mark.parametrize("name", ["forecaster", "path", "behind", "frozen", "stack"])
def test_artifacts_answer_as_their_own_nodes_do(tmp_path, opened, name: str) -> None:
    made = network(name)
    x = floats(np.random.default_rng(1), (9, 7, 1 if name in ("forecaster", "path") else 2))
    to_onnx(made, tmp_path / "a.onnx", x, horizon=3 if name == "path" else 1)
    halves = split(read(tmp_path / "a.onnx").content)
    compiled, nodes = recurrent.compiled(halves.network, opened), opened(halves.network)
    assert compiled is not None
    for rows, steps, count in ((9, 7, 16), (1, 3, 5), (2, 1, 33)):
        draws = np.arange(count)
        drawn = opened(halves.sampler).run(halves.drawn, {"draws": draws, "seed": np.array(8)})
        feeds = {"x": x[:rows, :steps], "draws": draws, "seed": np.array(8), "levels": np.float32([0.5])}
        feeds |= dict(zip(halves.drawn, drawn, strict=True))
        (want,) = nodes.run(["samples"], {value.name: feeds[value.name] for value in nodes.get_inputs()})
        (got,) = compiled.run(["samples"], feeds)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", ["gru_linear", "mlp"])
def test_other_networks_are_left_to_onnx_runtime(exported, opened, name: str) -> None:
    assert recurrent.compiled(split(read(exported(name).onnx).content).network, opened) is None


def test_large_layers_are_left_to_onnx_runtime(exported, opened, monkeypatch) -> None:
    half = split(read(exported("demo").onnx).content).network
    monkeypatch.setattr(recurrent, "MOST_WEIGHTS", 480)
    assert (recurrent.compiled(half, opened) is None) == (recurrent._compiled is None)
    monkeypatch.setattr(recurrent, "MOST_WEIGHTS", 479)
    assert recurrent.compiled(half, opened) is None


def test_without_compiled_code_the_nodes_compute(exported, monkeypatch) -> None:
    case = exported("demo")
    usual = murho.load(case.onnx).samples(case.example, 40, 3)
    monkeypatch.setattr(recurrent, "_compiled", None)
    plain = murho.load(case.onnx).samples(case.example, 40, 3)
    np.testing.assert_allclose(plain, usual, rtol=0, atol=1e-5 * np.abs(plain).max())
