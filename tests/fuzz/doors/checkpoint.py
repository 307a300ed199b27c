"""Damaged checkpoints, half of them with a true digest."""

import copy
import functools
import hashlib
import io
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import torch

import murho
from murho.models import Classifier, Forecaster, Regressor
from murho.train import builtin_series, fit, load_checkpoint, prepare, save_checkpoint
from murho.train.weights_file import from_bytes, to_bytes

ABOUT = (
    "a checkpoint, changed in its bytes, its pickle, its records or its values, for half of the trials with its digest "
    "made anew: load_checkpoint, then its network and an answer of it."
)
VALUES = (
    None, True, "", "x", "forecast", (), [], {}, [[]], -1, 0, 1, 2, 10**9, 2**40, 2**63, 10**30, 0.5, -0.5, 1e308,
    float("nan"), float("inf"), ("a",), (1, 2), {"a": 1}, torch.zeros(0), torch.ones(2, 3), torch.tensor(float("nan")),
    "Classifier", "Autoregressor", "os.system",
)  # fmt: skip


@functools.cache
def path() -> Path:
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    return Path(folder, "checkpoint.pt")


@functools.cache
def corpus() -> tuple[tuple[bytes, dict[str, Any]], ...]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    fit(
        Forecaster(hidden=3),
        prepare(builtin_series(), 5, 1),
        epochs=1,
        batch_size=1024,
        progress=False,
        checkpoint=path(),
    )
    content = path().read_bytes()
    return ((content, from_bytes(content)),)


def trial(random: np.random.Generator) -> str:
    content, values = corpus()[0]
    true = random.random() < 0.5
    kind = random.random()
    if kind < 0.2:
        changed = mutations.of_bytes(content, random)
    elif kind < 0.5:
        changed = _of_records(content, random)
    else:
        values = dict(values)
        for _ in range(random.choice((1, 1, 2, 3))):
            values = _changed(values, random)
        try:
            changed = to_bytes(values)
        except Exception:  # such values torch does not write
            return "cannot be made"
        if not true:
            changed = changed[:-64] + content[-64:]
    if true:
        changed = changed[:-64] + hashlib.sha256(changed[:-64]).hexdigest().encode()
    path().write_bytes(changed)
    try:
        found = load_checkpoint(path())
    except murho.ArtifactError:
        return "refused"
    assert true or changed == content, "accepted with a stale digest"
    save_checkpoint(path(), found)
    assert load_checkpoint(path()).summary().keys() == found.summary().keys()
    try:
        network = found.network()
    except murho.MurhoError:
        return "network refused"
    if type(network) is not Forecaster:
        assert type(network) in (Classifier, Regressor)
        return "accepted, another network"
    largest = max(float(part.abs().max()) for part in found.state.values() if part.numel())
    with torch.no_grad():
        answer = network(torch.zeros(2, 4, network.config["features"]))
    assert largest > 1e6 or answer.isfinite().all(), "an answer that is not finite"
    return "accepted as it was" if changed == content else "accepted, changed"


def _of_records(content: bytes, random: np.random.Generator) -> bytes:
    """With another pickle, or records cut short, dropped, doubled, renamed or packed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
        comment = archive.comment
    compression = zipfile.ZIP_STORED
    place = 0 if random.random() < 0.6 else int(random.integers(len(records)))
    name, body = records[place]
    match random.integers(8):
        case 0:
            del records[place]
        case 1:
            records.insert(int(random.integers(len(records))), records[place])
        case 2:
            records[place] = (f"../{name}", body)
        case 3:
            records[place] = (name, body[: random.integers(len(body) + 1)])
        case 4 if random.random() < 0.3:
            compression = zipfile.ZIP_DEFLATED
        case _:
            records[place] = (name, mutations.of_bytes(body, random) if body else b"\0")
    return mutations.zip_of(records, compression, comment)


def _changed(values: Any, random: np.random.Generator) -> Any:
    """With one value anywhere in it dropped or put in place of another."""
    values = copy.deepcopy(values)
    holder, key, value = None, None, values
    while isinstance(value, dict | list) and len(value) and (holder is None or random.random() < 0.8):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        holder, key = value, keys[random.integers(len(keys))]
        value = holder[key]
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() and random.random() < 0.7:
        part = value.flatten()
        part[int(random.integers(len(part)))] = float(random.choice([0.0, -1.0, 100.0, 1e38, np.nan, np.inf]))
        other = part.reshape(value.shape)
        holder[key] = (
            other,
            other.double(),
            other.mT if other.ndim > 1 else other,
            part[:1],
            other.expand(2, *other.shape),
        )[random.integers(5)]
    elif random.random() < 0.2:
        del holder[key]
    elif type(value) is int and random.random() < 0.5:
        holder[key] = value + int(random.integers(-2, 3))
    elif type(value) is tuple and value and random.random() < 0.5:
        holder[key] = (*value[1:], value[0], VALUES[random.integers(len(VALUES))])
    else:
        holder[key] = VALUES[random.integers(len(VALUES))]
    return values
