"""Everything that stands in the way of an export, gathered and told at once."""

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
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise ExportError(*dict.fromkeys(reason for error in self._errors for reason in error.reasons))
