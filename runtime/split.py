"""Cut an ONNX artifact in two: a model that draws, and one that computes with what was drawn.

Draw 17 under seed 0 is the same network in every call, so its weights need drawing once. The file's first nodes do
that: they read draws, seed and constants of their own, and make the tensors `drawn.0`, `drawn.1`, …
"""

from dataclasses import dataclass

from .contract import DRAWN, NEXT, OUTPUTS
from .graph import (
    GRAPH,
    INITIALIZER,
    INPUT,
    KIND,
    MAKES,
    NODE,
    OUTPUT,
    READS,
    TENSOR_NAME,
    VALUE_NAME,
    framed,
    part,
    values,
)
from .protobuf import bodies, delimited, fields, strings

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

    network = [delimited(NODE, node) for node in _without_statistics(nodes[first:])]
    network += values(INPUT, drawn)
    for number, start, body, end in fields(graph):
        field, inside = bytes(graph[start:end]), graph[body:end]
        if number == INITIALIZER:
            if not own.intersection(strings(inside, TENSOR_NAME)):
                network.append(field)
        elif number == OUTPUT:
            (name,) = strings(inside, VALUE_NAME)
            if name.rpartition(".")[2] == OUTPUTS[0] or name.startswith(NEXT):
                network.append(field)
        elif number != NODE:
            network.append(field)
    sampler = part(view, nodes[:first], [], drawn) if drawn else b""
    return Halves(sampler, framed(view, network), drawn)


def _without_statistics(nodes: list[memoryview]) -> list[memoryview]:
    """All but the nodes that take statistics, and those that copy them: of one value under two names."""
    kept, gone = [], set[str]()
    for node in nodes:
        if _STATISTICS.intersection(strings(node, KIND)) or gone.intersection(strings(node, READS)):
            gone.update(strings(node, MAKES))
        else:
            kept.append(node)
    return kept
