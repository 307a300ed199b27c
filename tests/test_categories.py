"""Columns of categories, an embedding for each: found, said by the card, and unknown ones refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from blitz.modules import BayesianEmbedding, BayesianLinear
from torch import Tensor, nn

import murho
from murho.export import to_onnx, to_pt2, to_torchscript
from murho.runtime.contract import Array, Scaling
from murho.runtime.typical import typical_input

RHO = {"posterior_rho_init": -2.0}
WRITERS = {"onnx": (to_onnx, "onnx"), "torchscript": (to_torchscript, "pt"), "pt2": (to_pt2, "pt2")}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*still where BLiTZ")
random = np.random.default_rng(0)


class Two(nn.Module):
    """Two embeddings, of 4 and 6 categories, that read what `take` gives of the input."""

    def __init__(self, take: Callable[[Tensor], tuple[Tensor, Tensor]], plain: bool = False) -> None:
        super().__init__()
        make: Any = nn.Embedding if plain else lambda *sizes: BayesianEmbedding(*sizes, **RHO)
        self.one, self.other, self.head = make(4, 3), make(6, 3), BayesianLinear(6, 2, **RHO)
        self.take = take

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.take(x)
        return self.head(torch.relu(torch.cat([self.one(one), self.other(other)], dim=-1)))


class Fields(nn.Module):
    """One embedding for all fields, each of which begins at a row of its own."""

    offsets: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.all, self.head = BayesianEmbedding(10, 3, **RHO), BayesianLinear(6, 1, **RHO)
        self.register_buffer("offsets", torch.tensor([0, 4]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.all(x + self.offsets).flatten(1))


def categories(*most: int, rows: int = 8) -> np.ndarray:
    return np.stack([random.integers(0, n, rows) for n in most], axis=1)


def mixed(rows: int = 8) -> np.ndarray:
    """Floats [rows, 4]: numbers, a category of 4, numbers, a category of 6."""
    numbers, kinds = random.standard_normal((rows, 2)), categories(4, 6, rows=rows)
    return np.stack([numbers[:, 0], kinds[:, 0], numbers[:, 1], kinds[:, 1]], axis=1).astype(np.float32)


def alike() -> np.ndarray:
    """Two columns that happen to be the same in the example."""
    return np.repeat(categories(4, rows=5), 2, axis=1)


FOUND: dict[str, tuple[Callable[[], nn.Module], np.ndarray, Any]] = {
    "columns": (lambda: Two(lambda x: (x[:, 0], x[:, 1])), categories(4, 6), (4, 6)),
    "copied columns": (lambda: Two(lambda x: (x[:, 0].clone(), x.t()[1].contiguous())), categories(4, 6), (4, 6)),
    "columns that are unbound": (lambda: Two(lambda x: x.unbind(1)), categories(4, 6), (4, 6)),
    "columns among others": (lambda: Two(lambda x: (x[:, 2], x[:, 0])), categories(6, 9, 4), (6, None, 4)),
    "columns that keep their axis": (lambda: Two(lambda x: (x[:, :1].squeeze(1), x[:, 1])), categories(4, 6), (4, 6)),
    "equal in the example": (lambda: Two(lambda x: (x[:, 0], x[:, 1])), alike(), (4, 6)),
    "counted from 1": (lambda: Two(lambda x: (x[:, 0] - 1, x[:, 1])), categories(4, 6) + np.array([1, 0]), (5, 6)),
    "one column for both": (lambda: Two(lambda x: (x[:, 0], x[:, 0])), categories(4), (4,)),
    "of floats": (lambda: Two(lambda x: (x[:, 1].long(), x[:, 3].long())), mixed(), (None, 4, None, 6)),
    "of rounded floats": (lambda: Two(lambda x: (x[:, 1].round().int(), x[:, 3].long())), mixed(), (None, 4, None, 6)),
    "fields with offsets": (Fields, categories(4, 6), (10, 6)),
    "ids": (lambda: Two(lambda x: (x, x)), categories(4)[:, 0], 4),
    "float ids": (lambda: Two(lambda x: (x.long(), x.long())), categories(4)[:, 0].astype(np.float32), (4,)),
    "computed": (lambda: Two(lambda x: (x[:, 0] % 4, (x[:, 1] > 2).long())), categories(9, 9), None),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_the_categories_of_a_column_are_found(name: str, tmp_path: Path) -> None:
    build, example, limit = FOUND[name]
    torch.manual_seed(0)
    card = to_torchscript(build(), tmp_path / "a.pt", example)
    assert card.input.limit == limit
    if limit != 4:
        assert card.input.axes[1:] == (("feature",) if example.ndim > 1 and limit else card.input.axes[1:])
    assert murho.load(tmp_path / "a.pt", trusted=True).card == card


@pytest.mark.parametrize(
    ("format", "floats"),
    [("onnx", False), ("onnx", True), ("torchscript", False), ("torchscript", True), ("pt2", True)],
)
def test_a_category_that_the_network_does_not_know(format: str, floats: bool, tmp_path: Path) -> None:
    build, example, _ = FOUND["of floats" if floats else "columns"]
    write, suffix = WRITERS[format]
    write(
        build(),
        tmp_path / f"a.{suffix}",
        example,
        input_names=("u", "kind", "v", "city") if floats else ("kind", "city"),
    )
    model = murho.load(tmp_path / f"a.{suffix}", trusted=True)
    for kind, city, message in (
        (-1, 0, r"\(kind\) of x must hold categories from 0 to 3, but has -1 … 0"),
        (4, 0, r"\(kind\) of x must hold categories from 0 to 3, but has 0 … 4"),
        (0, 6, r"\(city\) of x must hold categories from 0 to 5, but has 0 … 6"),
    ):
        x = np.array([[0, 0], [kind, city]])
        x = np.insert(x.astype(np.float32), [0, 1], 0.5, axis=1) if floats else x
        with pytest.raises(murho.InputError, match=message):
            model.predict(x, 16)
    assert np.isfinite(model.predict(example, 16).mean).all()


@pytest.mark.parametrize(
    ("format", "plain"),
    [("onnx", False), ("onnx", True), ("torchscript", False), ("torchscript", True), ("pt2", False)],
)
def test_a_computed_category_is_an_error_in_the_file_itself(format: str, plain: bool, tmp_path: Path) -> None:
    """No door can know it. A negative one must not count from the end, nor one too many read another draw's row."""
    write, suffix = WRITERS[format]
    network = Two(lambda x: ((x[:, 0] * 2).long(), x[:, 1].long()), plain)
    example = np.stack([np.arange(8) % 4 / 2, np.arange(8) % 6], axis=1).astype(np.float32)
    card = write(network, tmp_path / f"a.{suffix}", example)
    assert card.input.limit == (None, 6)
    model = murho.load(tmp_path / f"a.{suffix}", trusted=True)
    for value in (-0.5, 2.0, 1e6):
        with pytest.raises(murho.InputError, match="hold a category or token, or a sequence is longer, than what"):
            model.predict(np.array([[value, 1]], np.float32), 16)
    assert np.isfinite(model.predict(example, 16).mean).all()


@pytest.mark.parametrize("plain", [False, True])
def test_a_bare_session_refuses_it_too(plain: bool, tmp_path: Path, capfd: Any) -> None:
    """A host without a door, C++ for example."""
    to_onnx(Two(lambda x: (x[:, 0], x[:, 1]), plain), tmp_path / "a.onnx", categories(4, 6))
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    feeds = {"draws": np.arange(8), "seed": np.array(0), "levels": np.array([0.5], np.float32)}
    assert np.isfinite(session.run(["mean"], {"x": np.array([[3, 5]]), **feeds})[0]).all()
    for bad in ([-1, 0], [4, 0], [0, -6], [0, 6]):
        with pytest.raises(Exception, match="out of data bounds"):
            session.run(["mean"], {"x": np.array([bad]), **feeds})


def test_a_place_beyond_the_last_is_an_error(tmp_path: Path) -> None:
    """The file takes any number of steps, the network has places for 9."""

    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places, self.body = BayesianEmbedding(9, 4, **RHO), nn.Linear(3, 4)
            self.head = BayesianLinear(4, 1, **RHO)

        def forward(self, x: Tensor) -> Tensor:
            places = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], x.shape[1])
            return self.head(torch.tanh(self.body(x) + self.places(places)).mean(1))

    to_onnx(Places(), tmp_path / "a.onnx", random.standard_normal((5, 6, 3)).astype(np.float32))
    model = murho.load(tmp_path / "a.onnx")
    assert np.isfinite(model.predict(np.ones((2, 9, 3)), 16).mean).all()
    with pytest.raises(murho.InputError, match="a sequence is longer, than what the network has"):
        model.predict(np.ones((2, 10, 3)), 16)


def test_a_table_of_categories(tmp_path: Path) -> None:
    """By the names of its columns, of whatever type of whole numbers."""
    to_onnx(Two(lambda x: (x[:, 0], x[:, 1])), tmp_path / "a.onnx", categories(4, 6), input_names=("kind", "city"))
    model, x = murho.load(tmp_path / "a.onnx"), categories(4, 6)
    frame = pd.DataFrame({"city": pd.array(x[:, 1], "Int64"), "other": 1.5, "kind": x[:, 0].astype(np.int8)})
    np.testing.assert_array_equal(model.samples(frame, 16), model.samples(x, 16))


def test_the_proof_and_typical_inputs_keep_to_categories() -> None:
    array = Array("x", ("batch", "feature"), (None, 3), "float32", limit=(None, 4, 100))
    x = typical_input(array, Scaling((5.0,), (2.0,)), 200)
    assert x.dtype == np.float32
    assert set(x[:, 1]) == {0, 1, 2, 3}
    assert (x[:, 2] == x[:, 2].round()).all()
    assert x[:, 2].max() > 50
    assert x[:, 2].min() >= 0
    assert not (x[:, 0] == x[:, 0].round()).any()
    tokens = typical_input(Array("x", ("batch", "feature"), (None, 2), "int64", limit=(3, 50)), Scaling(), 200)
    assert (tokens.max(axis=0) < [3, 50]).all()
    assert tokens[:, 1].max() > 30


def test_many_categories_in_a_float_column_survive_the_proof(tmp_path: Path) -> None:
    """Rows like the example's are moved a little for the proof, which must not move an id beyond the last."""

    class Ids(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.head = BayesianEmbedding(1000, 3, **RHO), BayesianLinear(4, 1, **RHO)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.items(x[:, 1].long()), x[:, :1]], dim=1))

    example = np.stack([random.standard_normal(6), [0, 999, 999, 0, 999, 1]], axis=1).astype(np.float32)
    assert to_onnx(Ids(), tmp_path / "a.onnx", example).input.limit == (None, 1000)
