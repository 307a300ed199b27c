"""Plain arguments, checked at the door: numbers, switches, choices, names, paths, and what becomes an array."""

import math
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT32_TINY = float(np.finfo(np.float32).tiny)
"""Numbers nearer to 0 lose digits in float32, or are 0."""
_LONGEST = 80  # characters of a value in a message
_PLAIN = (float, int, str, bool, type(None))


def shown(value: Any) -> str:
    """A value for a message: its repr, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # whatever the value's own repr raises; a whole number of thousands of digits has none either
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def whole(name: str, value: Any, least: int, most: int | None = None, unit: str = "") -> int:
    """A whole number: an int, or one of numpy's or torch's; no bool, no float."""
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except Exception:  # TypeError, or what an array of several numbers raises
        number = None
    if number is None or number < least or (most is not None and number > most):
        above = number is not None and number >= least
        bounds = f"at most {most}" if above else f"at least {least}"
        raise InputError(f"{name} must be a whole number{unit} of {bounds}, not {shown(value)}.")
    return number


def positive(name: str, value: Any, example: str) -> float:
    """A finite number above 0."""
    number = float(value) if is_finite(value) else math.nan
    if not number > 0:
        raise InputError(f"{name} must be a number above 0, for example {example}, not {shown(value)}.")
    return number


def is_finite(value: Any) -> bool:
    """Whether it is a finite number, and no bool."""
    try:
        return _is_number(value) and math.isfinite(float(value))
    except OverflowError:  # a whole number beyond all floats
        return False


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray | np.generic):  # of which a timedelta64 is an np.integer too
        return value.ndim == 0 and value.dtype.kind in "fiu"
    return isinstance(value, int | float) and not isinstance(value, bool)


def switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, not {shown(value)}.")
    return bool(value)


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} must be one of {', '.join(map(repr, choices))}, not {shown(value)}.")
    return value


def instance(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise InputError(f"{name} must be a {kind.__name__}, not {shown(value)}.")


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, not {shown(value)}.")
    return value


def words(name: str, value: Any) -> tuple[str, ...]:
    """Different names."""
    if (isinstance(value, np.ndarray) or _of_pandas(value)) and getattr(value, "ndim", 0) == 1:
        value = list(value)
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise InputError(f"{name} must be a sequence of different names, not {shown(value)}.")
    if len(set(value)) < len(value):
        raise InputError(f"{name} must be a sequence of different names, not {shown(value)}, where one comes twice.")
    return tuple(str(word) for word in value)


def file_path(name: str, value: Any) -> Path:
    """A path as text or os.PathLike; bytes are none, since they may as well be a file's content."""
    try:
        path = os.fspath(value)
    except TypeError:
        path = None
    if not isinstance(path, str) or not path or "\0" in path:
        raise InputError(f"{name} must be a path, as text or os.PathLike, not {shown(value)}.")
    return Path(path)


def floats(name: str, value: Any) -> tuple[float, ...]:
    """One number or several in a row, finite in float32."""
    values = array(name, value)
    if values.dtype.kind not in "fiu" or values.ndim > 1:
        raise InputError(f"{name} must be a number or a sequence of numbers, not {shown(value)}.")
    numbers = tuple(float(number) for number in values.reshape(-1).tolist())
    if not all(abs(number) <= FLOAT32_MAX for number in numbers):  # NaN is none either
        raise InputError(f"{name} must hold finite numbers, within float32, not {shown(value)}.")
    return numbers


def array(name: str, value: Any, shape: str = "") -> NDArray[Any]:
    """Anything that numpy reads as one array, of any type; no masked value, whose content means nothing."""
    refuse_masked(name, value)
    try:
        return np.asarray(value)
    except Exception as error:  # numpy's, and those of whatever offers itself as an array
        raise InputError(f"{name} must be an array{shape}: {error}") from None


def refuse_masked(name: str, value: Any) -> None:
    """Refuse an array, or one among nested lists, that has a value masked: numpy.asarray forgets masks."""
    try:
        masked = _masked(value)
    except RecursionError:  # a list that holds itself, which no array can be made of
        masked = False
    if masked:
        raise InputError(f"{name} holds masked values. Fill or drop such rows first.")


def _masked(value: Any) -> bool:
    if isinstance(value, np.ma.MaskedArray):
        return bool(np.ma.getmaskarray(value).any())
    if isinstance(value, list | tuple):
        return any(type(part) not in _PLAIN and _masked(part) for part in value)
    return False


def _of_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas"
