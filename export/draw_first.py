"""Put the part of a graph that draws before the part that computes with what was drawn.

The first nodes of a file read nothing but draws, seed and constants of their own, and make the tensors `drawn.0`,
`drawn.1`, …; all others read these. A host can therefore cut the graph there and keep what it drew, as
`murho.runtime.split` does.
"""

from collections.abc import Iterator, Sequence

from onnx import GraphProto, NodeProto, TensorProto

from ..runtime.contract import DRAWN

AGAIN = ".again"


def draw_first(graph: GraphProto) -> None:
    """Reorder a graph from torch's exporter, whose `value_info` still tells the types."""
    drawn = _frontier(graph)
    makers = {output: node for node in graph.node for output in node.output}
    first = _needed(drawn, makers, stop=set())
    rest = [node for node in graph.node if not _among(node, first)]
    read = {name for node in rest for name in reads(node)} - set(drawn)
    copies = [_copied(node) for node in _needed(sorted(read), makers, stop=set(drawn)) if _among(node, first)]
    again = {output.removesuffix(AGAIN): output for node in copies for output in node.output}
    for node in (*copies, *rest):
        _rename(node, again)
    constants = _split_constants(graph, first, [*copies, *rest])
    for node in first:
        _rename(node, constants)
    names = {name: f"{DRAWN}{k}" for k, name in enumerate(drawn)}
    for node in (*first, *copies, *rest):
        _rename(node, names)
    ordered = [*first, *copies, *rest]
    del graph.node[:]
    graph.node.extend(ordered)


def _frontier(graph: GraphProto) -> list[str]:
    """The float tensors that follow from draws and seed, and that are read together with something that does not.

    In place of a reshaped tensor it is the one before: a reshape costs a copy where its result leaves the graph.
    """
    inputs = {value.name for value in graph.input}
    sources: dict[str, set[str]] = {name: {name} for name in inputs}
    for node in graph.node:
        found = set().union(*(sources.get(name, set()) for name in reads(node)))
        sources |= dict.fromkeys(node.output, found)
    alone = {name for name, found in sources.items() if "draws" in found <= {"draws", "seed"}} - inputs
    floats = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    crossing = {
        name for node in graph.node if not alone.issuperset(node.output) for name in reads(node) if name in alone
    }
    reshaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Reshape"}
    drawn = {reshaped.get(name, name) for name in crossing & floats}
    return [name for node in graph.node for name in node.output if name in drawn]


def _needed(names: Sequence[str], makers: dict[str, NodeProto], stop: set[str]) -> list[NodeProto]:
    """The nodes that these tensors are computed by, in order; what is in `stop` is given."""
    found: list[NodeProto] = []

    def visit(name: str) -> None:
        node = makers.get(name)
        if node is None or name in stop or _among(node, found):
            return
        for read in reads(node):
            visit(read)
        found.append(node)

    for name in names:
        visit(name)
    return found


def _split_constants(graph: GraphProto, first: Sequence[NodeProto], rest: Sequence[NodeProto]) -> dict[str, str]:
    """Give the first nodes copies of the initializers that the rest reads too; new names by old."""
    shared = {name for node in first for name in reads(node)} & {name for node in rest for name in reads(node)}
    copies = []
    for tensor in graph.initializer:
        if tensor.name in shared:
            copy = TensorProto()
            copy.CopyFrom(tensor)
            copy.name += AGAIN
            copies.append(copy)
    graph.initializer.extend(copies)
    return {tensor.name.removesuffix(AGAIN): tensor.name for tensor in copies}


def _among(node: NodeProto, nodes: Sequence[NodeProto]) -> bool:
    return any(node is other for other in nodes)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name += AGAIN  # ONNX Runtime refuses two nodes of one name
    copy.output[:] = [name + AGAIN for name in node.output]
    return copy


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def reads(node: NodeProto) -> list[str]:
    """The names that a node reads, inside its bodies too."""
    return [*node.input, *(name for body in _bodies(node) for inner in body.node for name in reads(inner))]


def _rename(node: NodeProto, names: dict[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for body in _bodies(node):
        for inner in body.node:
            _rename(inner, names)
