"""Cut an ONNX artifact in two: a model that draws, and one that computes with what was drawn.

Draw 17 under seed 0 is the same network in every call, so its weights need drawing once. The file's first nodes do
that: they read draws, seed and constants of their own, and make the tensors `drawn.0`, `drawn.1`, …
"""

from dataclasses import dataclass

from .contract import DRAWN, NEXT, OUTPUTS
from .protobuf import bodies, delimited, fields, strings

# Numbers of fields in onnx.proto.
_GRAPH = 7  # of a model
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # of a graph
_READS, _MAKES, _KIND = 1, 2, 4  # of a node
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
    (graph,) = bodies(view, _GRAPH)
    nodes = list(bodies(graph, _NODE))
    makers = [k for k, node in enumerate(nodes) if any(name.startswith(DRAWN) for name in strings(node, _MAKES))]
    first = max(makers, default=-1) + 1
    drawn = tuple(name for k in makers for name in strings(nodes[k], _MAKES) if name.startswith(DRAWN))
    own = {name for node in nodes[:first] for name in strings(node, _READS)}

    values = [delimited(1, name.encode()) + _FLOAT for name in drawn]
    sampler = [*(delimited(_NODE, node) for node in nodes[:first]), *(delimited(_OUTPUT, value) for value in values)]
    network = [delimited(_NODE, node) for node in nodes[first:] if not _STATISTICS.intersection(strings(node, _KIND))]
    network += [delimited(_INPUT, value) for value in values]
    for number, start, body, end in fields(graph):
        field, inside = bytes(graph[start:end]), graph[body:end]
        if number == _INITIALIZER:
            (sampler if own.intersection(strings(inside, _TENSOR_NAME)) else network).append(field)
        elif number == _INPUT:
            network.append(field)
            if own.intersection(strings(inside, _VALUE_NAME)):
                sampler.append(field)
        elif number == _OUTPUT:
            (name,) = strings(inside, _VALUE_NAME)
            if name.rpartition(".")[2] == OUTPUTS[0] or name.startswith(NEXT):
                network.append(field)
        elif number != _NODE:
            network.append(field)
            sampler.append(field)

    frame = b"".join(view[start:end] for number, start, _, end in fields(view) if number != _GRAPH)
    models = [frame + delimited(_GRAPH, b"".join(parts)) for parts in (sampler, network)]
    return Halves(models[0] if drawn else b"", models[1], drawn)
