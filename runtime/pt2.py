"""Programs of torch.export, by torch, which is imported when one is opened: load, cut, and save with a card."""

import io
import warnings
from typing import TYPE_CHECKING

from . import torch_check
from .artifact import sealed_zip
from .contract import CARD_KEY, FIXED_INPUTS, OUTPUTS, Card

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule


def loaded(content: bytes) -> "ExportedProgram":
    import torch

    torch_check.check_pt2(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(io.BytesIO(content))


def sampler(program: "ExportedProgram", card: Card) -> "GraphModule":
    """The part of a program that gives the samples of every output and the next states, and no statistics over them.

    A function of the program's arguments but `levels` that returns a tuple.
    """
    import torch

    module = program.module(check_guards=False)
    graph = module.graph
    (output,) = graph.find_nodes(op="output")
    results = list(output.args[0])
    count = len(card.outputs) * len(OUTPUTS)
    output.args = ((*results[: count : len(OUTPUTS)], *results[count:]),)
    checks = torch.ops.aten._assert_tensor_metadata.default  # of types, which keep what they look at alive
    for node in graph.find_nodes(op="call_function", target=checks):
        graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.erase_node(graph.find_nodes(op="placeholder")[len(card.inputs) + FIXED_INPUTS.index("levels")])
    graph.set_codegen(torch.fx.graph.CodeGen())  # the old one names the old arguments and results
    return torch.fx.GraphModule(module, graph)


def saved(program: "ExportedProgram", card: Card) -> bytes:
    """The file of a program, its card an extra file of the archive."""
    import torch

    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, content, extra_files={f"{CARD_KEY}.json": card.to_json()})
    return sealed_zip(content.getvalue())
