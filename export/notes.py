"""What an export tells its user without refusing."""

import sys
import warnings

_PACKAGE = __name__.partition(".")[0]


class Note(UserWarning):
    """What `note` warns with."""


def note(text: str) -> None:
    """Warn at the line, outside of this package, that asked for the export."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, Note, stacklevel=depth + 1)
