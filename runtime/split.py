"""Cut an ONNX artifact in two: a model that draws, and one that computes with what was drawn.

Draw 17 under seed 0 is the same network in every call, so its weights need drawing once. The file's first nodes do
that: they read draws, seed and constants of their own, and make the tensors `drawn.0`, `drawn.1`, …
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .contract import DRAWN, NEXT, OUTPUTS
from .protobuf import bodies, delimited, fields, strings

# Numbers of fields in onnx.proto.
GRAPH = 7  # of a model
NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # of a graph
READS, MAKES, KIND = 1, 2, 4  # of a node
_VALUE_NAME, _TENSOR_NAME = 1, 8
_FLOAT = delimited(2, delimited(1, b"\x08\x01"))  # ValueInfoProto.type.tensor_type.elem_type = FLOAT
_STATISTICS = {"Summary", "Stretch"}


@dataclass(frozen=True)
class Halves:
    """An artifact's two models."""

    sampler: bytes
    """(draws, seed) -> what is drawn; empty where nothing can be drawn before an input is read."""
    network: bytes
    """The artifact's inputs, and what was drawn -> samples of every output and next states, no statistics over them."""
    drawn: tuple[str, ...]


def split(content: bytes) -> Halves:
    """The two models of an ONNX file that murho wrote."""
    view = memoryview(content)
    (graph,) = bodies(view, GRAPH)
    nodes = list(bodies(graph, NODE))
    makers = [k for k, node in enumerate(nodes) if any(name.startswith(DRAWN) for name in strings(node, MAKES))]
    first = max(makers, default=-1) + 1
    drawn = tuple(name for k in makers for name in strings(nodes[k], MAKES) if name.startswith(DRAWN))
    own = {name for node in nodes[:first] for name in strings(node, READS)}

    network = [delimited(NODE, node) for node in nodes[first:] if not _STATISTICS.intersection(strings(node, KIND))]
    network += _values(_INPUT, drawn)
    for number, start, body, end in fields(graph):
        field, inside = bytes(graph[start:end]), graph[body:end]
        if number == _INITIALIZER:
            if not own.intersection(strings(inside, _TENSOR_NAME)):
                network.append(field)
        elif number == _OUTPUT:
            (name,) = strings(inside, _VALUE_NAME)
            if name.rpartition(".")[2] == OUTPUTS[0] or name.startswith(NEXT):
                network.append(field)
        elif number != NODE:
            network.append(field)
    sampler = part(view, nodes[:first], [], drawn) if drawn else b""
    return Halves(sampler, _framed(view, network), drawn)


def part(view: memoryview, nodes: Sequence[memoryview], given: Sequence[str], made: Sequence[str]) -> bytes:
    """A model of some of a model's nodes, with the inputs and constants that they read.

    `given` names further float inputs, `made` its float outputs. The nodes' own bodies must read nothing else.
    """
    (graph,) = bodies(view, GRAPH)
    needed = {*made, *(name for node in nodes for name in strings(node, READS))}
    parts = [delimited(NODE, node) for node in nodes]
    parts += _values(_INPUT, [name for name in given if name in needed]) + _values(_OUTPUT, made)
    for number, start, body, end in fields(graph):
        if number == _INITIALIZER:
            wanted = bool(needed.intersection(strings(graph[body:end], _TENSOR_NAME)))
        elif number == _INPUT:
            wanted = bool(needed.intersection(strings(graph[body:end], _VALUE_NAME)))
        else:
            wanted = number not in (NODE, _OUTPUT)
        if wanted:
            parts.append(bytes(graph[start:end]))
    return _framed(view, parts)


def _values(field: int, names: Iterable[str]) -> list[bytes]:
    """A graph's inputs or outputs, float tensors of any shape."""
    return [delimited(field, delimited(_VALUE_NAME, name.encode()) + _FLOAT) for name in names]


def _framed(view: memoryview, graph: Iterable[bytes]) -> bytes:
    """A model like another, with another graph."""
    frame = b"".join(view[start:end] for number, start, _, end in fields(view) if number != GRAPH)
    return frame + delimited(GRAPH, b"".join(graph))
