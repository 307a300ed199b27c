"""Check the whole of an ONNX model before a session is made of it: its structure, its sizes, and what its card says.

The model is data from a stranger. Nothing in it may make ONNX Runtime read another file, run for ever, or grow beyond
what the file's size lets expect. What murho.export never writes is refused.
"""

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from .conformal import tables
from .contract import CALIBRATION_SLOTS, NEXT, NOISE_INPUT, OUTPUTS, Array, Card
from .onnx_wire import UnknownFieldError, parsed

# Types of tensors: bytes of an element, and the field of a TensorProto that may hold them in place of raw_data.
_FLOAT32 = 1
_DTYPES = {"float32": _FLOAT32, "int64": 7, "bool": 9}
_TYPES = {
    1: (4, 4), 2: (1, 5), 3: (1, 5), 4: (2, 5), 5: (2, 5), 6: (4, 5), 7: (8, 7), 9: (1, 5), 10: (2, 5), 11: (8, 10),
    12: (4, 11), 13: (8, 11), 16: (2, 5),
}  # fmt: skip
_FLOATING = {1: "<f4", 10: "<f2", 11: "<f8"}

DOMAINS = ("", "ai.onnx", "murho")
REFUSED = frozenset(
    {"Loop", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
    | {"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceMap", "SplitToSequence", "Optional"}
    | {"ImageDecoder", "StringConcat", "StringSplit", "StringNormalizer", "RegexFullMatch", "TfIdfVectorizer"}
)
"""Operators that have no place in an artifact: endless, random, or of values that are no tensors of numbers."""
_EXPANDING = frozenset(("Cast", "Mul", "Add", "Exp", "Where", "Constant"))
"""All that may stand in the functions which expand a stored posterior: none makes more elements than it reads."""
MOST_DEPTH = 8  # of graphs in nodes in graphs
MOST_NODES = 2**18
"""Nodes of a model with every function put in the place of its calls."""
MOST_AXES = 16


def check_model(model: memoryview, card: Card) -> None:
    """Raises ValueError, whose text says what is wrong."""
    _Check(card).model(model)


class _Node:
    """What is asked of a node."""

    __slots__ = ("attributes", "domain", "kind", "makes", "reads")

    def __init__(self, found: dict[int, list[Any]]) -> None:
        self.reads, self.makes = found.get(1, ()), found.get(2, ())
        self.kind, self.domain = found.get(4, [""])[0], found.get(7, [""])[0]
        self.attributes: dict[str, int] = {}


class _Check:
    def __init__(self, card: Card) -> None:
        self._card = card
        self._functions: dict[str, list[_Node]] = {}
        self._sizes: dict[str, int] = {}

    def model(self, model: memoryview) -> None:
        found = parsed(model, "Model")
        if 7 not in found:
            raise ValueError("it has no graph")
        self._opsets(found)
        for body in found.get(25, ()):
            self._function(parsed(body, "Function"))
        graph = parsed(found[7][0], "Graph")
        nodes = self._graph(graph, 0)
        if sum(self._size(node, ()) for node in nodes) > MOST_NODES:
            raise ValueError(f"its functions, put in the place of their calls, have more than {MOST_NODES:,} nodes")
        tensors = {}
        for body in graph.get(5, ()):
            name, *about = _tensor(body)
            if name in tensors:
                raise ValueError(f"it has two tensors {name!r}")
            tensors[name] = about
        self._contract(graph)
        self._posteriors(nodes, tensors)
        self._calibration(tensors)

    def _opsets(self, found: dict[int, list[Any]]) -> None:
        for body in (*found.get(8, ()), *found.get(9, ())):
            about = parsed(body, "Opset")
            if about.get(1, [""])[0] not in DOMAINS:
                raise ValueError(f"it needs the operators {about[1][0]!r}, which are no standard ones")

    def _function(self, found: dict[int, list[Any]]) -> None:
        name = found.get(1, [""])[0]
        if found.get(10) != ["murho"] or found.get(13, [""]) != [""] or not name or name in self._functions:
            raise ValueError(f"its function {name!r} has a name that it may not have")
        self._opsets({9: found.get(9, [])})
        for body in found.get(11, ()):
            self._attribute(parsed(body, "Attribute"), 0)
        for body in found.get(12, ()):
            _value(body)
        self._functions[name] = self._nodes(found.get(7, ()), 0)

    def _graph(self, found: dict[int, list[Any]], depth: int) -> list["_Node"]:
        if depth > MOST_DEPTH:
            raise ValueError(f"its graphs stand in each other more than {MOST_DEPTH} deep")
        for number in (11, 12, 13):
            for body in found.get(number, ()):
                _value(body)
        if depth:  # those of the graph itself are read by `model`
            for body in found.get(5, ()):
                _tensor(body)
        return self._nodes(found.get(1, ()), depth)

    def _nodes(self, bodies: Iterable[memoryview], depth: int) -> list["_Node"]:
        """The nodes of a graph, and those of the graphs in them."""
        nodes = []
        for body in bodies:
            found = parsed(body, "Node")
            node = _Node(found)
            nodes.append(node)
            if node.domain not in DOMAINS or node.kind in REFUSED or found.get(8, [""]) != [""]:
                raise ValueError(f"it has a node {node.domain}.{node.kind}, which no artifact has".replace(" .", " "))
            for attribute in found.get(5, ()):
                about = parsed(attribute, "Attribute")
                nodes += self._attribute(about, depth)
                if 3 in about:
                    node.attributes[about.get(1, [""])[0]] = about[3][0]
        return nodes

    def _attribute(self, found: dict[int, list[Any]], depth: int) -> list["_Node"]:
        """The nodes of the graphs in an attribute."""
        for body in (*found.get(5, ()), *found.get(10, ())):
            _tensor(body)
        inner = []
        for body in (*found.get(6, ()), *found.get(11, ())):
            inner += self._graph(parsed(body, "Graph"), depth + 1)
        return inner

    def _size(self, node: _Node, callers: tuple[str, ...]) -> int:
        """Nodes that a node stands for."""
        if node.domain != "murho":
            return 1
        name = node.kind
        if name in callers:
            raise ValueError(f"its function {name!r} calls itself")
        if name not in self._functions:
            raise ValueError(f"it calls a function {name!r} that it does not have")
        if name not in self._sizes:
            self._sizes[name] = sum(self._size(part, (*callers, name)) for part in self._functions[name])
        return 1 + self._sizes[name]

    def _contract(self, graph: dict[int, list[Any]]) -> None:
        """Whether inputs and outputs are what the card says."""
        card = self._card
        given = [*card.inputs, Array("draws", ("draw",), (None,), "int64"), Array("seed", (), (), "int64")]
        given.append(Array("levels", ("level",), (None,)))
        if card.noise is not None:
            given.append(Array(NOISE_INPUT, (), ()))
        _compare("input", graph.get(11, ()), [*given, *card.states], whole=True)
        made = []
        for k, output in enumerate(card.outputs):
            before = f"{output.name}." if k else ""
            for part in OUTPUTS:
                lead = (None,) if part in ("samples", "lower", "upper") else ()
                made.append(Array(before + part, ("",) * (len(lead) + len(output.shape)), (*lead, *output.shape)))
        made += [Array(f"{NEXT}{k}", state.axes, state.shape) for k, state in enumerate(card.states)]
        _compare("output", graph.get(12, ()), made, whole=False)

    def _posteriors(self, nodes: Iterable[_Node], tensors: dict[str, Any]) -> None:
        """Whether μ and σ are numbers that stand in the file, as many as the card says."""
        makers = {name: node for node in nodes for name in node.makes}
        for node in nodes:
            if node.kind != "BayesianWeights" or node.domain != "murho":
                continue
            if len(node.reads) != 4 or len(node.makes) != 1:
                raise ValueError("a call of BayesianWeights has other arguments than draws, seed, μ and σ")
            mu, sigma = node.reads[2:]
            n = self._posterior(mu, makers, tensors, None)
            if self._posterior(sigma, makers, tensors, 0) != n:
                raise ValueError(f"the posterior {mu!r} has not as many spreads as means")
            if list(node.reads[:2]) == ["draws", "seed"]:
                number = node.attributes.get("site", -1)
                site = self._card.sites[number] if 0 <= number < len(self._card.sites) else None
                if site is None or site.sampling != "weights" or site.n != n:
                    raise ValueError(f"a layer draws {n} weights of site {number}, and the card says otherwise")

    def _posterior(self, name: str, makers: dict[str, _Node], tensors: dict[str, Any], least: float | None) -> int:
        """The number of elements of μ or σ."""
        if name not in tensors:
            maker = makers.get(name)
            if maker is None or maker.kind not in ("CodedMu", "CodedSigma") or not maker.reads:
                raise ValueError(f"the posterior {name!r} is not in the file")
            if any(part.domain or part.kind not in _EXPANDING for part in self._functions[maker.kind]):
                raise ValueError(f"its function {maker.kind!r} does more than expand what is stored")
            if any(part not in tensors or len(tensors[part][1]) > (k == 0) for k, part in enumerate(maker.reads)):
                raise ValueError(f"the posterior {name!r} is stored in a way that murho does not know")
            for part in maker.reads:
                self._finite(part, tensors[part])
            return int(prod(tensors[maker.reads[0]][1]))
        kind, shape, values = tensors[name]
        if kind != _FLOAT32 or len(shape) != 1:
            raise ValueError(f"the posterior {name!r} is no vector of float32")
        self._finite(name, tensors[name])
        if least is not None and values is not None and len(values) and np.frombuffer(values, "<f4").min() < least:
            raise ValueError(f"the posterior {name!r} has a spread below 0")
        return int(shape[0])

    def _finite(self, name: str, tensor: Any) -> None:
        kind, shape, values = tensor
        if values is None and prod(shape):
            raise ValueError(f"the posterior {name!r} is not kept as raw bytes")
        if kind in _FLOATING and not np.isfinite(np.frombuffer(values or b"", _FLOATING[kind])).all():
            raise ValueError(f"the posterior {name!r} is not finite")

    def _calibration(self, tensors: dict[str, Any]) -> None:
        """Whether the factors that other hosts apply are those of the card."""
        names = "calibration_levels", "calibration_factors"
        calibration = self._card.calibration
        there = [name in tensors for name in names]
        if not any(there) and calibration is None:
            return
        if not all(there):
            raise ValueError("it lacks the tensors of a calibration")
        found = []
        for name in names:
            kind, shape, values = tensors[name]
            if kind != _FLOAT32 or shape[:1] != (CALIBRATION_SLOTS,) or values is None:
                raise ValueError(f"{name!r} is not {CALIBRATION_SLOTS} rows of float32")
            found.append(np.frombuffer(values, "<f4").reshape(shape))
            if not np.isfinite(found[-1]).all():
                raise ValueError(f"{name!r} is not finite")
        wanted = (None, np.ones_like(found[1])) if calibration is None else tables(calibration)
        if any(want is not None and not np.array_equal(have, want) for have, want in zip(found, wanted, strict=True)):
            raise ValueError("its calibration is another than its card's")


def _compare(side: str, bodies: Iterable[memoryview], wanted: Iterable[Array], whole: bool) -> None:
    """Whether a graph's inputs or outputs are the arrays that are wanted; where `whole`, to the last axis."""
    found = {}
    for body in bodies:
        name, kind, shape = _value(body)
        if name in found:
            raise ValueError(f"it has two {side}s {name!r}")
        found[name] = kind, shape
    names = [array.name for array in wanted]
    if set(names) != found.keys() or len(set(names)) != len(names):
        raise ValueError(f"its card says {side}s {', '.join(names)}, but it has {', '.join(found)}")
    for array in wanted:
        kind, shape = found[array.name]
        same = kind == _DTYPES[array.dtype]
        if shape is not None:
            same = same and len(shape) == len(array.shape)
            for have, want in zip(shape, array.shape, strict=False):
                same = same and (have == want or (not whole and None in (have, want)))
        elif whole:
            same = False
        if not same:
            raise ValueError(f"its {side} {array.name!r} is another than its card says")


def _value(body: memoryview) -> tuple[str, int | None, tuple[int | None, ...] | None]:
    """Name, type and shape of an input, an output or a value between."""
    found = parsed(body, "Value")
    kind: int | None = None
    shape: tuple[int | None, ...] | None = None
    for about in found.get(2, ()):
        for tensor in parsed(about, "Type").get(1, ()):
            parts = parsed(tensor, "TensorType")
            kind = parts.get(1, [None])[0]
            for axes in parts.get(2, ()):
                sizes = [parsed(axis, "Axis").get(1, [None])[0] for axis in parsed(axes, "Shape").get(1, ())]
                if len(sizes) > MOST_AXES or any(size is not None and size >= 2**40 for size in sizes):
                    raise ValueError(f"{found.get(1, [''])[0]!r} has a size that no tensor has")
                shape = tuple(sizes)
    return found.get(1, [""])[0], kind, shape


def _tensor(body: memoryview) -> tuple[str, int, tuple[int, ...], memoryview | None]:
    """Name, type, shape, and raw bytes if it has them, of a tensor whose elements are all there."""
    try:
        found = parsed(body, "Tensor")
    except UnknownFieldError as error:
        if error.number in (13, 14):
            raise ValueError("it takes a tensor from another file, and an artifact is one file") from None
        raise
    name, kind = found.get(8, [""])[0], found.get(2, [0])[0]
    shape = tuple(size for part in found.get(1, ()) for size in part)
    if kind not in _TYPES or len(shape) > MOST_AXES or any(size >= 2**40 for size in shape):
        raise ValueError(f"its tensor {name!r} has a type or size that no tensor has")
    count = prod(shape)
    width, field = _TYPES[kind]
    typed = {number: found[number] for number in (4, 5, 7, 10, 11) if number in found}
    raw = found.get(9, [None])[0]
    if raw is not None:
        there = len(raw) == count * width and not typed
    else:
        there = set(typed) <= {field} and sum(len(part) for part in found.get(field, [])) == count
    if not there:
        raise ValueError(f"its tensor {name!r} does not have the elements that its shape says")
    return name, kind, shape, raw
