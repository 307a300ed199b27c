"""What an export may be told beside the network and the example: checked before any work."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..runtime import checks
from ..runtime.contract import MAX_DRAWS, STORAGES, Noise, Scaling
from ..runtime.errors import InputError
from ..runtime.fingerprint import fingerprint
from .axes import Asked
from .signature import Input

TASKS = ("regression", "forecast", "classification")


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """The keyword arguments of `to_onnx`, which describes them. Raises InputError for a value that is none of them."""

    scaling: Scaling | None = None
    task: str = "regression"
    outputs: Sequence[str] = ()
    sampling: str = "weights"
    storage: str = "float32"
    flipout: str = "refuse"
    name: str | None = None
    input_names: Sequence[str] = ()
    input_unit: str = ""
    output_names: Sequence[str] = ()
    output_unit: str = ""
    noise: Noise | None = None
    horizon: int = 1
    streaming: bool = False
    free: Any = ()
    fixed: Any = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    shared_inputs: Sequence[str] = ()
    draws: int = 256
    levels: Sequence[float] = (0.95,)
    seed: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    training_rows: Any = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name, value, kind in (("scaling", self.scaling, Scaling), ("noise", self.noise, Noise)):
            if value is not None and not isinstance(value, kind):
                raise InputError(f"{name} must be a murho.{kind.__name__}, not {checks.shown(value)}.")
        checks.choice("task", self.task, TASKS)
        checks.choice("sampling", self.sampling, ("weights", "local"))
        checks.choice("storage", self.storage, STORAGES)
        checks.choice("flipout", self.flipout, ("refuse", "plain"))
        for argument in ("input_unit", "output_unit"):
            checks.text(argument, getattr(self, argument))
        if self.name is not None:
            checks.text("name", self.name)
        if not isinstance(self.constants, Mapping) or not all(isinstance(name, str) for name in self.constants):
            raise InputError(
                f"constants must be a dict by the names of forward's arguments, not {checks.shown(self.constants)}."
            )
        for argument in ("outputs", "input_names", "output_names", "shared_inputs"):
            self._set(argument, checks.words(argument, getattr(self, argument)))
        self._set("horizon", checks.whole("horizon", self.horizon, 1, unit=" of steps"))
        self._set("streaming", checks.switch("streaming", self.streaming))
        self._set("progress", checks.switch("progress", self.progress))
        for argument in ("free", "fixed"):
            self._set(argument, _axes(argument, getattr(self, argument)))
        self._set("draws", checks.whole("draws", self.draws, 2, MAX_DRAWS))
        self._set("seed", checks.whole("seed", self.seed, -(2**63), 2**63 - 1))
        levels = checks.floats("levels", self.levels)
        if not levels or not all(0 < level < 1 for level in levels):
            raise InputError(
                f"levels must lie between 0 and 1, for example (0.8, 0.95), not {checks.shown(self.levels)}."
            )
        self._set("levels", levels)
        self._set("training", _plain_json(self.training))

    @property
    def asked(self) -> Asked:
        """What is said of the inputs' axes."""
        return Asked(self.free, self.fixed)

    def with_fingerprint(self, first: Input) -> dict[str, Any]:
        """`training`, with the fingerprint of `training_rows`, which lie like the first input [B, …]."""
        if self.training_rows is None:
            return self.training
        if "fingerprint" in self.training:
            raise InputError("training has a fingerprint already: leave it or training_rows out.")
        dtype = "float32" if first.is_float else "int64"
        rows = checks.array("training_rows", self.training_rows)
        if rows.dtype.kind not in ("fiu" if dtype == "float32" else "iu"):
            raise InputError(f"training_rows must hold numbers that fit {dtype}, not {rows.dtype}. Convert them first.")
        shape, free = first.example.shape, (0, *first.free)
        fits = rows.ndim == len(shape) and all(rows.shape[k] == n for k, n in enumerate(shape) if k not in free)
        if not fits or not rows.size:
            raise InputError(
                f"training_rows must be the first input's rows that the network was trained on, in raw units and of "
                f"the example's shape {tuple(shape)} but for their number; they are {rows.shape}."
            )
        with np.errstate(over="ignore"):
            rows = rows.astype(dtype)
        if not np.isfinite(rows).all():
            raise InputError("training_rows must be finite in float32, as what a network was trained on is.")
        return {**self.training, "fingerprint": fingerprint(rows)}

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _axes(argument: str, value: Any) -> Mapping[str, tuple[int, ...]] | tuple[int, ...]:
    """Axis numbers of the only input, or of each by its name."""

    def numbers(value: Any) -> tuple[int, ...]:
        several = isinstance(value, list | tuple)
        axes = tuple(checks.whole(argument, axis, 0, unit=", an axis,") for axis in (value if several else (value,)))
        if len(set(axes)) < len(axes):
            raise InputError(f"{argument} says an axis twice: {checks.shown(value)}.")
        return axes

    if value is None:
        return ()
    if isinstance(value, Mapping):
        checks.words(argument, list(value))
        return {name: numbers(axes) for name, axes in value.items()}
    return numbers(value)


def _plain_json(training: Any) -> dict[str, Any]:
    if training is None:
        return {}
    try:
        if not isinstance(training, dict):
            raise TypeError("not a dict")
        plain: dict[str, Any] = json.loads(json.dumps(training, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"training must be a dict of plain JSON values (text, finite numbers, lists, dicts): {error}."
        ) from None
    if plain.get("window") is not None:
        checks.whole('training["window"]', plain["window"], 1, unit=" of rows")
    return plain
