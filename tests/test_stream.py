"""Streams: row by row, the same as the whole sequence at once."""

from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianGRU, BayesianLinear, BayesianLSTM
from blitz.utils import variational_estimator
from torch import nn

import murho
from murho.export import to_onnx, to_torchscript
from murho.models import Forecaster
from murho.runtime import ArtifactError, ExportError, InputError, memory

SEED, DRAWS = 4, 50
pytestmark = pytest.mark.filterwarnings("ignore:Layer .lower.:UserWarning")  # the peephole is not the textbook's
WRITERS = {"onnx": to_onnx, "torchscript": to_torchscript}
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}
NOISE = murho.Noise("gaussian", scale=(0.5,))


@variational_estimator
class Stack(nn.Module):
    """x [B, T, 2] -> [B, 1]: two recurrent layers of different kinds, and a peephole."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = BayesianLSTM(2, 4, peephole=True)
        self.upper = BayesianGRU(4, 3)
        self.head = BayesianLinear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.upper(self.lower(x)[0])[0][:, -1])


class LooksBack(Stack):
    """Reads the first row again at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x[:, 0, :1]


class GivenState(Stack):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.upper(self.lower(x)[0], x.new_ones(len(x), 3))[0][:, -1])


class Fixed(Stack):
    def __init__(self) -> None:
        super().__init__()
        self.fixed = nn.LSTM(2, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.fixed(x)[0])


def made(cls: Any = Stack) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = cls()
    return network


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 9, 2), dtype=np.float32)


@pytest.fixture(scope="module", params=WRITERS)
def model(request, tmp_path_factory, rows) -> murho.Model:
    path = tmp_path_factory.mktemp("stream") / f"stack{SUFFIXES[request.param]}"
    scaling = murho.Scaling((1.0,), (2.0,), (3.0,), (4.0,))
    card = WRITERS[request.param](made(), path, rows, streaming=True, noise=NOISE, scaling=scaling)
    assert card.verification["streamed"]["largest_error"] < 1e-5
    assert [state.shape[2] for state in card.states] == [4, 4, 3]  # h and c of the lower layer, h of the upper
    return murho.load(path, trusted=True)


def test_row_by_row_is_the_whole_sequence(model, rows) -> None:
    """Against `predict`, which reads the whole sequence, and was compared with BLiTZ."""
    stream = model.stream(DRAWS, seed=SEED)
    for t in range(rows.shape[1]):
        got, want = stream.step(rows[:, t]), model.predict(rows[:, : t + 1], DRAWS, seed=SEED)
        largest = np.abs((want.samples - 3) / 4).max()  # in the network's units
        for name in ("samples", "mean", "lower", "upper"):
            np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=0, atol=4 * 1e-5 * largest)
    assert stream.rows == rows.shape[1]


def test_several_rows_at_once(model, rows) -> None:
    one, other = model.stream(DRAWS), model.stream(DRAWS)
    for t in range(6):
        last = one.step(rows[:, t])
    other.step(rows[:, :4])
    np.testing.assert_allclose(other.step(rows[:, 4:6]).samples, last.samples, rtol=1e-5, atol=1e-5)


def test_noise_can_be_left_out(model, rows) -> None:
    means = model.stream(DRAWS, seed=SEED, noise=False).step(rows[:, 0])
    want = model.predict(rows[:, :1], DRAWS, seed=SEED, noise=False)
    np.testing.assert_allclose(means.samples, want.samples, rtol=1e-5, atol=1e-5)


def test_saved_and_restored(model, rows, tmp_path) -> None:
    stream = model.stream(DRAWS)
    for t in range(4):
        stream.step(rows[:, t])
    stream.save(tmp_path / "stream.npz")
    want = stream.step(rows[:, 4])
    again = model.stream(DRAWS)
    again.load(tmp_path / "stream.npz")
    assert again.rows == 4
    np.testing.assert_array_equal(again.step(rows[:, 4]).samples, want.samples)


def test_saved_before_the_first_row(model, rows, tmp_path) -> None:
    model.stream(DRAWS).save(tmp_path / "stream.npz")
    stream = model.stream(DRAWS)
    stream.step(rows[:, 1])
    stream.load(tmp_path / "stream.npz")
    np.testing.assert_array_equal(stream.step(rows[:, 0]).samples, model.stream(DRAWS).step(rows[:, 0]).samples)


def test_state_of_another_stream(model, tmp_path) -> None:
    model.stream(DRAWS).save(tmp_path / "stream.npz")
    for other in (model.stream(DRAWS + 1), model.stream(DRAWS, seed=SEED)):
        with pytest.raises(ArtifactError, match="states of another stream"):
            other.load(tmp_path / "stream.npz")
    (tmp_path / "bad.npz").write_bytes((tmp_path / "stream.npz").read_bytes()[:50])
    for name in ("bad.npz", "missing.npz"):
        with pytest.raises(ArtifactError, match="Cannot read the states"):
            model.stream(DRAWS).load(tmp_path / name)


def test_other_number_of_sequences(model, rows) -> None:
    stream = model.stream(DRAWS)
    stream.step(rows[:, 0])
    with pytest.raises(InputError, match="follows 3 sequences, but x has 2 rows"):
        stream.step(rows[:2, 1])
    with pytest.raises(InputError, match="must have 2 along its feature axis"):
        stream.step(rows[:, 1, :1])
    with pytest.raises(InputError, match="finite"):
        stream.step(np.full((3, 2), np.nan))
    assert stream.rows == 1  # nothing was read


def test_stream_is_adapted_to_what_was_observed(model, rows) -> None:
    model = murho.load(model._path, trusted=True)
    stream = model.stream(DRAWS)
    before = stream.step(rows[:, 0])
    for t in range(1, 9):
        model.observe(np.full((3, 1), 1e3))
        after = stream.step(rows[:, t])
    assert (after.upper - after.lower > 1.2 * (before.upper - before.lower)).all()


def drawn(model: murho.Model, monkeypatch) -> list[list[int]]:
    """The draws of every chunk of weights that is drawn from now on."""
    if model.engine == "torchscript":
        pytest.skip("A module of TorchScript draws by itself, at every step.")
    calls: list[list[int]] = []
    sampler = model._engine._sampler
    monkeypatch.setattr(
        model._engine, "_sampler", lambda draws, seed: (calls.append(draws.tolist()), sampler(draws, seed))[1]
    )
    return calls


def test_a_stream_draws_its_weights_once_whatever_is_kept(model, rows, monkeypatch) -> None:
    """And in chunks, on threads: the same answers as in one piece."""
    calls = drawn(model, monkeypatch)
    want = model.stream(DRAWS, seed=SEED)
    alone = [want.step(rows[:, t]) for t in range(6)]
    assert len(calls) == 1
    model = murho.load(model._path, keep_mb=0, threads=2)
    calls = drawn(model, monkeypatch)
    monkeypatch.setattr("murho.runtime.stream.chunk_size", lambda draws, draw_bytes, threads: 16)
    stream = model.stream(DRAWS, seed=SEED)
    for t in range(6):
        got = stream.step(rows[:, t])
        for name in ("samples", "mean", "lower", "upper"):
            np.testing.assert_array_equal(getattr(got, name), getattr(alone[t], name))
    padded = [*range(DRAWS), *[0] * (-DRAWS % 16)]
    assert sorted(calls) == sorted(padded[k : k + 16] for k in range(0, len(padded), 16))


def test_weights_that_do_not_fit_are_drawn_at_every_step(model, rows, monkeypatch) -> None:
    want = [model.stream(DRAWS).step(rows[:, 0])]
    calls = drawn(model, monkeypatch)
    weights = 4 * 64 * sum(site.n for site in model.card.sites)
    need = memory.needed(model.card, 3, 64, 1)
    monkeypatch.setattr(memory, "MOST_BYTES", sum(need.values()) + weights)  # and no room for the states
    stream = model.stream(DRAWS)
    got = stream.step(rows[:, 0])
    assert not stream._drawn
    np.testing.assert_array_equal(got.samples, want[0].samples)
    stream.step(rows[:, 1])
    assert len(calls) == 2


def test_sequences_go_block_by_block(model, rows, monkeypatch) -> None:
    many = np.concatenate([rows] * 5)
    monkeypatch.setattr("murho.runtime.stream.rows_per_block", lambda card, steps: 4)
    stream, others = model.stream(DRAWS, seed=SEED), [model.stream(DRAWS, seed=SEED) for _ in range(0, len(many), 4)]
    for t in range(3):
        got = stream.step(many[:, t]).samples
        for k, other in enumerate(others):
            block = slice(4 * k, 4 * k + 4)
            np.testing.assert_array_equal(other.step(many[block, t]).samples, got[:, block])


def test_states_that_do_not_fit_are_refused_before_any_work(model, rows, monkeypatch) -> None:
    with pytest.raises(
        InputError, match=r"A stream of 50000000 draws of 1 sequences takes .* GiB for its states and an"
    ):
        model.stream(50_000_000)
    states = 2 * 4 * 128 * 3 * sum(state.shape[2] for state in model.card.states)
    need = sum(memory.needed(model.card, 3, 128, 1).values())
    monkeypatch.setattr(memory, "MOST_BYTES", need + states)
    model.stream(128).step(rows[:, 0])
    monkeypatch.setattr(memory, "MOST_BYTES", need + states - 1)
    stream = model.stream(128)  # of one sequence it fits
    monkeypatch.setattr(model._engine, "step", None)
    with pytest.raises(InputError, match="128 draws of 3 sequences"):
        stream.step(rows[:, 0])


def test_plain_artifacts_have_no_stream(exported) -> None:
    with pytest.raises(InputError, match="streaming=True"):
        murho.load(exported("demo").onnx).stream()


@pytest.mark.parametrize(
    ("build", "options", "error", "text"),
    [
        (lambda: made(LooksBack), {}, ExportError, "Fed row by row the network gives another answer"),
        (lambda: made(GivenState), {}, ExportError, "Layer 'upper' is given its first state"),
        (lambda: made(Fixed), {}, ExportError, "Layer 'fixed' is a recurrent layer that samples no weights"),
        (lambda: made(), {"scaling": murho.Scaling(values="differences")}, InputError, "Leave horizon out"),
        (lambda: Forecaster(features=2), {"horizon": 3}, InputError, "Leave horizon out"),
        (lambda: nn.Sequential(BayesianLinear(2, 1)), {}, ExportError, "needs a BayesianLSTM or BayesianGRU"),
    ],
)
def test_networks_that_cannot_stream(tmp_path, rows, build: Any, options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        to_onnx(build(), tmp_path / "x.onnx", rows, streaming=True, **options)
    assert not list(tmp_path.iterdir())


def test_any_onnx_host_can_stream(tmp_path, rows) -> None:
    """Without murho's runtime: zeros in at first, then what came out."""
    import onnxruntime

    path = tmp_path / "stack.onnx"
    card = to_onnx(made(), path, rows, streaming=True)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {"draws": np.arange(16), "seed": np.array(SEED), "levels": np.float32([0.9])}
    states = {state.name: np.zeros((16, 3, state.shape[2]), np.float32) for state in card.states}
    names = [output.name for output in session.get_outputs()]
    for t in range(rows.shape[1]):
        answer = dict(zip(names, session.run(None, feeds | states | {"x": rows[:, t : t + 1]}), strict=True))
        states = {name: answer[name.replace("state", "next")] for name in states}
    want = murho.load(path, trusted=True).predict(rows, 16, 0.9, SEED)
    np.testing.assert_allclose(answer["samples"], want.samples, rtol=0, atol=1e-5 * np.abs(want.samples).max())
    np.testing.assert_allclose(answer["lower"][0], want.lower, rtol=0, atol=1e-5 * np.abs(want.samples).max())
