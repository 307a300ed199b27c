"""What people pass to forward: ids, masks, edge lists, flags, dicts and lists of tensors. Exported as it is."""

import json
import re
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianEmbedding, BayesianLinear
from torch import Tensor, nn
from typer.testing import CliRunner

import murho
from murho.cli.app import app
from murho.export import to_onnx, to_pt2, to_torchscript, verify
from murho.export.generator import normals
from murho.runtime.typical import typical_inputs

RHO = {"posterior_rho_init": -2.0}
SEED = 11
WRITERS = {"onnx": (to_onnx, "onnx"), "torchscript": (to_torchscript, "pt"), "pt2": (to_pt2, "pt2")}
Pair = namedtuple("Pair", ("left", "right"))
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*still where BLiTZ")


def linear(*sizes: int) -> nn.Module:
    return BayesianLinear(*sizes, **RHO)


def embedding(*sizes: int) -> nn.Module:
    return BayesianEmbedding(*sizes, **RHO)


class Layers(nn.Module):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class Tasks(Layers):
    """A head for each task."""

    def forward(self, x: Tensor, task: int, double: bool = False, *, scale: Tensor | None = None) -> Tensor:
        y = self.one(x) if task == 0 else self.other(x)
        y = 2 * y if double else y
        return y if scale is None else y * scale


class Ratings(Layers):
    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (self.users(user) * self.items(item)).sum(-1, keepdim=True)


class Column(Layers):
    """Plain numbers [B] -> [B]."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x.unsqueeze(-1)))).squeeze(-1)


class Attention(Layers):
    """Steps [B, T, F] that see each other where the mask [T, T] is true."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q = self.body(x)
        weights = (q @ q.transpose(1, 2)).masked_fill(~mask, -1e9).softmax(-1)
        return self.head((weights @ q).mean(1))


class Padded(Layers):
    """A mean over the steps that are no padding."""

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        kept = (~padding).unsqueeze(-1).to(x.dtype)
        return self.head((torch.tanh(self.body(x)) * kept).sum(1) / kept.sum(1))


class Graph(Layers):
    """Values [B, N] on nodes, whose neighbours' values are added along edges [2, E]."""

    def forward(self, edges: Tensor, x: Tensor) -> Tensor:
        around = torch.zeros_like(x).index_add(1, edges[1], x[:, edges[0]])
        return self.head(torch.relu(self.body(torch.cat([x, around], 1))))


class Lookup(Layers):
    """Features of items from a table [N, F] that every call gives anew."""

    def forward(self, ids: Tensor, table: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(table[ids])))


class OneDict(Layers):
    def forward(self, batch: dict[str, Any]) -> Tensor:
        hidden = torch.cat([self.body(batch["x"]), self.words(batch["ids"])], 1)
        return self.head(torch.relu(hidden) if batch.get("rectified") else hidden)


class OneList(Layers):
    def forward(self, parts: Any) -> Tensor:
        return self.head(torch.cat([self.body(parts[0]), self.other(parts[1])], 1))


class AnyNumber(OneList):
    def forward(self, *parts: Tensor) -> Tensor:
        return super().forward(parts)


class AnyName(OneList):
    def forward(self, x: Tensor, **named: Tensor) -> Tensor:
        return super().forward((x, named["other"]))


class ByNameAlone(OneList):
    def forward(self, *, x: Tensor, other: Tensor) -> Tensor:
        return super().forward((x, other))


class Nested(OneList):
    def forward(self, pair: Pair, sizes: list[int], how: str) -> Tensor:
        assert how == "sum"
        assert isinstance(pair, Pair)
        return super().forward(pair).reshape(-1, *sizes)


class Positions(Layers):
    """The places of steps have embeddings, one row [1, T, F] for all of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        places = self.places(torch.arange(x.shape[1], device=x.device).unsqueeze(0))
        return self.head(torch.tanh(self.body(x) + places).mean(1))


random = np.random.default_rng(0)


def rows(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def ids(most: int, *shape: int) -> np.ndarray:
    return random.integers(0, most, shape)


def tasks() -> nn.Module:
    return Tasks(one=linear(3, 2), other=linear(3, 2))


def two(cls: type[nn.Module]) -> Callable[[], nn.Module]:
    return lambda: cls(body=linear(3, 4), other=linear(2, 3), head=linear(7, 1))


EDGES = np.array([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
TRIANGLE = np.tril(np.ones((6, 6), bool))
PADDING = np.arange(6) >= random.integers(1, 7, (5, 1))


@dataclass
class Case:
    build: Callable[[], nn.Module]
    example: Any
    call: Callable[[nn.Module, tuple[Tensor, ...]], Tensor]
    """The network on the card's inputs, as its user would call it."""
    inputs: str
    """Of the card."""
    options: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    """Of the card."""
    note: str = ""


NOTE_TASK = "task = 1, double = True: constant in the file"
CASES: dict[str, Case] = {
    "a flag and a number": Case(
        tasks, {"x": rows(5, 3), "task": 1, "double": True}, lambda net, x: net(*x, 1, True), "x [batch, feature=3]",
        constants={"task": 1, "double": True}, note=NOTE_TASK,
    ),
    "a number by its place": Case(
        tasks, (rows(5, 3), 0), lambda net, x: net(*x, 0), "x [batch, feature=3]", constants={"task": 0},
        note="task = 0: constant",
    ),
    "constants, one a tensor": Case(
        tasks, rows(5, 3), lambda net, x: net(*x, 1, scale=torch.tensor([2.0, 3.0])), "x [batch, feature=3]",
        {"constants": {"task": 1, "scale": torch.tensor([2.0, 3.0])}},
        {"task": 1, "scale": {"dtype": "float32", "shape": [2]}},
    ),
    "ids": Case(
        lambda: Ratings(users=embedding(7, 3), items=embedding(9, 3)), (ids(7, 6), ids(9, 6)), lambda net, x: net(*x),
        "user [batch], item [batch]",
    ),
    "plain numbers, scaled": Case(
        lambda: Column(body=linear(1, 4), head=linear(4, 1)), 10 + 3 * rows(8),
        lambda net, x: 5 + 2 * net((x[0] - 10) / 3), "x [batch]", {"scaling": murho.Scaling(10.0, 3.0, 5.0, 2.0)},
    ),
    "a mask that all rows share": Case(
        lambda: Attention(body=linear(4, 4), head=linear(4, 2)), (rows(5, 6, 4), TRIANGLE), lambda net, x: net(*x),
        "x [batch, time, feature=4], mask [time, time]", note="All rows share the input mask, of shape (6, 6)",
    ),
    "as many rows as the mask has": Case(
        lambda: Attention(body=linear(4, 4), head=linear(4, 2)), (rows(6, 6, 4), TRIANGLE), lambda net, x: net(*x),
        "x [batch, time, feature=4], mask [time, time]", note="All rows share the input mask, of shape (6, 6)",
    ),
    "a mask of each row": Case(
        lambda: Padded(body=linear(4, 4), head=linear(4, 2)), (rows(5, 6, 4), PADDING), lambda net, x: net(*x),
        "x [batch, time, feature=4], padding [batch, time]",
    ),
    "edges first": Case(
        lambda: Graph(body=linear(8, 5), head=linear(5, 2)), (EDGES, rows(5, 4)), lambda net, x: net(x[1], x[0]),
        "x [batch, feature=4], edges [axis0=2, axis1]", note="All rows share the input edges, of shape (2, 5)",
    ),
    "edges that are named": Case(
        lambda: Graph(body=linear(8, 5), head=linear(5, 2)), {"edges": EDGES, "x": rows(2, 4)},
        lambda net, x: net(x[1], x[0]), "x [batch, feature=4], edges [axis0=2, axis1]", {"shared_inputs": ("edges",)},
    ),
    "a table that all rows share": Case(
        lambda: Lookup(body=linear(3, 4), head=linear(4, 1)), (ids(7, 5), rows(7, 3)), lambda net, x: net(*x),
        "ids [batch], table [axis0=7, axis1=3]", {"shared_inputs": ("table",)},
    ),
    "a dict": Case(
        lambda: OneDict(body=linear(3, 4), words=embedding(7, 3), head=linear(7, 1)),
        {"x": rows(5, 3), "ids": ids(7, 5), "rectified": True},
        lambda net, x: net({"x": x[0], "ids": x[1], "rectified": True}), "x [batch, feature=3], ids [batch]",
        constants={"batch_rectified": True}, note="batch_rectified = True: constant",
    ),
    "a list": Case(
        two(OneList), [torch.from_numpy(rows(5, 3)), torch.from_numpy(rows(5, 2))], lambda net, x: net(list(x)),
        "parts0 [batch, feature=3], parts1 [batch, feature=2]",
    ),
    "any number": Case(
        two(AnyNumber), (rows(5, 3), rows(5, 2)), lambda net, x: net(*x), "x0 [batch, feature=3], x1 [batch, feature=2]"
    ),
    "any name": Case(
        two(AnyName), {"x": rows(5, 3), "other": rows(5, 2)}, lambda net, x: net(x[0], other=x[1]),
        "x [batch, feature=3], other [batch, feature=2]",
    ),
    "by name alone": Case(
        two(ByNameAlone), {"other": rows(5, 2), "x": rows(5, 3)}, lambda net, x: net(x=x[1], other=x[0]),
        "other [batch, feature=2], x [batch, feature=3]",
    ),
    "a named tuple, a list of numbers and a word": Case(
        two(Nested), (Pair(rows(5, 3), rows(5, 2)), [1, 1], "sum"), lambda net, x: net(Pair(*x), [1, 1], "sum"),
        "pair0 [batch, feature=3], pair1 [batch, feature=2]", constants={"sizes": [1, 1], "how": "sum"},
        note="sizes = [1, 1], how = 'sum': constant",
    ),
    "one row for all of a batch inside": Case(
        lambda: Positions(places=embedding(20, 4), body=linear(3, 4), head=linear(4, 2)), rows(5, 6, 3),
        lambda net, x: net(*x), "x [batch, time, feature=3]",
    ),
}  # fmt: skip
EVERY_FORMAT = ("a flag and a number", "constants, one a tensor", "ids", "a mask that all rows share", "a dict")


def built(name: str) -> nn.Module:
    torch.manual_seed(1)
    return CASES[name].build()


@contextmanager
def weights_of_draw(network: nn.Module, draw: int) -> Iterator[None]:
    """BLiTZ's samplers give the weights of a draw as the contract has them: site by site, in the order of the calls."""
    state = {"site": 0}
    handles = []

    def enter(layer: Any, _: Any) -> None:
        samplers = [getattr(layer, f"{name}_sampler", None) for name in ("weight", "bias")]
        samplers = [sampler for sampler in samplers if sampler is not None]
        epsilon = normals([draw], SEED, state["site"], sum(sampler.mu.numel() for sampler in samplers))[0]
        state["site"] += 1
        for sampler in samplers:
            mine, epsilon = np.split(epsilon, [sampler.mu.numel()])
            noise = torch.from_numpy(mine.astype(np.float32)).reshape(sampler.mu.shape)
            weights = sampler.mu + torch.nn.functional.softplus(sampler.rho) * noise
            sampler.w, sampler.sigma = weights, torch.ones_like(weights)
            sampler.sample = lambda weights=weights: weights

    for module in network.modules():
        if isinstance(module, BayesianLinear | BayesianEmbedding):
            handles.append(module.register_forward_pre_hook(enter))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def blitz(name: str, network: nn.Module, inputs: tuple[Any, ...], draws: list[int]) -> np.ndarray:
    """[S, B, …]."""
    answers = []
    for draw in draws:
        with weights_of_draw(network, draw), torch.no_grad():
            answers.append(CASES[name].call(network, tuple(torch.from_numpy(x) for x in inputs)).numpy())
    return np.stack(answers)


def inputs_of(card: murho.Card, name: str, count: int) -> tuple[np.ndarray, ...]:
    """Other values than the example's, of `count` rows; whole numbers stay within those of the example."""
    other = np.random.default_rng(count)
    made = []
    for x, array in zip(typical_inputs(card, count), card.inputs, strict=True):
        if array.dtype == "int64" and array.limit is None:
            x = other.integers(0, 4, x.shape)  # nodes, and rows of a table
        elif array.dtype == "float32":
            x = x + other.standard_normal(x.shape, np.float32)
        made.append(x)
    return tuple(made)


ALL = [(name, format) for name in CASES for format in WRITERS if format != "pt2" or name in EVERY_FORMAT]


@pytest.mark.parametrize(("name", "format"), ALL)
def test_what_forward_takes(name: str, format: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    case, network = CASES[name], built(name)
    export, suffix = WRITERS[format]
    card = export(network, tmp_path / f"a.{suffix}", case.example, **case.options)
    notes = [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)]
    notes = [text for text in notes if "still where BLiTZ" not in text and "torch.jit" not in text]
    assert [text.startswith(case.note) for text in notes] == [True] * bool(case.note), notes
    assert ", ".join(map(str, card.inputs)) == case.inputs
    said = {
        key: dict(list(value.items())[:2]) if isinstance(value, dict) else value
        for key, value in card.constants.items()
    }
    assert said == case.constants
    model = murho.load(tmp_path / f"a.{suffix}", trusted=True)
    for count, draws in ((1, [0, 5]), (4, [3, 2**32 - 1, 7]), (6, list(range(17)))):
        x = inputs_of(card, name, count)
        want = blitz(name, network, x, draws)
        got = model.samples(x if len(x) > 1 else x[0], draws, SEED)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
        assert np.abs(want[0] - want[1]).max() > 1e-3 * np.abs(want).max()  # the draws differ


def test_shared_inputs_serve_every_block_and_chunk(tmp_path: Path) -> None:
    """More rows than a block has, more draws than a chunk; and each row's answer alone is the same."""
    name = "edges first"
    with pytest.warns(UserWarning, match="All rows share"):
        card = to_onnx(built(name), tmp_path / "a.onnx", CASES[name].example)
    model = murho.load(tmp_path / "a.onnx")
    x, edges = inputs_of(card, name, 40_000)
    assert murho.runtime.planner.rows_per_block(card, 1) < len(x)
    got = model.samples((x, edges), 33, SEED, chunk=16)
    some = [0, 17, 39_999]
    want = blitz(name, built(name), (x[some], edges), list(range(33)))
    np.testing.assert_allclose(got[:, some], want, rtol=0, atol=1e-5 * np.abs(want).max())
    answer = model.predict({"edges": edges, "x": x[:50]}, 32, parts=True)
    np.testing.assert_array_equal(answer.samples, model.samples((x[:50], edges), 32))
    other = model.samples((x[:50], edges[::-1].copy()), 32)
    assert np.abs(other - answer.samples).max() > 0.01


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masked") / "a.onnx"
    case = CASES["a mask that all rows share"]
    to_onnx(built("a mask that all rows share"), path, case.example, shared_inputs=("mask",))
    return path


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((5, 5), bool), r"mask must have 6 along its time axis, as x has, but has 5"),
        (np.ones((6, 6), int), r"mask must hold True and False alone, not int64"),
        (np.ones(6, bool), r"mask must have 2 axes .*: \(6,\)\. All rows share it\."),
    ],
)
def test_a_wrong_mask(masked: Path, mask: np.ndarray, message: str) -> None:
    with pytest.raises(murho.InputError, match=message):
        murho.load(masked).predict((rows(3, 6, 4), mask), 16)


def test_numbers_are_no_truths_and_truths_no_numbers(masked: Path) -> None:
    with pytest.raises(murho.InputError, match=r"x must hold numbers that fit float32, not bool"):
        murho.load(masked).predict((np.ones((3, 6, 4), bool), TRIANGLE), 16)


def test_a_pickled_model_has_its_shared_inputs(masked: Path) -> None:
    import pickle

    model = murho.load(masked)
    x = rows(3, 6, 4), TRIANGLE
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).samples(x, 16), model.samples(x, 16))


def test_info_prints_constants_and_what_rows_share(masked: Path, tmp_path: Path) -> None:
    to_onnx(tasks(), tmp_path / "a.onnx", rows(5, 3), constants={"task": 1, "scale": torch.ones(2)})
    out = " ".join(CliRunner().invoke(app, ["info", str(tmp_path / "a.onnx")]).output.split())
    assert "constant task │ 1" in out
    assert "constant scale │ float32 [2], SHA-256 " in out
    assert "bool [time, time]" in " ".join(CliRunner().invoke(app, ["info", str(masked)]).output.split())


def test_verify_uses_the_same_constants(tmp_path: Path) -> None:
    network, path = tasks(), tmp_path / "a.onnx"
    with pytest.warns(UserWarning, match="task = 1: constant"):
        to_onnx(network, path, {"x": rows(5, 3), "task": 1})
    assert verify(path, network)["passed"]
    assert verify(path, network, rows(4, 3), constants={"task": 1})["passed"]
    with pytest.raises(murho.InputError, match=r"made with task = 1, but task is 0 here"):
        verify(path, network, rows(4, 3), constants={"task": 0})
    with pytest.raises(murho.InputError, match=r"made with double = 'not given', but double is True here"):
        verify(path, network, rows(4, 3), constants={"task": 1, "double": True})


def test_verify_needs_constant_tensors(tmp_path: Path) -> None:
    network, path = tasks(), tmp_path / "a.onnx"
    given = {"task": 1, "scale": torch.tensor([2.0, 3.0])}
    to_onnx(network, path, rows(5, 3), constants=given)
    with pytest.raises(murho.InputError, match=r"scale is a tensor that is constant in the artifact, float32 \[2\]"):
        verify(path, network)
    assert verify(path, network, constants=given)["passed"]
    with pytest.raises(murho.InputError, match=r"made with scale = \{.*, but scale is \{"):
        verify(path, network, constants={**given, "scale": torch.tensor([2.0, 3.5])})


@pytest.mark.parametrize("name", ["a dict", "a list", "any name", "edges that are named"])
def test_verify_without_an_example(name: str, tmp_path: Path) -> None:
    case, network = CASES[name], built(name)
    example = (
        {key: part for key, part in case.example.items() if key != "rectified"} if name == "a dict" else case.example
    )
    to_onnx(network, tmp_path / "a.onnx", example, **case.options)
    assert verify(tmp_path / "a.onnx", network)["passed"]


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no such constant": (
        rows(5, 3),
        {"constants": {"tsk": 0}},
        r"'tsk', which is no argument: .* takes x, task, double",
    ),
    "no such input": ({"x": rows(5, 3), "tsk": 0}, {}, r"'tsk', which is no argument: .* takes x, task, double, scale"),
    "too many": ((rows(5, 3), 0, True, 1), {}, r"has 4 parts, but the network's forward takes x, task"),
    "twice": ({"x": rows(5, 3), "task": 0}, {"constants": {"task": 0}}, r"'task' is in the example and in constants"),
    "no tensor": ((0, 1), {}, r"holds no tensor or array"),
    "constants of no names": (rows(5, 3), {"constants": [0]}, r"constants must be a dict by the names of forward's"),
    "no such shared input": ((rows(5, 3), 0), {"shared_inputs": ("mask",)}, r"names 'mask', but the inputs are x\."),
    "all shared": ((rows(5, 3), 0), {"shared_inputs": ("x",)}, r"names every input, but one of them must be a batch"),
    "an object": ((rows(5, 3), 0, object()), {}, r"double is <object.* Set anything else in a module around"),
    "a mask of infinities": (
        {"x": rows(5, 3), "task": 0, "scale": np.array([0, -np.inf], np.float32)},
        {"shared_inputs": ("scale",)},
        r"scale must be finite.* as one of True and False, or as a constant",
    ),
}


@pytest.mark.filterwarnings("ignore:.*constant in the file")
@pytest.mark.parametrize(("example", "options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(example: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(murho.InputError, match=message):
        to_onnx(tasks(), tmp_path / "a.onnx", example, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_module_around_takes_what_is_no_plain_value(tmp_path: Path) -> None:
    """The advice for objects."""

    class Around(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x, 0, object())

    assert to_onnx(Around(tasks()), tmp_path / "a.onnx", rows(5, 3)).constants == {}


def test_a_mask_of_infinities_is_a_constant(tmp_path: Path) -> None:
    """The advice for masks that are added."""

    class Added(Layers):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            q = self.body(x)
            return self.head(((q @ q.transpose(1, 2) + mask).softmax(-1) @ q).mean(1))

    network = Added(body=linear(4, 4), head=linear(4, 2))
    mask = torch.zeros(6, 6).masked_fill(torch.from_numpy(~TRIANGLE), -torch.inf)
    card = to_onnx(network, tmp_path / "a.onnx", rows(5, 6, 4), constants={"mask": mask})
    assert card.constants["mask"]["shape"] == [6, 6]


class AllFirst(Layers):
    """Looks up rows after a Bayesian layer has read all of a table."""

    def forward(self, ids: Tensor, table: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(table))[ids])


class PlacesAlone(Positions):
    def forward(self, x: Tensor) -> Tensor:
        places = self.places(torch.arange(x.shape[1]))
        return self.head(torch.tanh(self.body(x) + places).mean(1))


@pytest.mark.filterwarnings("ignore:All rows share")
@pytest.mark.parametrize(
    ("network", "example"),
    [
        (AllFirst(body=linear(3, 4), head=linear(4, 1)), (ids(7, 5), rows(7, 3))),
        (PlacesAlone(places=embedding(20, 4), body=linear(3, 4), head=linear(4, 2)), rows(5, 6, 3)),
    ],
    ids=["a table", "places"],
)
def test_rows_that_are_no_batch_are_refused(network: nn.Module, example: Any, tmp_path: Path) -> None:
    """The advice, a single row or a look-up first, is what `Positions` and `Lookup` above do, which are exported."""
    advice = (
        r"a single row that all share, as in layer\(torch\.arange\(steps\)\[None\]\), or .*layer\(table\[ids\]\) for"
    )
    with pytest.raises(murho.ExportError, match=advice):
        to_onnx(network, tmp_path / "a.onnx", example)


def test_a_table_column_and_a_series(tmp_path: Path) -> None:
    import pandas as pd

    to_onnx(Column(body=linear(1, 4), head=linear(4, 1)), tmp_path / "a.onnx", rows(8), input_names=("price",))
    model, x = murho.load(tmp_path / "a.onnx"), rows(5)
    frame = pd.DataFrame({"other": rows(5), "price": x}, index=list("abcde"))
    answer = model.predict(frame, 32)
    assert list(answer.index) == list("abcde")
    np.testing.assert_array_equal(answer["mean"], model.predict(x, 32).mean)
    np.testing.assert_array_equal(model.samples(frame["price"], 32), model.samples(x, 32))


def test_a_row_without_its_batch(tmp_path: Path) -> None:
    with pytest.raises(
        murho.InputError, match=r"has shape \(3,\), and the network does not take twice.*example\[None\]"
    ):
        to_onnx(nn.Sequential(linear(3, 3)), tmp_path / "a.onnx", rows(3))


def test_a_card_is_written_and_read_with_its_constants(tmp_path: Path) -> None:
    made = to_onnx(tasks(), tmp_path / "a.onnx", rows(5, 3), constants={"task": 1, "scale": torch.ones(2)})
    card = murho.load(tmp_path / "a.onnx").card
    assert card == made
    assert re.fullmatch("[0-9a-f]{64}", json.loads(card.to_json())["constants"]["scale"]["sha256"])
