"""The Monte-Carlo network as a program of torch.export: torch's own operators, with a scan in place of each time loop.

torch.export unrolls Python's loops over the example's steps; a scan leaves time as free as batch and draws are.
"""

import contextlib
import dataclasses
import inspect
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..runtime.contract import FIXED_INPUTS, NOISE_INPUT, STATE
from . import kernels
from .coding import ExpandedPosterior
from .layers import Kernels, MonteCarloLayer
from .montecarlo import PLAIN
from .signature import Input

SCAN = torch.ops.higher_order.scan


def build(
    network: nn.Module,
    inputs: Sequence[Tensor],
    signature: Sequence[Input],
    noisy: bool,
    states: Sequence[int],
) -> ExportedProgram:
    """Export a MonteCarloNetwork made with `scanning_kernels()`; arguments as for ONNX."""
    for module in network.modules():
        if isinstance(module, MonteCarloLayer):
            module.keep_coded(ExpandedPosterior)
        elif isinstance(module, nn.RNNBase) and not module.proj_size:
            module.forward = types.MethodType(recurrent, module)
    free = torch.export.Dim.DYNAMIC
    example = (*inputs, torch.arange(5), torch.tensor(0), torch.tensor([0.5, 0.95]))
    axes: tuple[Any, ...] = (*(one.dynamic_axes for one in signature), {0: free}, {}, {0: free})
    named = [*(one.name for one in signature), *FIXED_INPUTS]
    if noisy:
        example, axes, named = (*example, torch.tensor(1.0)), (*axes, {}), [*named, NOISE_INPUT]
    for k, width in enumerate(states):
        example, axes = (*example, torch.zeros(5, len(inputs[0]), width)), (*axes, {0: free, 1: free})
        named.append(f"{STATE}{k}")
    network.forward = _with_names(network.forward, named)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's notes on itself
        program = _exported(network, example, axes)
    _drop_traces(program)
    return program


def _exported(network: nn.Module, example: tuple[Tensor, ...], axes: tuple[Any, ...]) -> ExportedProgram:
    """Python code run with symbols, or, where it leaves them for numpy or int(), read as bytecode."""
    try:
        return torch.export.export(network, example, dynamic_shapes=axes)
    except Exception as error:
        failed = error
    with contextlib.suppress(Exception):
        return torch.export.export(network, example, dynamic_shapes=axes, strict=True)
    raise failed


def scanning_kernels() -> Kernels:
    """The plain kernels, with torch's scan over time in the recurrent ones."""
    return dataclasses.replace(PLAIN, lstm=_lstm, gru=_gru)


def _lstm(
    x: Tensor, h: Tensor, c: Tensor, weight: Tensor, peephole: bool, shared: bool, state_shared: bool
) -> tuple[Tensor, Tensor, Tensor]:
    steps, hidden = x.shape[1], weight.shape[1] // 4
    x, *weights = kernels.recurrent_parts(x, weight, shared)
    first = [kernels.state_per_draw(state, x, weight, state_shared) for state in (h, c)]

    def step(h: Tensor, c: Tensor, now: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        weight_ih, weight_hh, bias = weights
        return kernels.lstm_step(now, h, c, weight_ih, weight_hh, bias, peephole)

    out, h, c = _scan(step, first, x.permute(2, 0, 1, 3), weights)
    return out.permute(1, 2, 0, 3).reshape(-1, steps, hidden), h.reshape(-1, hidden), c.reshape(-1, hidden)


def _gru(x: Tensor, h: Tensor, weight: Tensor, shared: bool, state_shared: bool) -> tuple[Tensor, Tensor]:
    steps, hidden = x.shape[1], weight.shape[1] // 4
    x, *weights = kernels.recurrent_parts(x, weight, shared)
    first = kernels.state_per_draw(h, x, weight, state_shared)

    def step(h: Tensor, now: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        return (kernels.gru_step(now, h, *weights),)

    out, h = _scan(step, [first], x.permute(2, 0, 1, 3), weights)
    return out.permute(1, 2, 0, 3).reshape(-1, steps, hidden), h.reshape(-1, hidden)


def _scan(
    step: Callable[..., tuple[Tensor, ...]], first: Sequence[Tensor], xs: Tensor, constants: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The first of the states after each step [T, …], and all states after the last.

    `step` is (states …, x, constants …) -> the next states, for each x of `xs` [T, …].
    """
    states = [state.contiguous() for state in first]

    def body(*arguments: Tensor) -> list[Tensor]:
        following = step(*arguments)
        return [*following, following[0].clone()]  # a scan's results may not share memory

    *last, every = SCAN(body, states, [xs], tuple(constants))
    return every, *last


def recurrent(module: nn.RNNBase, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
    """The forward pass of nn.LSTM, nn.GRU and nn.RNN on batches, by scans."""
    lstm, directions = module.mode == "LSTM", 2 if module.bidirectional else 1
    x = x.transpose(0, 1) if module.batch_first else x
    zeros = x.new_zeros(module.num_layers * directions, x.shape[1], module.hidden_size)
    given = (zeros, zeros) if hx is None and lstm else (zeros,) if hx is None else hx if lstm else (hx,)
    ends: list[tuple[Tensor, ...]] = []
    for layer in range(module.num_layers):
        sequences = []
        for direction in range(directions):
            suffix = f"_l{layer}" + "_reverse" * direction
            w_ih, w_hh = (getattr(module, f"weight_{name}{suffix}") for name in ("ih", "hh"))
            b_ih, b_hh = (getattr(module, f"bias_{name}{suffix}") if module.bias else None for name in ("ih", "hh"))
            from_x = nn.functional.linear(x, w_ih, b_ih)
            from_x = from_x.flip(0) if direction else from_x
            b_hh = torch.zeros_like(w_hh[:, 0]) if b_hh is None else b_hh
            states = [state[len(ends)] for state in given]
            sequence, *last = _scan(STEPS[module.mode], states, from_x, (w_hh, b_hh))
            ends.append(tuple(last))
            sequences.append(sequence.flip(0) if direction else sequence)
        x = torch.cat(sequences, dim=2)
    after = tuple(torch.stack(states) for states in zip(*ends, strict=True))
    return x.transpose(0, 1) if module.batch_first else x, after if lstm else after[0]


def _lstm_step(h: Tensor, c: Tensor, from_x: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = torch.chunk(from_x + nn.functional.linear(h, w_hh, b_hh), 4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru_step(h: Tensor, from_x: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, ...]:
    r_x, z_x, n_x = torch.chunk(from_x, 3, dim=1)
    r_h, z_h, n_h = torch.chunk(nn.functional.linear(h, w_hh, b_hh), 3, dim=1)
    n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return (n + torch.sigmoid(z_x + z_h) * (h - n),)


def _tanh_step(h: Tensor, from_x: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, ...]:
    return (torch.tanh(from_x + nn.functional.linear(h, w_hh, b_hh)),)


def _relu_step(h: Tensor, from_x: Tensor, w_hh: Tensor, b_hh: Tensor) -> tuple[Tensor, ...]:
    return (torch.relu(from_x + nn.functional.linear(h, w_hh, b_hh)),)


STEPS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "LSTM": _lstm_step,
    "GRU": _gru_step,
    "RNN_TANH": _tanh_step,
    "RNN_RELU": _relu_step,
}


def _with_names(forward: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The same function of named arguments: torch.export takes their names for those of the program's inputs."""

    def call(*arguments: Tensor) -> Any:
        return forward(*arguments)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name.replace(".", "_"), kind) for name in names]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _drop_traces(program: ExportedProgram) -> None:
    """Remove the example, and what torch notes of its origin: paths of this machine, lines of the user's code."""
    program.example_inputs = None
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
                    node.meta.pop(key, None)
