"""torch's own nn.LSTM, nn.GRU and nn.RNN on the way to ONNX, with any number of time steps.

torch.export unrolls them over the example's steps and so fixes the length. Here each layer enters the exporter as one
opaque operator, which becomes ONNX's own LSTM, GRU or RNN.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op
from torch import Tensor, nn

# Rows of ONNX's gates, as indices of torch's: i, f, g, o -> i, o, f, c and r, z, n -> z, r, h.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


def keep_time_free(network: nn.Module) -> None:
    """Give every recurrent module of torch inside `network` a forward pass that exports with a free time axis."""
    for module in network.modules():
        if isinstance(module, nn.RNNBase) and not module.proj_size:
            _adapt(module)


def _adapt(module: nn.RNNBase) -> None:
    kind = module.mode.partition("_")[0]
    directions = 2 if module.bidirectional else 1
    for layer in range(module.num_layers):
        parts: dict[str, list[Tensor]] = {"w": [], "r": [], "b": []}
        for suffix in ("", "_reverse")[:directions]:

            def rows(name: str, suffix: str = suffix, layer: int = layer) -> Tensor:
                chunks = getattr(module, f"{name}_l{layer}{suffix}").detach().chunk(len(_GATES[kind]))
                return torch.cat([chunks[gate] for gate in _GATES[kind]])

            parts["w"].append(rows("weight_ih"))
            parts["r"].append(rows("weight_hh"))
            bias = torch.cat([rows("bias_ih"), rows("bias_hh")]) if module.bias else None
            parts["b"].append(torch.zeros(2 * len(parts["w"][-1])) if bias is None else bias)
        for name, pieces in parts.items():
            module.register_buffer(f"onnx_{name}{layer}", torch.stack(pieces))
    module.forward = types.MethodType(_forward, module)


def _forward(module: nn.RNNBase, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
    lstm, directions = module.mode == "LSTM", 2 if module.bidirectional else 1
    x = x.transpose(0, 1) if module.batch_first else x
    zeros = x.new_zeros(module.num_layers * directions, x.shape[1], module.hidden_size)
    h, c = (zeros, zeros) if hx is None else hx if lstm else (hx, zeros)
    ends: list[tuple[Tensor, Tensor]] = []
    for layer in range(module.num_layers):
        weights = (getattr(module, f"onnx_{name}{layer}") for name in "wrb")
        own = slice(layer * directions, (layer + 1) * directions)
        x, h_end, c_end = operator()(x, h[own], c[own], *weights, module.mode)
        ends.append((h_end, c_end))
    h_all, c_all = (torch.cat(states) for states in zip(*ends, strict=True))
    return x.transpose(0, 1) if module.batch_first else x, (h_all, c_all) if lstm else h_all


@functools.cache
def operator() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """murho::recurrent(x [T, N, F], h and c [D, N, H], w, r, b, mode) -> y [T, N, D·H] and the last h and c."""

    def shape(
        x: Tensor, h: Tensor, c: Tensor, w: Tensor, r: Tensor, b: Tensor, mode: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        return x.new_empty((x.shape[0], x.shape[1], h.shape[0] * h.shape[2])), torch.empty_like(h), torch.empty_like(c)

    # Only ever traced: what it computes is the ONNX operator's business, so its shapes stand in for a body.
    made = torch.library.custom_op("murho::recurrent", shape, mutates_args=())
    made.register_fake(shape)
    return made


def translation(x, h, c, w, r, b, mode):  # type: ignore[no-untyped-def]
    """The operator as ONNX: one LSTM, GRU or RNN, its output brought to torch's layout."""
    sizes = {"hidden_size": r.shape[2], "direction": "bidirectional" if w.shape[0] == 2 else "forward"}
    if mode == "LSTM":
        y, h_end, c_end = op.LSTM(x, w, r, b, None, h, c, **sizes)
    elif mode == "GRU":
        y, h_end = op.GRU(x, w, r, b, None, h, linear_before_reset=1, **sizes)
        c_end = op.Identity(c)
    else:
        activation = "Relu" if mode == "RNN_RELU" else "Tanh"
        y, h_end = op.RNN(x, w, r, b, None, h, activations=[activation] * w.shape[0], **sizes)
        c_end = op.Identity(c)
    rows = op.Transpose(y, perm=[0, 2, 1, 3])
    shape: Any = op.Constant(value_ints=[0, 0, -1])
    return op.Reshape(rows, shape), h_end, c_end
