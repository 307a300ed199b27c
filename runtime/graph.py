"""Read the graph of an ONNX file, and make models of its parts, without the package onnx."""

from collections.abc import Iterable, Sequence

from .protobuf import bodies, delimited, fields, integers, strings

# Numbers of fields in onnx.proto.
GRAPH = 7  # of a model
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12  # of a graph
READS, MAKES, KIND, _ATTRIBUTE = 1, 2, 4, 5  # of a node
VALUE_NAME, TENSOR_NAME = 1, 8
_ATTRIBUTE_NAME, _INTEGER, _BODY, _BODIES = 1, 3, 6, 11  # of an attribute
_FLOAT = delimited(2, delimited(1, b"\x08\x01"))  # ValueInfoProto.type.tensor_type.elem_type = FLOAT


def nodes(model: memoryview) -> list[memoryview]:
    (graph,) = bodies(model, GRAPH)
    return list(bodies(graph, NODE))


def named(model: memoryview, field: int) -> list[str]:
    """The names of a graph's inputs or outputs."""
    (graph,) = bodies(model, GRAPH)
    return [name for value in bodies(graph, field) for name in strings(value, VALUE_NAME)]


def attribute(node: memoryview, name: str) -> int:
    """An integer attribute of a node."""
    (value,) = (
        value
        for part in bodies(node, _ATTRIBUTE)
        if strings(part, _ATTRIBUTE_NAME) == [name]
        for value in integers(part, _INTEGER)
    )
    return value


def has_bodies(node: memoryview) -> bool:
    """Whether a node is one of control flow, which may read more than it says."""
    return any(list(bodies(part, field)) for part in bodies(node, _ATTRIBUTE) for field in (_BODY, _BODIES))


def makers(nodes: Sequence[memoryview], names: Iterable[str], given: Iterable[str] = ()) -> list[memoryview]:
    """The nodes that tensors are computed by, in order; `given` ones need no nodes."""
    needed, found = set(names).difference(given), []
    for node in reversed(nodes):
        if needed.intersection(strings(node, MAKES)):
            found.append(node)
            needed.update(set(strings(node, READS)).difference(given))
    return found[::-1]


def part(model: memoryview, nodes: Sequence[memoryview], given: Iterable[str], made: Iterable[str]) -> bytes:
    """A model of some of a model's nodes, with the inputs and constants that they read.

    `given` names further float inputs, `made` its float outputs. The nodes' own bodies must read nothing else.
    """
    (graph,) = bodies(model, GRAPH)
    made = list(made)
    needed = {*made, *(name for node in nodes for name in strings(node, READS))}
    parts = [delimited(NODE, node) for node in nodes]
    parts += values(INPUT, [name for name in given if name in needed]) + values(OUTPUT, made)
    for number, start, body, end in fields(graph):
        if number == INITIALIZER:
            wanted = bool(needed.intersection(strings(graph[body:end], TENSOR_NAME)))
        elif number == INPUT:
            wanted = bool(needed.intersection(strings(graph[body:end], VALUE_NAME)))
        else:
            wanted = number not in (NODE, OUTPUT)
        if wanted:
            parts.append(bytes(graph[start:end]))
    return framed(model, parts)


def values(field: int, names: Iterable[str]) -> list[bytes]:
    """A graph's inputs or outputs, float tensors of any shape."""
    return [delimited(field, delimited(VALUE_NAME, name.encode()) + _FLOAT) for name in names]


def framed(model: memoryview, graph: Iterable[bytes]) -> bytes:
    """A model like another, with another graph."""
    frame = b"".join(model[start:end] for number, start, _, end in fields(model) if number != GRAPH)
    return frame + delimited(GRAPH, b"".join(graph))
