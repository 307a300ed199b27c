"""The Monte-Carlo network as a TorchScript file: traced, with the kernels as scripted functions inside.

Tracing follows the user's Python code; scripting the kernels keeps time, batch and draws dynamic.
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import ExportError
from . import kernels
from .blame import Blame
from .coding import CodedPosterior
from .layers import Kernels, MonteCarloLayer


@functools.cache
def scripted_kernels() -> Kernels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated in favour of torch.export, and works
        script = torch.jit.script
        return Kernels(**{field.name: script(getattr(kernels, field.name)) for field in dataclasses.fields(Kernels)})


def build(
    network: nn.Module, inputs: Sequence[Tensor], noisy: bool, states: Sequence[int], blame: Blame
) -> torch.jit.ScriptModule:
    """Trace a MonteCarloNetwork made with `scripted_kernels()`; inputs [B ≥ 2, …]; `noisy` and `states` as for ONNX.

    Raises ExportError, naming the module that `blame` is watching, where the forward branches on values.
    """
    draws, seed, levels = torch.arange(5), torch.tensor(0), torch.tensor([0.5, 0.95])
    last = [torch.tensor(1.0)] * noisy + [torch.zeros(len(draws), len(inputs[0]), width) for width in states]
    methods = {"forward": (*inputs, draws, seed, levels, *last), "samples": (*inputs, draws, seed, *last)}
    branches: list[str] = []
    for layer in network.modules():
        if isinstance(layer, MonteCarloLayer):
            layer.keep_coded(lambda coded: torch.jit.script(CodedPosterior(coded)))

    def note(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        by_user = not filename.startswith(os.path.dirname(torch.__file__))
        if by_user and issubclass(category, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            branches.append(
                f"{blame.culprit} branches on values or sizes ({filename}:{lineno}: {str(message).partition('.')[0]})"
            )

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        traced: torch.jit.ScriptModule = torch.jit.trace_module(network, methods, check_trace=False)  # type: ignore[no-untyped-call]
    if branches:
        raise ExportError(
            f"{branches[0]}, which TorchScript's tracer cannot follow. Choose between values with torch.where, and by "
            "sizes when the module is built; or export to ONNX, which follows fixed sizes."
        )
    return traced
