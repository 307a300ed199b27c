"""Whether what a checkpoint's file holds can be one: each field by itself, and the fields against each other."""

import math
from itertools import pairwise
from typing import Any

import torch

from ..data.dataset import check_splits

SIZES = {
    "channels", "classes", "features", "filters", "hidden", "horizon", "kernel", "layers", "outputs", "padding", "size",
    "window",
}  # fmt: skip
"""Settings of the networks of `murho.models` that say how large they are."""
TASKS = ("forecast", "regression", "classification")


def check_places(data: dict[str, Any]) -> None:
    """Raises ValueError for a tensor where no training puts one, before anything compares it."""
    for name in data.keys() - {"state", "current", "optimizer"}:
        _require(not _tensors(data[name]), name, "plain values")


def check_fields(data: dict[str, Any]) -> None:
    """Raises ValueError for a field that no training writes; `data` has plain values and tensors of bounded size."""
    for name in ("kind", "name", "target"):
        _require(type(data[name]) is str, name, "a text")
    _require(data["task"] in TASKS, "task", f"one of {', '.join(TASKS)}")
    for name in ("features", "input_names", "output_names", "repairs", "fingerprint"):
        texts = type(data[name]) is tuple and all(type(text) is str for text in data[name])
        _require(texts, name, "texts")
    sizes = type(data["shape"]) is tuple and len(data["shape"]) > 0 and all(map(_is_size, data["shape"]))
    _require(sizes, "shape", "sizes of at least 1")
    _require(data["window"] is None or _is_size(data["window"]), "window", "a size of at least 1, or None")
    _require(_is_size(data["horizon"]), "horizon", "a size of at least 1")
    splits = type(data["splits"]) is tuple and all(type(share) is float for share in data["splits"])
    _require(splits, "splits", "three shares")
    check_splits(data["splits"])
    for name in ("config", "settings"):
        named = type(data[name]) is dict and all(type(key) is str for key in data[name])
        _require(named, name, "values by name")
    _check_history(data["history"])
    for name in ("state", "current"):
        named = type(data[name]) is dict and len(data[name]) > 0
        _require(named and all(isinstance(part, torch.Tensor) for part in data[name].values()), name, "tensors by name")
    same = _shapes(data["state"]) == _shapes(data["current"])
    _require(same, "current", "tensors like those of state")
    parts = ("state", "param_groups")
    _require(type(data["optimizer"]) is dict and set(data["optimizer"]) == set(parts), "optimizer", " and ".join(parts))
    for name in ("state", "current", "optimizer"):
        # A mask of the user's own may be infinite.
        if any(part.is_floating_point() and part.isnan().any() for part in _tensors(data[name])):
            raise ValueError(f"{name} must be numbers, and not NaN")


def check_architecture(kind: str, config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """Raises ValueError where a network of `murho.models` of these settings has more weights than there are.

    Before it is built: a number in a file must not say how much memory is taken.
    """
    for name in SIZES & config.keys():
        sizes = config[name] if isinstance(config[name], list | tuple) else (config[name],)
        _require(all(type(size) is int and 0 <= size < 2**53 for size in sizes), name, "sizes")
    value = config.__getitem__
    if kind == "Forecaster":
        needed = 4 * (value("layers") * value("hidden") + value("features")) * value("hidden")
    elif kind == "Classifier":
        filters = (value("channels"), *value("filters"))
        pixels = value("size") + (2 * value("padding") - value("kernel") + 1)
        needed = _pairs(filters) * value("kernel") ** 2 + _pairs((*value("hidden"), value("classes")))
        for _ in filters[2:]:
            pixels = pixels // 2 + (2 * value("padding") - value("kernel") + 1)
        needed += filters[-1] * (pixels // 2) ** 2 * (*value("hidden"), value("classes"))[0]
    elif kind == "Regressor":
        needed = _pairs((value("features"), *value("hidden"), value("outputs")))
    else:
        values = value("window") * value("features")
        needed = _pairs((values, *value("hidden"), value("horizon"))) + values * value("horizon")
    there = sum(part.numel() for part in state.values())
    if not needed <= there:
        raise ValueError(f"the settings are of a network of {needed:.3g} weights or more, of which {there} are there")


def _check_history(history: Any) -> None:
    """`history` is a `History`, made of what the file says."""
    curves = (history.likelihood, history.complexity, history.validation)
    numbers = all(type(curve) is tuple and all(map(_is_finite, curve)) for curve in curves)
    _require(numbers and len({len(curve) for curve in curves}) == 1, "history", "as many numbers in each of its curves")
    best = type(history.best_epoch) is int and 1 <= history.best_epoch <= history.epochs
    _require(best, "history.best_epoch", "one of the epochs")
    _require(type(history.interrupted) is bool, "history.interrupted", "True or False")
    _require(_is_finite(history.seconds) and history.seconds >= 0, "history.seconds", "a time")


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in inner for tensor in _tensors(part)]


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {key: (part.shape, part.dtype) for key, part in state.items()}


def _pairs(sizes: tuple[int, ...]) -> int:
    return sum(a * b for a, b in pairwise(sizes))


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value < 2**53


def _is_finite(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _require(good: bool, name: str, expected: str) -> None:
    if not good:
        raise ValueError(f"{name} must be {expected}")
