"""Damaged states of online calibration, half of them with a true digest."""

import copy
import functools
import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import mutations
import numpy as np

import murho

ABOUT = (
    "a state of online calibration, changed in its bytes or its JSON, for half of the trials with its digest made "
    "anew: load_state, then predict, observe and save."
)
CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance"
VALUES = (
    None, True, False, "", "x", "0.5", "NaN", [], {}, [[]], [0.5], -1, 0, 1, 2, 7, 2**53, 2**63, 10**400, -(10**30),
    0.5, -0.0, 1e-320, 3.5e38, -3.4e38, 1e300, -1e308, 2.9999999, -3.0000001, 1.0000001, float("nan"), float("inf"),
)  # fmt: skip
TEXTS = (
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"1e999",
    b"-",
    b"NaN",
    b"-Infinity",
    b"null",
    b"9" * 5000,
    b"\xff\xfe",
    b"{}",
)


@functools.cache
def corpus() -> tuple[tuple[murho.Model, bytes], ...]:
    """Models with states: before anything was told, with and without forecasts whose truth is still to come."""
    made = []
    x = np.random.default_rng(0).normal(50, 1, (2, 8, 1))
    for name, told in (("lstm", 0), ("lstm", 3), ("paths", 0), ("paths", 1), ("paths", 6)):
        model = murho.load(CONFORMANCE / f"{name}.onnx", threads=1, measure=False)
        for k in range(told):
            model.predict(x, draws=16, seed=k)
            model.observe(x[:, -1] + 0.3 * k)
        model.save_state(path())
        made.append((model, path().read_bytes()))
    return tuple(made)


@functools.cache
def path() -> Path:
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    return Path(folder, "state.json")


def trial(random: np.random.Generator) -> str:
    model, content = corpus()[random.integers(len(corpus()))]
    true = random.random() < 0.5
    if random.random() < 0.25:
        changed = mutations.of_bytes(content, random)
        if random.random() < 0.2:
            place = int(random.integers(len(changed)))
            changed = changed[:place] + TEXTS[random.integers(len(TEXTS))] + changed[place:]
    else:
        data = json.loads(content)
        for _ in range(random.choice((1, 1, 2, 3))):
            data = _changed(data, random)
        changed = json.dumps(data).encode()
    if true:
        changed = sealed(changed)
    path().write_bytes(changed)
    try:
        model.load_state(path())
    except murho.ArtifactError:
        return "refused"
    if not true:
        model.save_state(path())
        assert json.loads(path().read_bytes()) == json.loads(content), "accepted with a stale digest, as another state"
    x = np.random.default_rng(1).normal(50, 1, (2, 8, 1))
    for _ in range(2):
        answer = model.predict(x, draws=16, level=(0.3, 0.9))
        for part in (answer.mean, answer.lower, answer.upper):
            assert np.isfinite(part).all(), "an answer that is not finite"
        assert (answer.lower <= answer.upper).all(), "crossed ends"
        try:
            model.observe(x[:, -1, 0])
        except murho.InputError:  # it follows another number of series
            break
    model.save_state(path())
    model.load_state(path())
    return "accepted as it was" if not true or changed == sealed(content) else "accepted, changed"


def _changed(data: Any, random: np.random.Generator) -> Any:
    """With one value anywhere in it dropped, doubled, moved or put in place of another."""
    data = copy.deepcopy(data)
    holder, key = None, None
    value = data
    while isinstance(value, dict | list) and len(value) and (holder is None or random.random() < 0.75):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        holder, key = value, keys[random.integers(len(keys))]
        value = holder[key]
    if holder is None or random.random() < 0.01:
        return VALUES[random.integers(len(VALUES))]
    match random.integers(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(int(random.integers(len(holder) + 1)), copy.deepcopy(value))
        case 1:
            holder["unknown"] = value
        case 2 if type(value) is float:
            holder[key] = value * float(random.choice((-1, 0.999, 1.001, 10, 1e38, 1e-300)))
        case 2 if type(value) is int:
            holder[key] = value + int(random.integers(-2, 3))
        case 3:
            other = list(holder) if isinstance(holder, dict) else range(len(holder))
            swapped = other[random.integers(len(other))]
            holder[key], holder[swapped] = holder[swapped], holder[key]
        case 4:
            holder[key] = [value]
        case _:
            holder[key] = VALUES[random.integers(len(VALUES))]
    return data


def sealed(content: bytes) -> bytes:
    """With a digest that fits the numbers in it, written apart from murho's code; as it is, where it has none such."""
    try:
        data = json.loads(content)
        numbers = [len(data["levels"]), len(data["theta"][0][0]), data["levels"], data["theta"], data["weights"]]
        numbers += [data["observed"], len(data["pending"])]
        for one in data["pending"]:
            numbers += [one["known"], len(one["median"]), one["median"], one["lower"], one["upper"]]
        flat = [float(number) + 0.0 for number in _flat(numbers)]
        head = f"murho.state 2 {data['artifact']}".encode()
        data["sha256"] = hashlib.sha256(head + struct.pack(f"<{len(flat)}d", *flat)).hexdigest()
        return json.dumps(data).encode()
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return content


def _flat(value: Any) -> list[Any]:
    return [number for part in value for number in _flat(part)] if isinstance(value, list) else [value]
