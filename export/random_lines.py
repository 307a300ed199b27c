"""Which lines of a network's own code draw random numbers."""

import sys
from collections.abc import Collection
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_LIBRARIES = ("torch", "blitz", __name__.partition(".")[0])


class RandomLines(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context around passes of a network: `found` are the lines, outside of BLiTZ, that had torch draw.

    What the `samplers` draw themselves does not count, wherever their code lies.
    """

    def __init__(self, samplers: Collection[nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._samplers = samplers
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and _library(frame) == "torch":
                frame = frame.f_back
            if frame is not None and not _library(frame) and frame.f_locals.get("self") not in self._samplers:
                line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                self.found += [line] if line not in self.found else []
        return func(*args, **(kwargs or {}))


def _library(frame: FrameType) -> str:
    name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return name if name in _LIBRARIES else ""
