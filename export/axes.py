"""Which axes of the inputs have any length: asked of the user's own network, run at other lengths than the example's.

What is learnt here costs some passes. An axis that the network reads at every length in the same way may still be fixed
by a file's format, which the build and the proof find.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..runtime.errors import ExportError, InputError
from .blame import Line, line_of
from .signature import Input

ROWS = 3
"""Of a trial."""
LONGEST_REASON = 200

Place = tuple[int, int]
"""An input's number, and an axis of it."""
Run = Callable[[Sequence[Tensor]], Mapping[str, tuple[int, ...]]]
"""Runs the user's network on inputs, once; returns the shapes [B, …] of its outputs."""


class LengthError(ExportError):
    """An export that failed, but not at the example's lengths."""


@dataclass(frozen=True)
class Asked:
    """What the caller says of the axes beside the batch; by the input's name or number, or for the only input."""

    free: Mapping[str, Sequence[int]] | Mapping[int, Sequence[int]] | Sequence[int] = ()
    """Of any length, or the export is an error."""
    fixed: Mapping[str, Sequence[int]] | Mapping[int, Sequence[int]] | Sequence[int] = ()
    """Of the example's length."""

    def places(self, signature: Sequence[Input]) -> tuple[list[Place], list[Place]]:
        """The free and the fixed axes. Raises InputError for what the inputs do not have."""
        free, fixed = (self._of(name, signature) for name in ("free", "fixed"))
        if both := set(free) & set(fixed):
            k, axis = min(both)
            raise InputError(f"Axis {axis} of {signature[k].name} is both free and fixed. Leave one out.")
        return free, fixed

    def _of(self, argument: str, signature: Sequence[Input]) -> list[Place]:
        said = getattr(self, argument)
        names = [one.name for one in signature]
        if not isinstance(said, Mapping):
            if said and len(names) > 1:
                raise InputError(
                    f"{argument} must say of which input: the network has {', '.join(names)}. Pass "
                    f"{argument}={{{names[0]!r}: {', '.join(map(str, said))}}}."
                )
            said = {names[0]: said}
        places = []
        for name, axes in said.items():
            if name not in names and name not in range(len(names)):
                raise InputError(f"{argument} names {name!r}, but the network's inputs are {', '.join(names)}.")
            k = name if isinstance(name, int) else names.index(name)
            last = signature[k].example.dim() - 1
            for axis in axes:
                if not (not signature[k].shared) <= axis <= last:
                    rows = " The rows, axis 0, are always free." if axis == 0 else ""
                    raise InputError(
                        f"{argument} says axis {axis} of {names[k]}, which has axes 1 to {last} beside its rows.{rows}"
                        if not signature[k].shared
                        else f"{argument} says axis {axis} of {names[k]}, which has axes 0 to {last}."
                    )
                places.append((k, axis))
        return places


@dataclass(frozen=True)
class Fixed:
    """An axis that the network, or a format, reads at the example's length alone."""

    place: Place
    input: str
    axis: str
    length: int
    reason: str
    """A clause."""
    advice: str

    @property
    def explained(self) -> str:
        """Without advice."""
        return f"{self.which} is fixed at {self.length}, the example's length: {self.reason}."

    @property
    def which(self) -> str:
        called = "" if self.axis.startswith("axis") else f" ({self.axis})"
        return f"Axis {self.place[1]} of {self.input}{called}"

    def __str__(self) -> str:
        return f"{self.explained} {self.advice}"


@dataclass(frozen=True)
class Found:
    """What trials learnt of the axes."""

    signature: tuple[Input, ...]
    lengths: tuple[Mapping[str, int], ...]
    """At which the free axes are proven, by name: first the example's, then others that the network reads."""
    fixed: tuple[Fixed, ...]
    """Axes that were candidates, and are not free."""
    asked: frozenset[str] = frozenset()
    """The names of those free axes that the caller asked for."""

    def without(self, names: Iterable[str], reason: str, advice: str) -> "Found":
        """The same with the axes of these names at the example's lengths. Raises ExportError for one asked for."""
        names = set(names)
        places = [(k, axis) for k, one in enumerate(self.signature) for axis, name in one.free.items() if name in names]
        fixed = [_fixed(self.signature, place, reason, advice) for place in places]
        if names & self.asked:
            raise ExportError(f"{_cannot_be_free(fixed[0])}")
        signature = tuple(
            replace(one, free={axis: name for axis, name in one.free.items() if name not in names})
            for one in self.signature
        )
        kept = [{name: n for name, n in case.items() if name not in names} for case in self.lengths]
        return replace(self, signature=signature, lengths=_different(kept), fixed=(*self.fixed, *fixed))


NOTHING_FOUND = Found((), ({},), ())


def find_axes(
    signature: Sequence[Input], asked: Asked, run: Run, bayesian: Iterable[nn.Module], follows: bool
) -> Found:
    """Which axes are free: of float [B, T, F] and tokens [B, T] axis 1, and those asked for.

    `bayesian` are the layers inside which nothing counts: their steps are no Python in the file. `follows` says that an
    axis must be fixed where the values of the first output [B, O] follow it, for intervals to have a fixed number.
    """
    free, fixed = asked.places(signature)
    signature = tuple(replace(one, free={}) for one in signature)
    looks = [
        (k, 1)
        for k, one in enumerate(signature)
        if not one.shared and one.example.dim() == (3 if one.is_float or isinstance(one.limit, tuple) else 2)
    ]
    looks += _of_shared(signature, [int(signature[k].example.shape[axis]) for k, axis in looks])
    places = [*dict.fromkeys([*free, *(place for place in looks if place not in fixed)])]
    trials = _Trials(signature, run, list(bayesian), follows)
    groups = trials.groups(places)
    kept: list[_Group] = []
    dropped: list[Fixed] = []
    for group in groups:
        group.asked = any(place in free for place in group.places)
        difference = trials.learn_lengths(group)
        if difference is None:
            kept.append(group)
            continue
        advice = difference.advice(signature, group.places)
        dropped += [_fixed(signature, place, difference.text, advice) for place in group.places]
        if group.asked:
            raise ExportError(_cannot_be_free(dropped[-1]))
    names = _names(signature, kept)
    free_of = {place: name for group, name in zip(kept, names, strict=True) for place in sorted(group.places)}
    found = Found(
        tuple(
            replace(one, free={axis: name for (j, axis), name in free_of.items() if j == k})
            for k, one in enumerate(signature)
        ),
        _together(kept, names),
        tuple(dropped),
        frozenset(name for name, group in zip(names, kept, strict=True) if group.asked),
    )
    for case in found.lengths if len(kept) > 1 else ():
        if difference := trials.difference({place: case[name] for place, name in free_of.items()}):
            others = set(names) - found.asked or set(names)
            return found.without(others, difference.text, difference.advice(signature, list(free_of)))
    return found


def _of_shared(signature: Sequence[Input], lengths: Sequence[int]) -> list[Place]:
    """Axes of what all rows share that may have any length: as long as a sequence, and the last one of whole numbers.

    So a mask [T, T] grows with its sequence, and a list [2, E] has any number of edges.
    """
    places = []
    for k, one in enumerate(signature):
        sizes = one.example.shape if one.shared else ()
        listed = len(sizes) > 1 and one.example.dtype == torch.int64
        places += [(k, axis) for axis, n in enumerate(sizes) if n in lengths or (listed and axis == len(sizes) - 1)]
    return places


@dataclass
class _Group:
    """Axes that have one length."""

    places: list[Place]
    asked: bool = False
    lengths: list[int] = field(default_factory=list)
    """The example's, and others that the network reads: a longer one, shorter ones."""


class _Trials:
    """The user's network at other lengths than the example's."""

    def __init__(self, signature: Sequence[Input], run: Run, bayesian: Sequence[nn.Module], follows: bool) -> None:
        self._examples = [one.rows(ROWS) for one in signature]
        self._run, self._bayesian, self._follows = run, bayesian, follows
        self._usual: tuple[Mapping[str, tuple[int, ...]], Counter[Line]] | None = None

    def groups(self, places: Sequence[Place]) -> list[_Group]:
        """Axes of one length in the example belong together, but for those that the network reads longer alone."""
        by_length: dict[int, list[Place]] = {}
        for place in places:
            by_length.setdefault(self._length(place), []).append(place)
        groups = []
        for length, together in by_length.items():
            if len(together) == 1:
                groups.append(_Group(together))
                continue
            base = dict.fromkeys(together, max(2, length))  # one of length 1 is spread over others without a word
            alone = [
                place
                for place in together
                if any(self.difference(base | {place: n}) is None for n in _longer(max(2, length)))
            ]
            groups += [_Group([place]) for place in alone]
            tied = [place for place in together if place not in alone]
            groups += [_Group(tied)] if tied else []
        return groups

    def learn_lengths(self, group: _Group) -> "_Difference | None":
        """The example's length and others, longer and shorter, at which the network reads a group's axes; or why not.

        An axis that nobody asked for has any length at all, one that was asked for those that the network takes: a
        network of four halvings may read images of 32, 48, 64 … pixels.
        """
        length = self._length(group.places[0])
        shorter = [n for n in dict.fromkeys(((length + 1) // 2, 1)) if n < length]
        group.lengths = [length]
        if not group.asked:
            for n in (*_longer(length)[:2], *shorter):
                difference = self.difference(dict.fromkeys(group.places, n), self._follows)
                if difference is not None:
                    some = difference.kind in (FAILS, VALUES_FOLLOW)
                    some = some and self.learn_lengths(_Group(group.places, asked=True)) is None
                    return replace(difference, some=some)
            group.lengths += [_longer(length)[0], *shorter]
            return None
        first: _Difference | None = None
        fewer = [*shorter, *(length - n for n in (2, 4, 8, 16, 1, 3) if length > n)]
        for tried in (_longer(length), fewer, shorter[-1:]):
            for n in tried:
                if n in group.lengths:
                    break
                difference = self.difference(dict.fromkeys(group.places, n))
                if difference is None:
                    group.lengths.append(n)
                    break
                if not difference.fails:
                    return difference
                first = first or difference
        return None if len(group.lengths) > 1 else first

    def difference(self, lengths: Mapping[Place, int], follows: bool = False) -> "_Difference | None":
        """What the network does otherwise with axes of these lengths than with the example's."""
        at = f"at {' and '.join(map(str, dict.fromkeys(lengths.values())))}"
        usual, usual_lines = self._as_usual()
        try:
            shapes, lines = self._pass(lengths)
        except Exception as error:  # whatever the user's forward raises
            line = line_of(error)
            text = " ".join(str(error).split())
            text = text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
            where = f", at {line}" if line else ""
            return _Difference(f"{at} the network fails{where} ({type(error).__name__}: {text})", FAILS)
        for name, shape in shapes.items():
            if len(shape) != len(usual[name]) or shape[0] != ROWS:
                return _Difference(f"{at} the network's {name} is {list(shape)} for {ROWS} rows", ROWS_CHANGE)
        for line in dict.fromkeys((*usual_lines, *lines)):
            if lines[line] != usual_lines[line]:
                here, there = lines[line], usual_lines[line]
                text = f"{at} the forward goes another way: {line} calls torch {here} times, not {there}"
                return _Difference(text, OTHER_WAY)
        first = next(iter(shapes))
        if follows and len(shapes[first]) == 2 and shapes[first] != usual[first]:
            values = f"{at} the network's {first} has {shapes[first][1]} values in place of {usual[first][1]}"
            return _Difference(f"{values}, and intervals can be calibrated for a fixed number", VALUES_FOLLOW)
        return None

    def _length(self, place: Place) -> int:
        return int(self._examples[place[0]].shape[place[1]])

    def _as_usual(self) -> tuple[Mapping[str, tuple[int, ...]], "Counter[Line]"]:
        if self._usual is None:
            self._usual = self._pass({})
        return self._usual

    def _pass(self, lengths: Mapping[Place, int]) -> tuple[Mapping[str, tuple[int, ...]], "Counter[Line]"]:
        inputs = list(self._examples)
        for (k, axis), n in lengths.items():
            inputs[k] = inputs[k].index_select(axis, torch.arange(n) % inputs[k].shape[axis])
        with _counted(self._bayesian) as lines:
            return self._run(inputs), lines


FAILS, ROWS_CHANGE, VALUES_FOLLOW, OTHER_WAY = range(4)
"""What a network does at another length than the example's."""


@dataclass(frozen=True)
class _Difference:
    text: str
    kind: int
    some: bool = False
    """Whether the network reads some other lengths all the same."""

    @property
    def fails(self) -> bool:
        return self.kind == FAILS

    def advice(self, signature: Sequence[Input], places: Sequence[Place]) -> str:
        fixed, free = (said(signature, argument, places) for argument in ("fixed", "free"))
        if self.some and self.kind == VALUES_FOLLOW:
            return f"Say {fixed} if that is meant, or {free} to leave it free, without calibration."
        if self.some:
            return f"Say {fixed} if that is meant, or {free} to leave it free for the lengths that the network reads."
        mend = {
            FAILS: "let the forward take every length from the input's shape, and reduce the axis (by a mean, or its "
            "last element) before a layer that needs a fixed size",
            ROWS_CHANGE: "reshape with the input's own sizes, x.shape[0] rows first",
            VALUES_FOLLOW: "return [B, T, 1] in place of [B, T]",
            OTHER_WAY: "compute all steps at once, or by a recurrent layer, in place of a Python loop or branch",
        }
        return f"Say {fixed} if that is meant; to leave it free, {mend[self.kind]}."


def _longer(length: int) -> list[int]:
    return [length + n for n in (3, 1, 2, 4, 8, 16, 32)]


def _together(groups: Sequence[_Group], names: Sequence[str]) -> tuple[Mapping[str, int], ...]:
    """Cases for the proof: the example's lengths, then each group's others, where two groups are not in step."""
    cases = []
    for k in range(max((len(group.lengths) for group in groups), default=1)):
        case = [group.lengths[min(k, len(group.lengths) - 1)] for group in groups]
        if k == 1:
            case = [n + step * (not group.asked) for step, (n, group) in enumerate(zip(case, groups, strict=True))]
        cases.append(dict(zip(names, case, strict=True)))
    return _different(cases)


def _different(cases: Sequence[Mapping[str, int]]) -> tuple[Mapping[str, int], ...]:
    return tuple(case for k, case in enumerate(cases) if case not in cases[:k])


def _names(signature: Sequence[Input], groups: Sequence[_Group]) -> list[str]:
    """What the axes of each group are called: as usual, and with the input's name where that is taken."""
    names: list[str] = []
    for group in groups:
        k, axis = group.places[0]
        one = signature[k]
        tokens = not one.is_float and not one.shared
        name = replace(one, free={axis: "time"}).axes[axis] if tokens else one.axes[axis]
        names.append(f"{one.name}.{name}" if name in names else name)
    return names


def _fixed(signature: Sequence[Input], place: Place, reason: str, advice: str) -> Fixed:
    k, axis = place
    one = signature[k]
    return Fixed(place, one.name, one.axes[axis], int(one.example.shape[axis]), reason, advice)


def said(signature: Sequence[Input], argument: str, places: Sequence[Place]) -> str:
    """How a caller writes `argument` for these axes."""
    by_name: dict[str, list[int]] = {}
    for k, axis in places:
        by_name.setdefault(signature[k].name, []).append(axis)
    shown = {
        name: f"({', '.join(map(str, axes))})" if len(axes) > 1 else f"{axes[0]}" for name, axes in by_name.items()
    }
    if len(signature) == 1:
        return f"{argument}={next(iter(shown.values()))}"
    return f"{argument}={{{', '.join(f'{name!r}: {axes}' for name, axes in shown.items())}}}"


def _cannot_be_free(fixed: Fixed) -> str:
    return f"{fixed.which} cannot be free: {fixed.reason}."


class _counted(TorchFunctionMode):  # noqa: N801 - reads as a verb where it is used
    """Count what each line of the forward calls of torch, outside of Bayesian layers, whose calls count as one."""

    def __init__(self, bayesian: Sequence[nn.Module]) -> None:
        super().__init__()
        self._bayesian = bayesian
        self._depth = 0
        self._lines: Counter[Line] = Counter()
        self._handles: list[Any] = []

    def __enter__(self) -> "Counter[Line]":
        for layer in self._bayesian:
            self._handles += [
                layer.register_forward_pre_hook(self._inside),
                layer.register_forward_hook(self._outside, always_call=True),
            ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self._lines

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._depth:
            self._note()
        return func(*args, **(kwargs or {}))

    def _inside(self, *_: Any) -> None:
        if not self._depth:
            self._note()
        self._depth += 1

    def _outside(self, *_: Any) -> None:
        self._depth -= 1

    def _note(self) -> None:
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_TORCH):
            frame = frame.f_back
        self._lines[Line(frame.f_code.co_filename, frame.f_lineno)] += 1


_TORCH = torch.__path__[0]
