"""Read files that strangers made: only regular ones, and no more than a bound."""

import os
import stat
from typing import Any

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises ValueError, whose text says why there is none."""
    try:
        _check_regular(os.stat(path))  # before it is opened: to open some devices is to use them
        with open(path, "rb", buffering=0, opener=_opened) as file:
            found = os.fstat(file.fileno())  # what was there a moment ago may be something else now
            _check_regular(found)
            if found.st_size > most:
                raise ValueError(f"it has {found.st_size:,} bytes, and may have {most:,} at most")
            return file.read(found.st_size)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def irregular(found: os.stat_result) -> str:
    """What something is that is no regular file, "a device" for example; "" for a regular one."""
    return next((kind for is_kind, kind in _KINDS if is_kind(found.st_mode)), "")


def _check_regular(found: os.stat_result) -> None:
    if kind := irregular(found):
        raise ValueError(f"it is {kind}, not a file")


def _opened(path: Any, flags: int) -> int:
    """Without waiting for a writer, should it have become a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
