"""The Monte-Carlo network as an ONNX model: torch's exporter for the user's code, functions of ours for what samples.

The kernels enter the exporter as opaque custom operators, each of which it turns into one call of a function of domain
"murho". The functions' bodies are added to the finished model.
"""

import copy
import functools
import math
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import onnx.defs
import torch
from onnx import TensorProto
from onnx.numpy_helper import to_array
from onnxscript import opset18, values
from onnxscript.function_libs.torch_lib.ops.core import aten_view
from torch import Tensor, nn
from torch._ops import OperatorBase
from torch.export import ExportedProgram
from torch.onnx._internal.exporter._registration import ONNXRegistry

from ..runtime.artifact import sealed_onnx
from ..runtime.contract import FIXED_INPUTS, NEXT, NOISE_INPUT, OUTPUTS, STATE, Card
from . import kernels
from .draw_first import draw_first, reads
from .functions import DOMAIN, OPSET, convolution_name, functions, has_last_form, schemas
from .layers import Kernels, MonteCarloLayer
from .onnx_coded import keep_coded
from .signature import Input
from .torch_recurrent import keep_time_free, operator, translation

MAX_BYTES = 2**31 - 2**20  # a protobuf message holds 2 GiB

_MARK = "murho."


def build(
    network: nn.Module,
    inputs: Sequence[Tensor],
    signature: Sequence[Input],
    outputs: Sequence[str],
    noisy: bool,
    states: Sequence[int],
) -> onnx.ModelProto:
    """Export a MonteCarloNetwork made with `custom_operators()`; inputs [B ≥ 2, …]. Batch, draws and levels stay free.

    `signature` describes the inputs, `outputs` are the outputs' names, `noisy` says whether the network adds
    observation noise, `states` are the widths of a stream's states.
    """
    keep_time_free(network)
    free = torch.export.Dim.DYNAMIC
    axes = [one.dynamic_axes for one in signature]
    example = (*inputs, torch.arange(5), torch.tensor(0), torch.tensor([0.5, 0.95]), torch.tensor(1.0))
    taken = len(example) if noisy else len(example) - 1
    carried = tuple(torch.zeros(5, len(inputs[0]), width) for width in states)
    names = [*(one.name for one in signature), *FIXED_INPUTS, NOISE_INPUT]
    finals = [*OUTPUTS, *(f"{name}.{part}" for name in outputs[1:] for part in OUTPUTS)]
    finals += [f"{NEXT}{k}" for k in range(len(states))]
    with warnings.catch_warnings(), _translations_kept(), _decomposed_if_needed():
        warnings.simplefilter("ignore")  # the exporter's own deprecation notices
        program = torch.onnx.export(
            network,
            (*example[:taken], *carried),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(((*axes, {0: free}, {}, {0: free}, {})[:taken] + ({0: free, 1: free},) * len(states)),),
            input_names=[*names[:taken], *(f"{STATE}{k}" for k in range(len(states)))],
            output_names=[_MARK + name for name in finals],
            custom_translation_table=_translations(),
            verbose=False,
        )
    assert program is not None
    _keep_constants(program.model.graph)
    model = program.model_proto
    _name_outputs(model.graph, finals)
    _name_axes(model, signature)
    _keep_last_steps(model.graph)
    layers = [layer for layer in network.modules() if isinstance(layer, MonteCarloLayer)]
    keep_coded(model, [layer.coded for layer in layers if layer.coded is not None])
    draw_first(model.graph)
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    model.functions.extend(functions(used))
    del model.graph.value_info[:]  # torch's guesses; some give a dynamic axis the example's length
    _drop_traces(model.graph)
    model.doc_string = "A Bayesian network that samples its weights. Its card is the metadata entry 'murho'."
    onnx.checker.check_model(model)
    return model


def saved(model: onnx.ModelProto, card: Card) -> bytes:
    """The file of a model, with its card and the digest over all of it."""
    return sealed_onnx(model.SerializeToString(deterministic=True), card)


@functools.cache
def custom_operators() -> Kernels:
    """The kernels as torch operators murho::linear, lstm, …, which the exporter keeps whole."""
    made = {}
    for name, shape in _SHAPES.items():
        operator = torch.library.custom_op(f"murho::{name}", getattr(kernels, name), mutates_args=())
        operator.register_fake(shape)
        made[name] = operator
    return Kernels(**made)


# What the exporter needs to know of each operator in place of running it: shapes. Arguments are those of the kernel.


def _rows(x: Tensor, per_draw: Tensor, shared: bool) -> Any:
    return x.shape[0] * per_draw.shape[0] if shared else x.shape[0]


def _weights_shape(draws, seed, mu, sigma, site):  # type: ignore[no-untyped-def]
    return mu.new_empty((draws.shape[0], mu.shape[0]))


def _local_shape(x, draws, seed, mu, sigma, site, inputs, outputs, bias, shared):  # type: ignore[no-untyped-def]
    return x.new_empty((_rows(x, draws, shared), outputs))


def _linear_shape(x, weight, bias, shared):  # type: ignore[no-untyped-def]
    return x.new_empty((_rows(x, weight, shared), *x.shape[1:-1], weight.shape[1]))


def _convolution_shape(x, weight, bias, stride, pads, dilation, groups, shared):  # type: ignore[no-untyped-def]
    rank = len(stride)
    space = [
        (x.shape[2 + k] + pads[k] + pads[rank + k] - dilation[k] * (weight.shape[3 + k] - 1) - 1) // stride[k] + 1
        for k in range(rank)
    ]
    return x.new_empty((_rows(x, weight, shared), weight.shape[1], *space))


def _embedding_shape(x, weight, max_norm, norm_type, shared):  # type: ignore[no-untyped-def]
    return weight.new_empty((_rows(x, weight, shared), *x.shape[1:], weight.shape[2]))


def _lstm_shape(x, h, c, weight, peephole, shared, state_shared):  # type: ignore[no-untyped-def]
    rows, hidden = _rows(x, weight, shared), h.shape[1]
    return x.new_empty((rows, x.shape[1], hidden)), x.new_empty((rows, hidden)), x.new_empty((rows, hidden))


def _gru_shape(x, h, weight, shared, state_shared):  # type: ignore[no-untyped-def]
    rows, hidden = _rows(x, weight, shared), h.shape[1]
    return x.new_empty((rows, x.shape[1], hidden)), x.new_empty((rows, hidden))


def _summary_shape(samples, levels):  # type: ignore[no-untyped-def]
    one, ends = samples.shape[1:], (levels.shape[0], *samples.shape[1:])
    return samples.new_empty(one), samples.new_empty(one), samples.new_empty(ends), samples.new_empty(ends)


def _noise_shape(draws, seed, n, degrees):  # type: ignore[no-untyped-def]
    return draws.new_empty((draws.shape[0], n), dtype=torch.float32)


def _stretch_shape(samples, lower, upper, levels, noise, slots, factors):  # type: ignore[no-untyped-def]
    return torch.empty_like(lower), torch.empty_like(upper)


_SHAPES = {
    "sample_weights": _weights_shape,
    "linear": _linear_shape,
    "linear_local": _local_shape,
    "convolution": _convolution_shape,
    "embedding": _embedding_shape,
    "lstm": _lstm_shape,
    "gru": _gru_shape,
    "observation_noise": _noise_shape,
    "summary": _summary_shape,
    "stretch": _stretch_shape,
}


@functools.cache
def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How the exporter writes each operator: as a call of our function, integers and flags as attributes."""
    custom_operators()
    operator()
    domain = values.Opset(DOMAIN, 1)
    calls = {}
    for name, schema in schemas().items():
        onnx.defs.register_schema(schema)
        calls[name] = values.Op(domain, name, op_schema=schema)

    def sample_weights(draws, seed, mu, sigma, site):  # type: ignore[no-untyped-def]
        return calls["BayesianWeights"](draws, seed, mu, sigma, site=site)

    def linear(x, weight, bias, shared):  # type: ignore[no-untyped-def]
        if bias is None:
            return calls["BayesianLinearNoBias"](x, weight, shared=int(shared))
        return calls["BayesianLinear"](x, weight, bias, shared=int(shared))

    def linear_local(x, draws, seed, mu, sigma, site, inputs, outputs, bias, shared):  # type: ignore[no-untyped-def]
        call = calls["BayesianLinearLocal" if bias else "BayesianLinearNoBiasLocal"]
        return call(x, draws, seed, mu, sigma, site=site, inputs=inputs, outputs=outputs, shared=int(shared))

    def convolution(x, weight, bias, stride, pads, dilation, groups, shared):  # type: ignore[no-untyped-def]
        call = calls[convolution_name(len(stride), bias is not None, shared)]
        weights = (weight,) if bias is None else (weight, bias)
        return call(x, *weights, stride=stride, pads=pads, dilation=dilation, groups=groups)

    def embedding(x, weight, max_norm, norm_type, shared):  # type: ignore[no-untyped-def]
        if max_norm == 0:
            return calls["BayesianEmbedding"](x, weight, shared=int(shared))
        norm = {"max_norm": max_norm, "norm_type": norm_type}
        return calls["BayesianEmbeddingMaxNorm"](x, weight, shared=int(shared), **norm)

    def lstm(x, h, c, weight, peephole, shared, state_shared):  # type: ignore[no-untyped-def]
        call = calls["BayesianLSTMPeephole" if peephole else "BayesianLSTM"]
        return call(x, h, c, weight, **_recurrent(x, h, shared, state_shared))

    def gru(x, h, weight, shared, state_shared):  # type: ignore[no-untyped-def]
        return calls["BayesianGRU"](x, h, weight, **_recurrent(x, h, shared, state_shared))

    def summary(samples, levels):  # type: ignore[no-untyped-def]
        return calls["Summary"](samples, levels)

    def observation_noise(draws, seed, n, degrees):  # type: ignore[no-untyped-def]
        name = "ObservationNoiseStudent" if degrees else "ObservationNoise"
        return calls[name](draws, seed, n=n, degrees=degrees)

    def stretch(samples, lower, upper, levels, noise, slots, factors):  # type: ignore[no-untyped-def]
        return calls["Stretch"](samples, lower, upper, levels, noise, slots, factors)

    writers = (
        sample_weights, linear, linear_local, convolution, embedding, lstm, gru, observation_noise, summary, stretch,
    )  # fmt: skip
    table = {getattr(torch.ops.murho, writer.__name__).default: writer for writer in writers}
    # torch's own translation of reshape takes a size of 0 for ONNX's "as it was".
    table[torch.ops.aten.reshape.default] = aten_view
    table[torch.ops.aten.embedding.default] = _lookup
    return {**table, torch.ops.murho.recurrent.default: translation}


def _lookup(weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):  # type: ignore[no-untyped-def]
    """torch's embedding, for which a number below 0 is an error; to ONNX's Gather it counts from the end."""
    indices = opset18.Cast(indices, to=TensorProto.INT64)
    rows = opset18.Shape(weight, start=0, end=1)
    unknown = opset18.Or(opset18.Less(indices, [0]), opset18.GreaterOrEqual(indices, rows))
    last: Any = [-1]
    found = opset18.Gather(weight, opset18.Where(unknown, rows, indices), axis=0)
    return opset18.Where(opset18.Unsqueeze(unknown, last), math.nan, found)


def _recurrent(x: Any, h: Any, shared: bool, state_shared: bool) -> dict[str, int]:
    sizes = {"inputs": int(x.shape[2]), "hidden": int(h.shape[1])}
    return {**sizes, "shared": int(shared), "state_shared": int(state_shared)}


def _name_outputs(graph: onnx.GraphProto, finals: Sequence[str]) -> None:
    """Call the outputs by their names, which the exporter may have given to values of the user's code (x.mean())."""
    names = {name: f"inner_{name}" for name in finals} | {_MARK + name: name for name in finals}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.initializer, *graph.output):
        value.name = names.get(value.name, value.name)


def _drop_traces(graph: onnx.GraphProto) -> None:
    """Remove what the exporter notes of its origin: paths of this machine, and lines of the user's code."""
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def _keep_last_steps(graph: onnx.GraphProto) -> None:
    """Where only the last step of a recurrent layer's sequence is read, call the function that returns no other.

    What only the removed nodes read goes too: ONNX Runtime warns of it in every host.
    """
    removed: set[str] = set()
    last = {t.name for t in graph.initializer if t.data_type == TensorProto.INT64 and (to_array(t) == -1).all()}
    for node in [node for node in graph.node if has_last_form(node.op_type)]:
        sequence, h_last = node.output[:2]
        readers = [reader for reader in graph.node if sequence in reader.input]
        if not all(reader.op_type == "Gather" and _axis(reader) == 1 and reader.input[1] in last for reader in readers):
            continue
        if any(sequence == output.name for output in graph.output):
            continue
        for reader in readers:
            (step,) = reader.output
            graph.node.remove(reader)
            removed.add(reader.input[1])
            for user in graph.node:
                user.input[:] = [h_last if name == step else name for name in user.input]
        node.op_type += "Last"
        del node.output[0]
    unread = removed - {name for node in graph.node for name in reads(node)}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in unread]:
        graph.initializer.remove(tensor)


def _keep_constants(graph: Any) -> None:
    """Register the constants that onnxscript's rewriter lost: the second shape of a tensor flattened twice."""
    for node in graph:
        for value in node.inputs:
            if value is None or value.const_value is None or value.producer() is not None or value.is_graph_input():
                continue
            if value.name not in graph.initializers:
                graph.register_initializer(value)


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)


def _name_axes(model: onnx.ModelProto, signature: Sequence[Input]) -> None:
    """Call the dynamic axes what they are, in place of the exporter's s77 and the like."""
    count = len(signature)
    inputs, (draws, _, levels) = model.graph.input[:count], model.graph.input[count : count + 3]
    given = [(draws, 0, "S"), (levels, 0, "K")]
    for x, one in zip(inputs, signature, strict=True):
        called = {0: "B", **{axis: "T" if name == "time" else name for axis, name in one.free.items()}}
        given += [(x, axis, called[axis]) for axis in one.dynamic_axes]
    names = {info.type.tensor_type.shape.dim[axis].dim_param: name for info, axis, name in given}
    for info in (*model.graph.input, *model.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


@contextmanager
def _translations_kept() -> Iterator[None]:
    """Spare the exporter the table of its translations, which it makes anew every time: a third of an export."""
    from_torchlib = ONNXRegistry.from_torchlib

    def kept(*options: object, **named: object) -> ONNXRegistry:
        registry = copy.copy(_table(*options, **named))  # an export adds its own operators to it
        registry.functions = {operator: list(known) for operator, known in registry.functions.items()}
        return registry

    ONNXRegistry.from_torchlib = staticmethod(kept)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = from_torchlib  # type: ignore[method-assign]


_table = functools.cache(ONNXRegistry.from_torchlib)


@contextmanager
def _decomposed_if_needed() -> Iterator[None]:
    """Spare the exporter its second trace of a program, half of an export, where it would change nothing."""
    run_decompositions = ExportedProgram.run_decompositions

    def run_if_needed(program: ExportedProgram, decomp_table: Any = None, **options: Any) -> ExportedProgram:
        if decomp_table is not None and _is_decomposed(program, decomp_table):
            return program
        decomposed: ExportedProgram = run_decompositions(program, decomp_table, **options)
        return decomposed

    ExportedProgram.run_decompositions = run_if_needed  # type: ignore[method-assign]
    try:
        yield
    finally:
        ExportedProgram.run_decompositions = run_decompositions  # type: ignore[method-assign]


def _is_decomposed(program: ExportedProgram, decomp_table: Container[Any]) -> bool:
    """Whether a program has only operators that the second trace leaves as they are."""
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    known = _elementary() | _translations().keys()
    return not any(isinstance(op, OperatorBase) and (op not in known or op in decomp_table) for op in calls)


@functools.cache
def _elementary() -> frozenset[Any]:
    """Operators that write to no tensor and stand for no others, or that the exporter translates as a whole."""
    aten = torch.ops.aten
    numbers = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.linear.default)
    functions = (aten.relu.default, aten.tanh.default, aten.sigmoid.default, aten.gelu.default, aten.softmax.int)
    more_functions = (aten.leaky_relu.default, aten.elu.default, aten.silu.default, aten.log_softmax.int)
    convolutions = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
    pools = (aten.max_pool1d.default, aten.max_pool2d.default, aten.avg_pool1d.default, aten.avg_pool2d.default)
    shapes = (aten.expand.default, aten.unsqueeze.default, aten.transpose.int, aten.permute.default)
    more_shapes = (aten.reshape.default, aten.view.default, aten.flatten.using_ints)
    parts = (aten.select.int, aten.slice.Tensor, aten.split_with_sizes.default, aten.cat.default)
    sizes = (aten.sym_size.int, aten.new_zeros.default, aten.zeros_like.default, aten._assert_scalar.default)
    functional = (*numbers, *functions, *more_functions, *convolutions, *pools)
    return frozenset((*functional, *shapes, *more_shapes, *parts, *sizes))
