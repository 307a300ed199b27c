"""Modules that torch does not know of: kept in plain lists, tuples and dicts, or in objects that are no modules."""

import copy
from collections.abc import Callable, Iterator
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

from ..runtime.errors import ExportError
from .kinds import is_layer
from .notes import note

_MOST = 10_000  # objects to look at in one module: a data set kept there may hold millions
_OWN = frozenset(vars(nn.Module()))  # what torch keeps itself
_PACKAGE = __name__.partition(".")[0]
_NOT_THE_USERS = ("torch", "blitz", _PACKAGE)
_NO_ONES = (*_NOT_THE_USERS, "numpy", "builtins", "types", "functools", "collections", "weakref", "pathlib")


def unregistered(network: nn.Module) -> list[ExportError]:
    """Why Bayesian layers that torch does not know of are refused, and what to change; other modules are noted."""
    known = set(network.modules())
    refused = []
    for name, module in network.named_modules():
        if type(module).__module__.partition(".")[0] in _NOT_THE_USERS:
            continue
        owner = type(module).__name__ + (f" (module {name!r})" if name else "")
        for attribute, value in _plain(module):
            if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module) and is_layer(value.__self__):
                refused.append(
                    ExportError(
                        f"{owner} keeps a method of a layer, self.{attribute}, which goes on sampling in BLiTZ's way "
                        "whatever an export puts in the layer's place. Keep the layer itself, and call that."
                    )
                )
                continue
            hidden = {part: path for path, part in _modules_in(value, f"self.{attribute}") if part not in known}
            if not hidden:
                continue
            start = (
                f"{owner} keeps modules in self.{attribute}, {_kind(value)}, where torch does not see them: "
                f"{', '.join(hidden.values())}. They are not in network.parameters(), so an optimizer does not train "
                "them, nor in its state_dict. "
            )
            if any(is_layer(part) for top in hidden for part in top.modules()):
                refused.append(
                    ExportError(
                        f"{start}{_remedy(attribute, value)}, and train the network again, unless its optimizer was "
                        "given their parameters by hand."
                    )
                )
            elif any(weight.requires_grad for part in hidden for weight in part.parameters()):
                note(f"{start}They are exported as they are. {_remedy(attribute, value)} to have them trained.")
    return refused


def reaches_out(module: nn.Module) -> bool:
    """Whether a module, or one in it, keeps modules from outside, or methods of theirs, where torch does not look."""
    inside = set(module.modules())
    return any(
        found not in inside for part in inside for _, value in _plain(part) for _, found in _modules_in(value, "")
    )


def exchange(module: nn.Module, twin: Callable[[nn.Module], nn.Module]) -> None:
    """Put their twins in the place of all modules that a module keeps where torch does not look."""
    done: dict[int, Any] = {}

    def exchanged(value: Any) -> Any:
        if isinstance(value, nn.Module):
            return twin(value)
        if isinstance(value, MethodType):
            return MethodType(value.__func__, exchanged(value.__self__))
        if isinstance(value, FunctionType) and _enclosed(value):
            cells = tuple(CellType(exchanged(part)) for part in _enclosed(value))
            new = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
            new.__kwdefaults__ = value.__kwdefaults__
            return new
        if isinstance(value, tuple | set | frozenset):
            parts = [exchanged(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if not isinstance(value, dict | list) and not _is_object(value):
            return value
        if id(value) not in done:
            new = done[id(value)] = copy.copy(value)
            if isinstance(value, dict):
                new.update((key, exchanged(part)) for key, part in value.items())
            elif isinstance(value, list):
                new[:] = map(exchanged, value)
            else:
                vars(new).update((key, exchanged(part)) for key, part in vars(value).items())
        return done[id(value)]

    for attribute, value in _plain(module):
        if any(True for _ in _modules_in(value, "")):
            module.__dict__[attribute] = exchanged(value)


def _plain(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The attributes that torch does not look into."""
    return ((name, value) for name, value in list(vars(module).items()) if name not in _OWN)


def _enclosed(function: FunctionType) -> list[Any]:
    """What a function found around it when it was made, as a lambda in __init__ finds self."""
    try:
        return [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # one that has no value yet
        return []


def _is_object(value: Any) -> bool:
    """An instance of a class of the user's own, in whose attributes modules may be."""
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, type)
        and (type(value).__module__.partition(".")[0] not in _NO_ONES)
    )


def _modules_in(value: Any, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Each module in a value, with the path that leads there: containers in one another, and bound methods."""
    stack, seen, looked = [(path, value)], set(), 0
    while stack and looked < _MOST:
        path, value = stack.pop()
        looked += 1
        if isinstance(value, nn.Module):
            yield path, value
        elif isinstance(value, MethodType):
            stack.append((path, value.__self__))
        elif isinstance(value, FunctionType) and id(value) not in seen:
            seen.add(id(value))
            stack += zip(value.__code__.co_freevars, _enclosed(value), strict=False)
        elif isinstance(value, dict | list | tuple | set | frozenset) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            stack += [(f"{path}[{key!r}]", part) for key, part in items if not isinstance(part, Tensor)][::-1]
        elif _is_object(value) and id(value) not in seen:
            seen.add(id(value))
            stack += [(f"{path}.{key}", part) for key, part in vars(value).items()]


def _kind(value: Any) -> str:
    kinds = {dict: "a plain dict", tuple: "a plain tuple", list: "a plain list", MethodType: "a method of theirs"}
    words = f"a {type(value).__name__}, which is no module" if _is_object(value) else "a plain attribute"
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), words)


def _remedy(attribute: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"Write self.{attribute} = nn.ModuleDict(…)"
    if isinstance(value, list | tuple | set | frozenset):
        return f"Write self.{attribute} = nn.ModuleList(…)"
    if _is_object(value) and not isinstance(value, nn.Module):
        return f"Let {type(value).__name__} inherit from nn.Module, and call super().__init__() first in its __init__"
    return f"Assign the module itself to self.{attribute}"
