"""What a network's forward is called with: inputs that every call of the file gives anew, and constants of the file.

An example is read once. Wherever a tensor goes, among forward's arguments or in lists and dicts of them, stands a slot.
"""

import copy
import hashlib
import inspect
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..runtime import checks
from ..runtime.contract import FIXED_INPUTS, NOISE_INPUT, OUTPUTS, STATE, Card
from ..runtime.errors import InputError
from .notes import note
from .signature import Input

Plain = bool | int | float | str | None


@dataclass(frozen=True)
class Slot:
    """The place of an input, or of a tensor that is a constant."""

    number: int
    constant: bool = False


@dataclass(frozen=True, eq=False)
class Arguments:
    """How forward is called."""

    positional: tuple[Any, ...]
    keywords: dict[str, Any]
    tensors: tuple[Tensor, ...]
    """The constants that are tensors, as they came."""
    constants: dict[str, Any]
    """What the card says of all constants, by name: plain JSON, or of a tensor its dtype, shape and SHA-256."""
    shared: tuple[bool, ...] = (False,)
    """For each input: whether all rows of a batch share it."""

    @property
    def alone(self) -> bool:
        """Whether forward is given one input and nothing else."""
        return self.positional == (Slot(0),) and not self.keywords

    def call(self, network: nn.Module, inputs: Sequence[Tensor], tensors: Sequence[Tensor]) -> Any:
        """What the network returns for inputs, with the constants that are tensors."""

        def given(slot: Slot) -> Tensor:
            return tensors[slot.number] if slot.constant else inputs[slot.number]

        return network(*_filled(self.positional, given), **_filled(self.keywords, given))


def by_place(count: int) -> Arguments:
    """So many batches, one after the other."""
    return Arguments(tuple(map(Slot, range(count))), {}, (), {}, (False,) * count)


ONE_INPUT = by_place(1)


def read_arguments(
    network: nn.Module, example: Any, constants: Mapping[str, Any], shared_inputs: Sequence[str]
) -> tuple[tuple[Input, ...], Arguments]:
    """The inputs that an example has, and how forward is called with them.

    The first input has a row for each of a batch. Raises InputError for what is no argument of forward.
    """
    positional, keywords = _bound(network, example, constants)
    reading = _Reading(alone=not isinstance(example, Mapping | tuple) and not _is_structure(example))
    found_positional = tuple(reading.read(part, (name,)) for name, part in positional)
    found_keywords = {name: reading.read(part, (name,)) for name, part in keywords.items()}
    if reading.guessed:
        said = ", ".join(f"{name} = {checks.shown(value)}" for name, value in reading.guessed.items())
        note(f"{said}: constant in the file, which no caller can change. Say so with constants= to hear no more of it.")
    given = {name: reading.fixed(value, (name,)) for name, value in constants.items()}
    if not reading.parts:
        raise InputError("example holds no tensor or array: pass at least one input, a batch [B, …].")
    names = reading.names()
    for name in names:
        if name in (*FIXED_INPUTS, *OUTPUTS, NOISE_INPUT) or name.startswith(STATE):
            raise InputError(
                f"An input cannot be called {name!r}, which is the artifact's own. Rename the argument of forward."
            )
    if unknown := [name for name in shared_inputs if name not in names]:
        raise InputError(f"shared_inputs names {unknown[0]!r}, but the inputs are {', '.join(names)}.")
    if set(names) <= set(shared_inputs):
        raise InputError("shared_inputs names every input, but one of them must be a batch [B, …].")
    inputs = [
        Input(name, _as_input("example" if reading.alone else name, part, name in shared_inputs), name in shared_inputs)
        for name, (_, part) in zip(names, reading.parts, strict=True)
    ]
    arguments = Arguments(found_positional, {**found_keywords, **given}, tuple(reading.tensors), reading.constants, ())
    return with_first_batch(tuple(inputs), arguments)


def with_first_batch(inputs: tuple[Input, ...], arguments: Arguments) -> tuple[tuple[Input, ...], Arguments]:
    """The same with an input in front that all rows do not share."""
    first = next(k for k, one in enumerate(inputs) if not one.shared)
    order = [first, *(k for k in range(len(inputs)) if k != first)]

    def moved(slot: Slot) -> Slot:
        return slot if slot.constant else Slot(order.index(slot.number))

    inputs = tuple(inputs[k] for k in order)
    return inputs, replace(
        arguments,
        positional=_filled(arguments.positional, moved),
        keywords=_filled(arguments.keywords, moved),
        shared=tuple(one.shared for one in inputs),
    )


def check_constants(arguments: Arguments, card: Card) -> None:
    """Refuse other constants than an artifact was made with."""
    for name in {**card.constants, **arguments.constants}:
        was, now = (of.get(name, "not given") for of in (card.constants, arguments.constants))
        if was != now:
            raise InputError(
                f"The artifact was made with {name} = {checks.shown(was)}, but {name} is {checks.shown(now)} here. "
                "Pass the same constants, in the example or as constants=."
            )


def plain_constants(card: Card) -> dict[str, Any]:
    """An artifact's constants for another call of forward.

    Raises InputError where one is a tensor, whose values the card does not hold.
    """
    for name, value in card.constants.items():
        if isinstance(value, dict) and "sha256" in value:
            raise InputError(
                f"{name} is a tensor that is constant in the artifact, {value['dtype']} {value['shape']}, whose values "
                "its card does not hold. Pass it in constants=."
            )
    return dict(card.constants)


def _bound(
    network: nn.Module, example: Any, constants: Mapping[str, Any]
) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    """The parts of an example as forward takes them: by position, with names, and by keyword."""
    parameters = inspect.signature(network.forward).parameters.values()
    by_place = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    any_name = any(p.kind == p.VAR_KEYWORD for p in parameters)
    any_place = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    takes = f"the network's forward takes {', '.join(p.name for p in parameters) or 'no argument'}"
    for name in constants:
        if name not in by_name and not any_name:
            raise InputError(f"constants names {name!r}, which is no argument: {takes}.")
    open_places = [name for name in by_place if name not in constants]
    if isinstance(example, Mapping):
        unknown = [name for name in example if name not in by_name]
        if not unknown or (any_name and all(isinstance(name, str) for name in unknown)):
            if twice := [name for name in example if name in constants]:
                raise InputError(f"{twice[0]!r} is in the example and in constants. Keep one of them.")
            return [], {str(name): part for name, part in example.items()}
        if len(unknown) == len(example) and open_places:  # one argument that is a dict
            positional = [(open_places[0], example)]
        else:
            raise InputError(f"example has {unknown[0]!r}, which is no argument: {takes}.")
    elif isinstance(example, tuple) and not hasattr(example, "_fields"):
        if len(example) > len(open_places) and not any_place:
            beside = f" beside {', '.join(constants)}" if constants else ""
            raise InputError(f"example has {len(example)} parts, but {takes}{beside}.")
        names = open_places + [f"x{k}" for k in range(len(open_places), len(example))]
        positional = list(zip(names, example, strict=False))
    else:
        positional = [((open_places or ["x"])[0] if _is_structure(example) else "x", example)]
    if set(constants) & set(by_place):  # what stands behind a constant must come by name
        return [], dict(zip(open_places, (part for _, part in positional), strict=False))
    return positional, {}


class _Reading:
    """The parts of an example, as they are found in it."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone
        """Whether the example is one array and nothing else, which an artifact calls x."""
        self.parts: list[tuple[tuple[str, ...], Any]] = []
        self.tensors: list[Tensor] = []
        self.constants: dict[str, Any] = {}
        self.guessed: dict[str, Any] = {}

    def names(self) -> list[str]:
        """Of the inputs: the last word of each path, or the whole path where that would come twice."""
        last = [_name(path[-2:] if path[-1].isdigit() else path[-1:]) for path, _ in self.parts]
        return [one if last.count(one) == 1 else _name(path) for one, (path, _) in zip(last, self.parts, strict=True)]

    def read(self, value: Any, path: tuple[str, ...]) -> Any:
        """What forward is given for a part, with slots for inputs."""
        if isinstance(value, Mapping) and not hasattr(value, "columns"):
            read = {key: self.read(part, (*path, str(key))) for key, part in value.items()}
            return _like(value, read)
        if _is_structure(value):
            return _rebuilt(value, [self.read(part, (*path, str(k))) for k, part in enumerate(value)])
        if isinstance(value, np.generic) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0):
            value = value.item()
        if not self.alone and _is_plain(value):
            self.guessed[_name(path)] = value
            return self.fixed(value, path)
        self.parts.append((path, value))
        return Slot(len(self.parts) - 1)

    def fixed(self, value: Any, path: tuple[str, ...]) -> Any:
        """What forward is given for a constant, with slots for tensors."""
        name = _name(path)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            value = torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(value, Tensor):
            value = value.detach().cpu().clone()
            content = value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
            about = {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
            self.constants[name] = {**about, "sha256": hashlib.sha256(content).hexdigest()}
            self.tensors.append(value)
            return Slot(len(self.tensors) - 1, constant=True)
        if _is_plain(value):
            self.constants[name] = _as_json(value)
            return value
        if isinstance(value, dict):
            return {key: self.fixed(part, (*path, str(key))) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return _rebuilt(value, [self.fixed(part, (*path, str(k))) for k, part in enumerate(value)])
        raise InputError(_ODD.format(name, checks.shown(value)))


_ODD = (
    "{} is {}. What forward takes must be a tensor or an array, or a constant of plain values: numbers, text, True, "
    "False, None, and lists or dicts of them. Set anything else in a module around the network: `def forward(self, x): "
    "return self.network(x, …)`."
)


def _name(path: Sequence[str]) -> str:
    return "".join(f"_{part}" if k and not part.isdigit() else part for k, part in enumerate(path))


def _is_structure(value: Any) -> bool:
    """Whether it is a list or tuple that has tensors, or arrays of two axes, in it: not an array as nested lists."""
    return isinstance(value, list | tuple) and any(
        _is_structure(part) or isinstance(part, Mapping) or getattr(part, "ndim", 0) > (not isinstance(part, Tensor))
        for part in value
    )


def _is_plain(value: Any) -> bool:
    """Whether it is a constant of plain values, and no array as nested lists."""
    if isinstance(value, list | tuple):
        return all(_is_plain(part) and not (isinstance(part, list | tuple) and _numeric(value)) for part in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return isinstance(value, bool | int | float | str | None) and value == value


def _numeric(value: Any) -> bool:
    """Whether numpy makes an array of numbers of it."""
    try:
        return bool(np.asarray(value).dtype.kind in "fiub")
    except ValueError:  # lists of unequal length
        return False


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(part) for key, part in value.items()}
    return [_as_json(part) for part in value] if isinstance(value, list | tuple) else value


def _like(value: Mapping[Any, Any], parts: dict[Any, Any]) -> Any:
    """The parts in a mapping of the same type, where that can be filled."""
    if type(value) is dict or not isinstance(value, MutableMapping):
        return parts
    copied = copy.copy(value)
    copied.update(parts)
    return copied


def _rebuilt(value: Any, parts: list[Any]) -> Any:
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _filled(value: Any, give: Callable[[Slot], Any]) -> Any:
    """The same arguments with something in the place of each slot."""
    if isinstance(value, Slot):
        return give(value)
    if isinstance(value, Mapping):
        filled = {key: _filled(part, give) for key, part in value.items()}
        return _like(value, filled)
    if isinstance(value, list | tuple):
        return _rebuilt(value, [_filled(part, give) for part in value])
    return value


def _as_input(name: str, example: Any, shared: bool) -> Tensor:
    """An example of an input, float32, int64 or bool."""
    if isinstance(example, Tensor):
        odd = example.is_complex() or example.layout != torch.strided
        kind = "O" if odd else "f" if example.is_floating_point() else "b" if example.dtype == torch.bool else "i"
        x = example.detach().cpu()
    else:
        if hasattr(example, "columns"):
            raise InputError(
                f"{name} is a table: pass its values as an array, and its columns as input_names, so that `predict` "
                "finds them by name."
            )
        values = checks.array(name, example)
        kind = values.dtype.kind
        if kind == "O":
            raise InputError(_ODD.format(name, checks.shown(example)))
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            dtype = {"f": np.float32, "b": np.bool_}.get(kind, np.int64)
            x = torch.from_numpy(np.array(values, dtype)) if kind in "fiub" else torch.empty(0)
    if kind not in "fiub":
        raise InputError(
            f"{name} must hold numbers: floats, whole numbers for tokens, or True and False for a mask. Convert it "
            "first."
        )
    x = x.float() if x.is_floating_point() else x if x.dtype == torch.bool else x.long()
    if (x.dim() < 1 and not shared) or x.numel() == 0:
        raise InputError(
            f"{name} must be a batch [B, …] with at least one row and one of each, but has shape {tuple(x.shape)}."
        )
    if not torch.isfinite(x).all():
        raise InputError(
            f"{name} must be finite: it serves the proof of the exported file. A mask of minus infinity goes in as "
            "one of True and False, or as a constant."
        )
    return x
