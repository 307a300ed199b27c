"""The Monte-Carlo network as a TorchScript file: traced, with the kernels as scripted functions inside.

Tracing follows the user's Python code; scripting the kernels keeps time, batch and draws dynamic.
"""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import ExportError
from . import kernels
from .axes import LengthError
from .blame import Line, is_library
from .coding import CodedPosterior
from .frozen import FrozenValueError
from .layers import Kernels, MonteCarloLayer
from .sizes import Conversion, Conversions


@functools.cache
def scripted_kernels() -> Kernels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated in favour of torch.export, and works
        script = torch.jit.script
        return Kernels(**{field.name: script(getattr(kernels, field.name)) for field in dataclasses.fields(Kernels)})


def build(
    network: nn.Module,
    inputs: Sequence[Tensor],
    others: Sequence[Sequence[Tensor]],
    noisy: bool,
    states: Sequence[int],
) -> torch.jit.ScriptModule:
    """Trace a MonteCarloNetwork made with `scripted_kernels()`; inputs [B ≥ 2, …]; `noisy` and `states` as for ONNX.

    `others` are inputs at another number of rows, then at other lengths of free axes.

    Raises FrozenValueError where the forward makes numbers of Python's of values; ExportError where the file would keep
    the number of rows or draws as it is; LengthError where it would keep the length of a free axis.
    """
    for layer in network.modules():
        if isinstance(layer, MonteCarloLayer):
            layer.keep_coded(lambda coded: torch.jit.script(CodedPosterior(coded)))

    traced, conversions = _traced(network, inputs, 5, noisy, states)
    if not conversions:
        return traced
    for k, other in enumerate(others):
        again = _traced(network, other, 3, noisy, states)[1]
        same = len(again) == len(conversions)
        line = next((one.line for one, two in zip(conversions, again, strict=False) if one.sizes != two.sizes), None)
        if same and line is None:
            continue
        line = line or conversions[min(len(conversions), len(again)) - 1].line
        if k:
            raise LengthError(f"{line} makes a number of Python's of it, which the file would keep")
        raise ExportError(
            f"{line} makes a number of Python's of how many rows there are, which TorchScript's tracer would keep. "
            "Take it as x.shape[0], without len(), int() or a branch on it."
        )
    return traced


def _traced(
    network: nn.Module,
    inputs: Sequence[Tensor],
    count: int,
    noisy: bool,
    states: Sequence[int],
) -> tuple[torch.jit.ScriptModule, list[Conversion]]:
    """The trace of a network for `count` draws, and the numbers that it keeps of sizes."""
    draws, seed, levels = torch.arange(count), torch.tensor(0), torch.tensor([0.5, 0.95])
    last = [torch.tensor(1.0)] * noisy + [torch.zeros(count, len(inputs[0]), width) for width in states]
    methods = {"forward": (*inputs, draws, seed, levels, *last), "samples": (*inputs, draws, seed, *last)}
    decided: list[Line] = []
    conversions = Conversions()

    def note(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        if conversions.of_sizes or not issubclass(category, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            return
        if str(message).startswith("Iterating over a tensor"):  # `conversions` knows how often
            return
        if conversions.line is not None or not is_library(filename):
            decided.append(conversions.line or Line(filename, lineno))

    with warnings.catch_warnings(), torch.no_grad(), conversions:
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        traced: torch.jit.ScriptModule = torch.jit.trace_module(network, methods, check_trace=False)  # type: ignore[no-untyped-call]
    if decided:
        raise FrozenValueError(decided[0])
    return traced, conversions.found
