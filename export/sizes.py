"""Which sizes a forward turns into numbers of Python's while TorchScript traces it: the file keeps what they were."""

import os
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .blame import Line
from .watch import BRANCHES, NUMBERS

_TORCH = os.path.dirname(torch.__file__)
_OURS = os.path.dirname(__file__)
_BETWEEN = (os.path.join(_TORCH, "_tensor.py"), os.path.join(_TORCH, "overrides.py"))


@dataclass(frozen=True)
class Conversion:
    """A number of Python's made of sizes alone."""

    line: Line
    sizes: tuple[int, ...]
    """What it was made of, as it was in this trace."""


class Conversions(TorchFunctionMode):
    """A context around a trace: notes numbers made of sizes alone, and for others the line that asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Conversion] = []
        self.line: Line | None = None
        """Of the conversion of a value that is at work, by code that is not torch's own."""
        self.of_sizes = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        frame = sys._getframe(1)
        if name == "unbind" and frame.f_code is Tensor.__iter__.__code__:  # its length counts, which is a size
            name = "__len__"
        if name not in (*BRANCHES, *NUMBERS, "__len__") or not args or not isinstance(args[0], Tensor):
            return func(*args, **(kwargs or {}))
        while frame.f_back is not None and frame.f_code.co_filename in _BETWEEN:
            frame = frame.f_back
        file = frame.f_code.co_filename
        sizes = () if name == "__len__" else _sizes(args[0])
        inside = file.startswith((_TORCH + os.sep, _OURS + os.sep))
        self.of_sizes, self.line = sizes is not None or inside, Line(file, frame.f_lineno)
        try:
            value = func(*args, **(kwargs or {}))
        finally:
            self.of_sizes, self.line = False, None
        if sizes is not None and not inside:
            count = len(value) if isinstance(value, tuple) else value
            self.found.append(Conversion(Line(file, frame.f_lineno), sizes or (count,)))
        return value


def _sizes(tensor: Tensor) -> tuple[int, ...] | None:
    """The sizes that a traced tensor is computed from, if it is from nothing else."""
    found: list[int] = []
    try:
        waiting = [torch._C._get_value_trace(tensor).node()]  # type: ignore[attr-defined]
    except RuntimeError:  # no part of the trace
        return None
    seen = set()
    while waiting:
        node = waiting.pop()
        kind = node.kind()
        if str(node) in seen or kind == "prim::Constant":
            continue
        seen.add(str(node))
        inputs = list(node.inputs())
        if kind == "aten::size" and len(inputs) == 2:
            found.append(inputs[0].type().sizes()[inputs[1].toIValue()])
        elif inputs:
            waiting += [value.node() for value in inputs]
        else:  # an input of the network, a weight, or random numbers
            return None
    return tuple(found) if found else None
