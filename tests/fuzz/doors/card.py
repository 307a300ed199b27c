"""Damaged cards."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import mutations
import numpy as np
from jsonschema import Draft202012Validator

import murho
from murho.runtime.artifact import read
from murho.runtime.contract import Card

ABOUT = "a card, changed in its fields or its text: read, written again, and held against docs/card.schema.json."
ROOT = Path(__file__).resolve().parents[3]
NAMES = ("lstm.onnx", "convolution.onnx", "paths.onnx", "paths.pt")


@functools.cache
def corpus() -> tuple[dict[str, Any], ...]:
    cards = [json.loads(read(ROOT / "tests" / "conformance" / name).card.to_json()) for name in NAMES]
    said = copy.deepcopy(cards[0])  # with all that a card may say of its inputs
    (first,) = said["inputs"]
    first["limit"] = [5] * first["shape"][-1]
    mask = {"name": "mask", "axes": ["time", "time"], "shape": [None, None], "dtype": "bool", "limit": None}
    said["inputs"].append({**first, **mask, "names": []})
    said["constants"] = {"task": 0, "scale": {"dtype": "float32", "shape": [2], "sha256": "0" * 64}}
    return (*cards, said)


@functools.cache
def schema() -> Draft202012Validator:
    return Draft202012Validator(json.loads((ROOT / "docs" / "card.schema.json").read_text(encoding="utf-8")))


def trial(random: np.random.Generator) -> str:
    data = corpus()[random.integers(len(corpus()))]
    for _ in range(random.integers(1, 4)):
        data = mutations.of_json(data, random)
    text = json.dumps(data)
    if random.random() < 0.1:
        text = mutations.of_bytes(text.encode(), random).decode(errors="replace")
    try:
        card = Card.from_json(text)
    except murho.ArtifactError as error:
        if len(str(error)) > 1000:
            raise AssertionError("a message without end") from error
        return "refused"
    assert Card.from_json(card.to_json()) == card, "a card that is another when it is read again"
    card.to_json().encode()
    repr(card)
    schema().validate(json.loads(card.to_json()))
    return "accepted"
