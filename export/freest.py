"""As many free axes as a file's format allows: at first all that the network leaves free, then fewer."""

from collections.abc import Callable
from typing import TypeVar

from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from ..runtime.errors import ExportError
from .axes import LONGEST_REASON, LengthError, said
from .blame import line_of
from .frozen import FrozenSizeError
from .subject import Subject, with_axes

Result = TypeVar("Result")


def freest(subject: Subject, attempt: Callable[[Subject], Result]) -> tuple[Subject, Result]:
    """The result of an attempt, and the subject with the axes that it left free.

    An attempt that raises LengthError is made again with all axes fixed, and, where there are several, with each of
    them free in turn. Raises ExportError where that fails too, and where an axis that the caller asked for is to blame.
    """
    try:
        return subject, attempt(subject)
    except LengthError as error:
        reason = str(error)
    found = subject.found
    names = [name for name in found.lengths[0] if name not in found.asked] or list(found.lengths[0])

    def fixing(dropped: list[str]) -> Subject:
        places = [(k, i) for k, one in enumerate(found.signature) for i, name in one.free.items() if name in dropped]
        advice = (
            f"Say {said(found.signature, 'fixed', places)} if that is meant; to leave it free, take the axis's length "
            "from the input's shape, without int(), and compute all of it at once in place of a Python loop or branch."
        )
        return with_axes(subject, found.without(dropped, reason, advice))

    best = fixing(names)
    result = attempt(best)
    kept: list[str] = []
    for name in names if len(names) > 1 else ():
        freer = fixing([other for other in names if other not in (*kept, name)])
        try:
            best, result = freer, attempt(freer)
            kept.append(name)
        except ExportError:  # this one is to blame
            continue
    return best, result


def because_of_lengths(error: ExportError, subject: Subject) -> ExportError:
    """A failed build's error: a LengthError if a free axis may be to blame."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    decided_by_values = any(isinstance(cause, GuardOnDataDependentSymNode) for cause in causes)
    if isinstance(error, LengthError) or len(causes) == 1 or decided_by_values or not subject.lengths[0]:
        return error
    if isinstance(causes[-1], FrozenSizeError):
        does = "branches on it" if causes[-1].branch else "makes a number of Python's of it"
        return LengthError(f"{causes[-1].line} {does}, which the file would keep")
    line, text = line_of(error), " ".join(str(causes[-1]).split())
    text = text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
    where = f", at {line}" if line else ""
    return LengthError(f"left free, it cannot be traced{where} ({type(causes[-1]).__name__}: {text})")
