"""Whether a network can be exported: all findings at once, in place of the first error."""

import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import Any, TypeVar

import torch
from torch import nn

from ..runtime.artifact import SUFFIXES
from ..runtime.contract import Array
from ..runtime.cost import Cost, measured
from ..runtime.errors import ArtifactError, ExportError
from .notes import Note
from .options import Options
from .progress import Stages, stage
from .reference import one_thread
from .stand_in import with_stand_ins
from .subject import Example, Subject, read_modules, uncompiled
from .writer import subject_of, write

COST_DRAWS = 1000
COST_ROWS = (1, 64)
T = TypeVar("T")
NAMES = {"onnx": "ONNX", "torchscript": "TorchScript", "pt2": ".pt2"}


@dataclass(frozen=True)
class FormatReport:
    """What came of one format."""

    exports: bool
    reasons: tuple[str, ...] = ()
    """What stands in the way of this format alone."""
    notes: tuple[str, ...] = ()
    """What the export to this format alone tells."""
    inputs: tuple[Array, ...] = ()
    """As in the artifact's card: None in a shape is an axis of any length."""
    outputs: tuple[Array, ...] = ()
    largest_error: float | None = None
    """Of the finished file at equal noise, relative to BLiTZ's largest value."""
    file_bytes: int | None = None
    costs: tuple[Cost, ...] = ()


@dataclass(frozen=True)
class Report:
    """All that `check` found."""

    network: str
    """Its class."""
    layers: dict[str, str]
    """The kind of each Bayesian layer that murho knows, by dotted name."""
    reasons: tuple[str, ...]
    """What stands in the way of every format."""
    notes: tuple[str, ...]
    """What every export tells."""
    constants: dict[str, Any]
    """Arguments of forward that would be part of the file, as in the artifact's card."""
    formats: dict[str, FormatReport]
    """By "onnx", "torchscript" and "pt2"."""

    @property
    def exports(self) -> dict[str, bool]:
        """For each format: whether the network exports to it, the proof included."""
        return {name: found.exports for name, found in self.formats.items()}

    @property
    def verdict(self) -> str:
        """In a sentence."""
        yes = [NAMES[name] for name, exports in self.exports.items() if exports]
        no = [NAMES[name] for name, exports in self.exports.items() if not exports]
        if yes:
            rest = f", not as {_listed(no, 'or')}" if no else ""
            return f"Exports as {_listed(yes, 'and')}{rest}."
        count = len({*self.reasons, *(reason for found in self.formats.values() for reason in found.reasons)})
        return f"Does not export: {'one thing stands' if count == 1 else f'{count} things stand'} in the way."

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, by the names of the fields."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"verdict": self.verdict, "exports": self.exports, **plain}

    def __str__(self) -> str:
        lines = [f"{self.network}. {self.verdict}"]
        for title, what in (("In the way", "reasons"), ("Notes", "notes")):
            for name, found in (("", self), *self.formats.items()):
                if texts := getattr(found, what):
                    lines.append(f"{title}, {NAMES[name]} alone:" if name else f"{title}:")
                    lines += (f"- {indent(text.strip(), '  ').strip()}" for text in texts)
        exported = {name: found for name, found in self.formats.items() if found.exports}
        if len({(found.inputs, found.outputs) for found in exported.values()}) == 1:
            lines += ["Axes:", *_axes(next(iter(exported.values())))]
        else:
            for name, found in exported.items():
                lines += [f"Axes, {NAMES[name]}:", *_axes(found)]
        if self.constants:
            lines += ["Constants:", *(f"- {name} = {value}" for name, value in self.constants.items())]
        for name, found in exported.items():
            lines += [f"{NAMES[name]}:", *_numbers(found)]
        return "\n".join(lines)


def check(network: nn.Module, example: Example, **options: Any) -> Report:
    """Say all that stands in the way of an export, and what the artifact would be. Writes nothing.

    Arguments as for `to_onnx`. Every layer is looked at, the network is run, and each format is built and proven as in
    an export, in a temporary folder; what exports is timed at 1000 draws in a process of its own. Where a layer cannot
    be exported, something of its shape takes its place, so that the rest is looked at too.

    What stands in the way is in the report, never raised. Raises InputError for arguments that are none.
    """
    asked = Options(**options)
    with torch.random.fork_rng(devices=[]), Stages(asked.progress), one_thread():
        return _check(network, example, asked)


def free_and_fixed(array: Array) -> tuple[str, str]:
    """The axes of any length, and the others with their lengths."""
    sizes = list(zip(array.axes, array.shape, strict=True))
    free = ", ".join(axis for axis, size in sizes if size is None)
    return free, ", ".join(f"{axis} {size}" for axis, size in sizes if size is not None)


def _axes(found: FormatReport) -> Iterator[str]:
    for role, arrays in (("input", found.inputs), ("output", found.outputs)):
        for array in arrays:
            free, fixed = free_and_fixed(array)
            lengths = "; ".join(filter(None, (f"{free} of any length" if free else "", fixed)))
            yield f"- {role} {array.name}, {array.dtype}: {lengths}"


def _numbers(found: FormatReport) -> Iterator[str]:
    assert found.file_bytes is not None
    yield f"- {found.file_bytes / 1000:.0f} kB, within {found.largest_error:.1e} of BLiTZ at equal noise"
    for cost in found.costs:
        memory = "" if cost.mebibytes is None else f", in a process of {cost.mebibytes:.0f} MiB"
        rows = f"{cost.rows} row{'s' if cost.rows > 1 else ''}"
        yield f"- {cost.draws} draws of {rows}: {described_time(cost.milliseconds)}{memory}"


def described_time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"


def _check(network: nn.Module, example: Example, options: Options) -> Report:
    read, reasons, notes = _tried(lambda: read_modules(uncompiled(network), options.flipout))
    subject = None
    if read is not None:
        rest = with_stand_ins(uncompiled(network), read[1]) if read[1] else network
        asked = replace(options, streaming=False) if read[1] else options  # of stand-ins none carries a state
        subject, found, notes = _tried(lambda: subject_of(rest, example, asked))
        reasons = (*(reason for error in read[1].values() for reason in error.reasons), *found)
    formats = {
        name: FormatReport(exports=False) if subject is None or reasons else _format(subject, name, options)
        for name in SUFFIXES
    }
    shared_reasons = _shared(found.reasons for found in formats.values())
    shared_notes = _shared(found.notes for found in formats.values())
    return Report(
        type(network).__name__,
        {name: posterior.kind.name for name, posterior in read[0].items()} if read else {},
        (*reasons, *shared_reasons),
        (*notes, *shared_notes),
        subject.plan.arguments.constants if subject else {},
        {
            name: replace(
                found,
                reasons=tuple(text for text in found.reasons if text not in shared_reasons),
                notes=tuple(text for text in found.notes if text not in shared_notes),
            )
            for name, found in formats.items()
        },
    )


def _format(subject: Subject, format: str, options: Options) -> FormatReport:
    with tempfile.TemporaryDirectory(prefix="murho-") as folder:
        file = Path(folder) / f"checked{SUFFIXES[format]}"
        card, reasons, notes = _tried(lambda: write(subject, file, format, options))
        if card is None:
            return FormatReport(exports=False, reasons=reasons, notes=notes)
        costs: tuple[Cost, ...] = ()
        try:
            stage(f"Timing {NAMES[format]}")
            costs = measured(file, COST_DRAWS, COST_ROWS)
        except ArtifactError as error:
            notes += (f"What it costs is not known. {error}",)
        largest = card.verification["exact"]["largest_error"]
        return FormatReport(True, (), notes, card.inputs, card.outputs, largest, file.stat().st_size, costs)


def _tried(work: Callable[[], T]) -> tuple[T | None, tuple[str, ...], tuple[str, ...]]:
    """What came of work, or why it was refused; and its notes."""
    result: T | None = None
    reasons: tuple[str, ...] = ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = work()
        except ExportError as error:
            reasons = error.reasons
    notes = dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, Note))
    return result, reasons, tuple(notes)


def _shared(texts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Those that every format has, in the first one's order."""
    first, *others = texts
    return tuple(text for text in first if all(text in other for other in others))


def _listed(names: Sequence[str], last: str) -> str:
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))
