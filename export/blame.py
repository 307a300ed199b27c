"""Which module was at work when a forward pass failed."""

from types import TracebackType
from typing import Any

from torch import nn


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
