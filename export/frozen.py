"""Values and sizes that the user's code takes for fixed while a tracer is to keep them free: at which line, and how."""

import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from .blame import Line, is_library


class FrozenValueError(Exception):
    """A line of the user's code makes a number of Python's of a tensor's values."""

    def __init__(self, line: Line) -> None:
        super().__init__(f"{line.place} makes a number of values")
        self.line = line


class FrozenSizeError(Exception):
    """A line of the user's code takes a size that any call may change for a fixed one."""

    def __init__(self, line: Line, branch: bool) -> None:
        super().__init__(f"{line.place} {'branches on a size' if branch else 'turns a size into a number'}")
        self.line = line
        self.branch = branch


@contextmanager
def refusing_frozen_sizes() -> Iterator[list[FrozenSizeError]]:
    """Raise FrozenSizeError in code of the user's that branches on a free size, or makes a number of it.

    Without it torch.export takes the branch of the example's size and says nothing. What was raised is listed, since
    an exporter may catch it and go another way. An assertion only looks, and so does a branch that raises an error.
    """
    raised: list[FrozenSizeError] = []

    def watched(original: Callable[[Any], Any], branch: bool) -> Callable[[Any], Any]:
        def call(self: Any) -> Any:
            frame = sys._getframe(1)
            if is_library(frame.f_code.co_filename):
                return original(self)
            before = _settled(self)
            result = original(self)
            if _settled(self) != before and not (branch and _only_checks(frame)):
                raised.append(FrozenSizeError(Line(frame.f_code.co_filename, frame.f_lineno), branch))
                raise raised[-1]
            return result

        return call

    ways: list[tuple[Any, str, bool]]
    ways = [(torch.SymInt, "__int__", False), (torch.SymInt, "__index__", False), (torch.SymInt, "__bool__", True)]
    ways += [(torch.SymBool, "__bool__", True), (torch.SymFloat, "__int__", False), (torch.SymFloat, "__bool__", True)]
    kept = [(cls, name, getattr(cls, name)) for cls, name, _ in ways]
    for cls, name, branch in ways:
        setattr(cls, name, watched(getattr(cls, name), branch))
    try:
        yield raised
    finally:
        for cls, name, original in kept:
            setattr(cls, name, original)


def _settled(size: Any) -> Any:
    """What torch has settled about sizes so far."""
    shapes = size.node.shape_env
    if shapes is None:
        return None
    return (
        len(shapes.guards),
        len(shapes.replacements),
        shapes.num_deferred_runtime_asserts,
        dict(shapes.var_to_range),
    )


def _only_checks(frame: FrameType) -> bool:
    """Whether a branch only leads to an error."""
    file, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, number).strip()
    following = linecache.getline(file, number + 1).strip()
    return text.startswith("assert") or following.startswith("raise") or ": raise " in text
