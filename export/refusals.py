"""Everything that stands in the way of an export, gathered and told at once."""

from collections.abc import Iterable
from types import TracebackType

from ..runtime.errors import ExportError


class Refusals:
    """A context for checks that do not hang on each other: what one refuses is kept, and the next one follows."""

    def __init__(self) -> None:
        self._errors: list[ExportError] = []

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, ExportError):
            return False
        self._errors.append(error)
        return True

    def raise_all(self) -> None:
        """Raise one ExportError with all reasons, if there are any."""
        raise_all(self._errors)


def raise_all(errors: Iterable[ExportError]) -> None:
    """Raise one ExportError with the reasons of all, if there are any."""
    errors = list(errors)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExportError(*dict.fromkeys(reason for error in errors for reason in error.reasons))
