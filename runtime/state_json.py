"""What online calibration has learnt, as JSON that Python and JavaScript share; it has a digest and is checked whole.

The digest is over the numbers and not over the text, which either language writes in its own way: SHA-256 over
"murho.state 2 ", what the state belongs to (64 hexadecimal digits), and then each number as a little-endian float64:
K, O, the levels, θ, the weights, how often the truth was told, how many forecasts are pending, and of each of those how
much is known, B, the medians, the lower and the upper ends. A zero has no sign.
"""

import hashlib
import json
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArtifactError, InputError
from .online import BOUND, STEPS, Forecast, OnlineState

FORMAT, SCHEMA = "murho.state", 2
MOST_BYTES, MOST_VALUES, MOST_LISTS = 2**27, 2**24, 2**21
"""Of a file: its text, the values in it, and the lists. What it becomes in memory stays under a GiB."""
FIELDS = {"format", "schema", "sha256", "artifact", "levels", "theta", "weights", "observed", "pending"}
FORECAST_FIELDS = {"median", "lower", "upper", "known"}
MOST_COUNT = 2**53 - 1  # which JavaScript still counts exactly
ROUNDING = 1e-6
"""Of a sum of weights, and by which an end may lie on the wrong side of its median."""


def to_json(state: OnlineState, artifact: str) -> bytes:
    """The state as a file; `artifact` names what it belongs to. Raises InputError where it is too large to be read."""
    pending = [
        {"median": f.median.tolist(), "lower": f.lower.tolist(), "upper": f.upper.tolist(), "known": f.known}
        for f in state.pending
    ]
    data = {
        "format": FORMAT,
        "schema": SCHEMA,
        "sha256": digest(state, artifact),
        "artifact": artifact,
        "levels": state.levels,
        "theta": state.theta.tolist(),
        "weights": state.weights.tolist(),
        "observed": state.observed,
        "pending": pending,
    }
    content = json.dumps(data, allow_nan=False).encode()
    if too_large := _too_large(content):
        raise InputError(
            f"{too_large}, with {len(pending)} forecasts whose truth is still to come. Follow fewer series with one "
            "model, or fewer levels."
        )
    return content


def from_json(content: bytes, artifact: str, outputs: int) -> OnlineState:
    """Read a state of `artifact`, which has so many outputs.

    Raises ArtifactError for one that is damaged or of another artifact, and for anything else.
    """
    try:
        if too_large := _too_large(content):
            raise ValueError(too_large)
        data = json.loads(content.decode("ascii"), object_pairs_hook=_object, parse_constant=_no_number)
        if type(data) is not dict or data.get("format") != FORMAT or data.get("schema") != SCHEMA:
            said = (data.get("format"), data.get("schema")) if type(data) is dict else (None, None)
            raise ValueError(f"format {said[0]!r:.40}, schema {said[1]!r:.40}; expected {FORMAT!r}, {SCHEMA}")
        _check_fields(data, FIELDS)
        if data["artifact"] != artifact:
            raise ArtifactError("The state belongs to another artifact or calibration. Load the one it was saved with.")
        state = _state(data, outputs)
        if data["sha256"] != digest(state, artifact):
            raise ValueError("its checksum differs")
    except (ValueError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"This is not a state that save_state wrote, or it is damaged ({error}).") from None
    return state


def digest(state: OnlineState, artifact: str) -> str:
    """SHA-256 in hexadecimal digits."""
    total = hashlib.sha256(f"{FORMAT} {SCHEMA} {artifact}".encode())
    count = len(state.levels), state.theta.shape[2]
    for part in (count, state.levels, state.theta, state.weights, (state.observed, len(state.pending))):
        total.update(_as_bytes(part))
    for forecast in state.pending:
        sizes = forecast.known, len(forecast.median)
        for part in (sizes, forecast.median, forecast.lower, forecast.upper):
            total.update(_as_bytes(part))
    return total.hexdigest()


def _as_bytes(numbers: Any) -> bytes:
    return (np.asarray(numbers, dtype="<f8") + 0.0).tobytes()  # which makes 0 of -0


def _too_large(content: bytes) -> str:
    for most, found, what in (
        (MOST_BYTES, len(content), "bytes"),
        (MOST_VALUES, content.count(b","), "values"),
        (MOST_LISTS, content.count(b"[") + content.count(b"{"), "lists"),
    ):
        if found > most:
            return f"the state has {found:,} {what}, more than {most:,}"
    return ""


def _state(data: dict[str, Any], outputs: int) -> OnlineState:
    count = len(data["levels"]) if type(data["levels"]) is list else 0
    levels = _numbers("levels", data["levels"], count)
    if not count or not (np.diff(levels, prepend=0.0, append=1.0) > 0).all():
        raise ValueError("levels must ascend between 0 and 1")
    theta, weights = (_numbers(name, data[name], len(STEPS), count, outputs) for name in ("theta", "weights"))
    pending = data["pending"]
    if type(pending) is not list or len(pending) >= outputs:
        raise ValueError(f"pending must be at most {outputs - 1} forecasts")
    if (np.abs(theta) > BOUND).any():
        raise ValueError(f"theta must lie within ±{BOUND:g}")
    if (weights < 0).any() or (np.abs(weights.sum(axis=0) - 1) > ROUNDING).any():
        raise ValueError("weights must be shares of 1")
    forecasts = tuple(_forecast(one, count, outputs) for one in pending)
    known = [outputs, *(forecast.known for forecast in forecasts), 0]
    if any(after >= before for before, after in pairwise(known)):
        raise ValueError(f"known must fall from forecast to forecast, between {outputs - 1} and 1")
    if len({len(forecast.median) for forecast in forecasts}) > 1:
        raise ValueError("pending forecasts must be of as many series each")
    return OnlineState(tuple(levels.tolist()), theta, weights, forecasts, _count("observed", data["observed"]))


def _forecast(data: Any, levels: int, outputs: int) -> Forecast:
    if type(data) is not dict:
        raise ValueError("a forecast must be an object")
    _check_fields(data, FORECAST_FIELDS)
    rows = len(data["median"]) if type(data["median"]) is list else 0
    if not rows:
        raise ValueError("a forecast must be of at least one series")
    median = _numbers("median", data["median"], rows, outputs)
    lower, upper = (_numbers(name, data[name], levels, rows, outputs) for name in ("lower", "upper"))
    if max(np.abs(part).max() for part in (median, lower, upper)) > np.finfo(np.float32).max:
        raise ValueError("a forecast must lie in the range of float32")
    slack = ROUNDING * (np.abs(lower) + np.abs(upper))
    if (lower > median + slack).any() or (upper < median - slack).any():
        raise ValueError("lower and upper must lie on either side of the median")
    return Forecast(median, lower, upper, _count("known", data["known"]))


def _numbers(name: str, value: Any, *shape: int) -> NDArray[np.float64]:
    """Nested lists of just this shape, of finite numbers."""
    flat = [value]
    for size in shape:
        if not all(type(part) is list and len(part) == size for part in flat):
            raise ValueError(f"{name} must have shape {shape}")
        flat = [inner for part in flat for inner in part]
    if not all(type(number) in (int, float) for number in flat):
        raise ValueError(f"{name} must be numbers")
    numbers = np.array(flat, dtype=np.float64).reshape(shape)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite")
    return numbers


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MOST_COUNT:
        raise ValueError(f"{name} must be a count")
    return value


def _check_fields(data: dict[str, Any], expected: set[str]) -> None:
    if wrong := sorted(data.keys() ^ expected):
        raise ValueError(f"it lacks {wrong[0]!r}" if wrong[0] in expected else f"it has an unknown {wrong[0]!r:.40}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
