"""What a network's forward does, torch function by torch function, and which line of the user's code asks for it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .blame import Line, line_now

BRANCHES = ("__bool__", "__contains__")
NUMBERS = ("item", "__int__", "__float__", "__index__", "__complex__", "tolist")
ARRAYS = ("numpy", "__array__", "__dlpack__")


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a torch function."""

    name: str
    line: Line | None
    """The user's line that was running."""
    module: str
    """Dotted name of the innermost module that was running."""
    results: tuple[Tensor, ...] = ()
    failed: bool = False


class _Recorder(TorchFunctionMode):
    def __init__(self, stop: Callable[..., Any], results: bool) -> None:
        super().__init__()
        self.passes: list[list[Step]] = []
        self.inside: list[str] = []
        self._stop, self._results = stop, results

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", func))
        if not self.inside or name == "__get__":
            return func(*args, **kwargs)
        about = (name, line_now(self._stop), self.inside[-1])
        try:
            result = func(*args, **kwargs)
        except Exception:
            self.passes[-1].append(Step(*about, failed=True))
            raise
        parts = (result if isinstance(result, tuple | list) else [result]) if self._results else []
        results = tuple(part.detach().clone() for part in parts if isinstance(part, Tensor))
        self.passes[-1].append(Step(*about, results))
        return result


@contextmanager
def recorded(network: nn.Module, stop: Callable[..., Any], results: bool = True) -> Iterator[list[list[Step]]]:
    """The steps of each pass of the network that is made inside; `stop` is the function that calls it.

    Without `results` they take no memory.
    """
    recorder = _Recorder(stop, results)
    handles = []
    for name, module in network.named_modules():

        def enter(_module: nn.Module, _inputs: Any, name: str = name) -> None:
            if not name:
                recorder.passes.append([])
                recorder.inside.clear()
            recorder.inside.append(name)

        def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            recorder.inside.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with recorder:
            yield recorder.passes
    finally:
        for handle in handles:
            handle.remove()


def first_different(passes: Sequence[Sequence[Step]]) -> Step | None:
    """The first step that gives another result in one of several passes of the same inputs and weights."""
    for steps in itertools.zip_longest(*passes):
        step = next(step for step in steps if step is not None)
        for other in steps:
            if other is None or other.name != step.name or len(other.results) != len(step.results):
                return step
            if any(y.shape != z.shape or _moved(y, z).any() for y, z in zip(step.results, other.results, strict=True)):
                return step
    return None


def _moved(y: Tensor, z: Tensor) -> Tensor:
    return (y != z) & ~((y != y) & (z != z))


def caught(passes: Sequence[Sequence[Step]]) -> Step | None:
    """A step that raised an error which the forward caught, if all passes ended well."""
    return next((step for steps in passes for step in steps if step.failed), None)


def first_mixed(passes: Sequence[Sequence[Step]]) -> Step | None:
    """The first step with a value that depends on two rows of the batch; None without one.

    The passes are of one batch as it is, and of the same batch changed in each of its rows in turn.
    """
    step: Step
    others: list[Step]
    for step, *others in zip(*passes, strict=False):
        if any(other.name != step.name for other in others):
            return None  # a pass went another way
        for k, y in enumerate(step.results):
            moved = torch.zeros(y.shape, dtype=torch.int64)
            for other in others:
                z = other.results[k]
                if z.shape != y.shape:
                    return step
                moved += _moved(y, z).cpu()
            if (moved > 1).any():
                return step
    return None
