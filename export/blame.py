"""Where in the user's code something happened: the line of their forward, and the module that was at work."""

import functools
import linecache
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

LONGEST_SOURCE = 100

_LIBRARIES = ("torch", "blitz", "numpy", "scipy", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "sympy")
_OURS = ("runtime", "models", "data", "export", "train", "evaluation", "cli")
_QUOTED = re.compile(r'File "([^"\n]+)", line (\d+)')  # how Python, and torch in its messages, print a frame


@dataclass(frozen=True)
class Line:
    """A line of code. As text: ``network.py:42: `x = x.view(8, -1)` ``."""

    file: str
    number: int

    @property
    def source(self) -> str:
        return linecache.getline(self.file, self.number).strip()

    @property
    def place(self) -> str:
        """The file as its author would name it, and the line."""
        path = Path(self.file)
        if "ipykernel_" in self.file:
            return f"line {self.number} of a notebook's cell"
        if path.is_absolute() and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        return f"{path}:{self.number}"

    def __str__(self) -> str:
        source = self.source
        if len(source) > LONGEST_SOURCE:
            source = source[: LONGEST_SOURCE - 1] + "…"
        return f"{self.place}: `{source}`" if source else self.place


def line_of(error: BaseException) -> Line | None:
    """The innermost line of the user's code that an error came through, or that its message quotes; None without one.

    Of an error with causes, the line of the first cause that has one: torch wraps what went wrong in advice of its own.
    """
    chain = list(_causes(error))
    places = (*map(_of_traceback, reversed(chain)), *map(_of_nodes, chain), *map(_quoted, chain))
    found = [_innermost(lines) for lines in places]
    return next((line for line in found if line is not None and _rank(line.file) == 0), None) or next(
        (line for line in found if line is not None), None
    )


def line_now(stop: Any = None) -> Line | None:
    """The innermost line of the user's code that is running, up to a call of the function `stop`; None without one."""
    lines = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not getattr(stop, "__code__", None):
        lines.append(Line(frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return _innermost(reversed(lines))


def is_library(file: str) -> bool:
    """Whether a file is no code of the user's: torch's, BLiTZ's, murho's, another such library's or Python's own."""
    return _rank(file) == 2


def _innermost(lines: Any) -> Line | None:
    """Of lines from the outermost to the innermost. A package beside torch is the user's if nothing else is."""
    nearest: dict[int, Line] = {}
    for line in lines:
        nearest[_rank(line.file)] = line
    return nearest.get(0) or nearest.get(1)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)  # type: ignore[assignment]


def _of_traceback(error: BaseException) -> list[Line]:
    lines, traceback = [], error.__traceback__
    while traceback is not None:
        lines.append(Line(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return lines


def _of_nodes(error: BaseException) -> list[Line]:
    """The lines that made the node of a graph that a translator stumbled over."""
    traces, traceback = [], error.__traceback__
    while traceback is not None:
        node = traceback.tb_frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node):
            traces.append(str(node.meta.get("stack_trace", "")))
        traceback = traceback.tb_next
    return [line for trace in traces for line in _in_text(trace)]


def _quoted(error: BaseException) -> list[Line]:
    return _in_text(str(error))


def _in_text(text: str) -> list[Line]:
    return [Line(file, int(number)) for file, number in _QUOTED.findall(text)]


@functools.cache
def _rank(file: str) -> int:
    """0 for the user's own code, 1 for an installed package that may be theirs, 2 for what is not."""
    if file.startswith("<"):
        return 0 if file.startswith(("<ipython-input", "<stdin>")) else 1 if file == "<string>" else 2
    path = os.path.realpath(file)
    site = os.path.dirname(os.path.dirname(os.path.realpath(torch.__file__)))
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if _inside(path, *(os.path.join(ours, name) for name in _OURS)):
        return 2
    for folder in ("site-packages", "dist-packages", site):
        _, found, inside = path.rpartition(folder + os.sep)
        if found:
            return 2 if inside.split(os.sep)[0] in (*_LIBRARIES, "murho") else 1
    standard = (os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return 2 if _inside(path, *standard) else 0


def _inside(path: str, *folders: str) -> bool:
    return any(path.startswith(folder + os.sep) for folder in folders)


class Blame:
    """A context around passes of a network; after an error, `culprit` says in words which module it happened in."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._inside: list[str] = []

    @property
    def culprit(self) -> str:
        name = self._inside[-1] if self._inside else ""
        return f"Module {name!r}" if name else "The network's forward"

    def __enter__(self) -> "Blame":
        self._handles = []
        for name, module in self._network.named_modules():

            def enter(_module: nn.Module, _inputs: Any, name: str = name) -> None:
                self._inside.append(name)

            def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
                self._inside.pop()

            self._handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
