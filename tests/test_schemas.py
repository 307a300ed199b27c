"""The JSON Schemas of the card and of the online state, against real ones and against damaged ones."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianEmbedding, BayesianLinear
from jsonschema import Draft202012Validator, ValidationError
from torch import nn

import murho
from murho import Noise
from murho.export import to_onnx
from murho.models import Forecaster, Regressor
from murho.runtime.artifact import SUFFIXES, read
from murho.runtime.contract import Card

ROOT = Path(__file__).resolve().parents[1]
CONFORMANCE = ROOT / "tests" / "conformance"
ARTIFACTS = [
    CONFORMANCE / f"{name}{suffix}" for name in ("lstm", "convolution", "paths") for suffix in SUFFIXES.values()
]
OTHERS = ("stream", "tokens", "local")


class Tokens(nn.Module):
    """Tokens [B, T] -> two outputs, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = BayesianEmbedding(9, 4), BayesianLinear(4, 2)

    def forward(self, words: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.head(self.table(words).mean(dim=1))
        return {"price": y[:, :1], "volume": y[:, 1:]}


def schema(name: str) -> Draft202012Validator:
    content = json.loads((ROOT / "docs" / f"{name}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(content)
    return Draft202012Validator(content)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Cards as the files have them: of the conformance artifacts, and of kinds that are not among those."""
    folder = tmp_path_factory.mktemp("cards")
    x = np.random.default_rng(0).standard_normal((11, 6, 1)).astype(np.float32)
    torch.manual_seed(0)
    noise = Noise("gaussian", scale=(0.5,))
    to_onnx(Forecaster(), folder / "stream.onnx", x, streaming=True, noise=noise, levels=(0.5, 0.9))
    to_onnx(Tokens(), folder / "tokens.onnx", torch.randint(9, (11, 5)), storage="half", output_unit="USD")
    to_onnx(Regressor(6), folder / "local.onnx", x[:, :, 0], sampling="local", input_names=tuple("abcdef"))
    paths = [*ARTIFACTS, *(folder / f"{name}.onnx" for name in OTHERS)]
    return {path.name: json.loads(read(path).card.to_json()) for path in paths}


def test_real_cards(cards: dict[str, dict[str, Any]]) -> None:
    for card in cards.values():
        schema("card").validate(card)
    # What the schema allows for is there.
    assert cards["paths.onnx"]["calibration"]
    assert cards["paths.pt"]["noise"]["distribution"] == "student-t"
    assert cards["stream.onnx"]["states"]
    assert cards["tokens.onnx"]["inputs"][0]["limit"] == 9
    assert len(cards["tokens.onnx"]["outputs"]) == 2
    assert cards["local.onnx"]["sites"][0]["sampling"] == "local"


@pytest.mark.parametrize("name", ["paths.onnx", "stream.onnx", "tokens.onnx"])
def test_every_field_of_a_card_counts(cards: dict[str, dict[str, Any]], name: str) -> None:
    check_every_field(schema("card"), cards[name])


def test_a_state_of_observe(tmp_path: Path) -> None:
    model = murho.load(CONFORMANCE / "paths.onnx")
    windows = np.random.default_rng(1).normal(50, 1, (3, 8, 1))
    path = tmp_path / "state.json"
    validator = schema("state")
    for seed in range(3):
        model.save_state(path)
        validator.validate(json.loads(path.read_text()))
        model.predict(windows, draws=32, seed=seed)
        model.observe(np.array([50.0, np.nan, 51.0]))
    model.save_state(path)
    state = json.loads(path.read_text())
    assert len(state["pending"]) == 3
    check_every_field(validator, state)


def test_the_schema_has_the_fields_of_the_card() -> None:
    """Also of a field that no card here has a value for."""
    assert set(schema("card").schema["properties"]) == set(Card.__dataclass_fields__)


def check_every_field(validator: Draft202012Validator, document: dict[str, Any]) -> None:
    """Without a field, with one too many, and with a field of another type the document does not pass."""
    validator.validate(document)
    for path, fields in _objects(document):
        damaged = copy.deepcopy(document)
        _at(damaged, path)["unheard_of"] = 1
        with pytest.raises(ValidationError, match="unheard_of"):
            validator.validate(damaged)
        for field in fields:
            damaged = copy.deepcopy(document)
            del _at(damaged, path)[field]
            with pytest.raises(ValidationError, match=f"'{re.escape(field)}' is a required property"):
                validator.validate(damaged)
            for wrong in ({"of": "another type"}, "\n"):
                if isinstance(wrong, type(_at(document, path)[field])):
                    continue
                damaged = copy.deepcopy(document)
                _at(damaged, path)[field] = wrong
                with pytest.raises(ValidationError):
                    validator.validate(damaged)


FREE = ("versions", "training", "verification", "shapes", "constants")
"""Objects whose keys are not the schema's."""


def _objects(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], list[str]]]:
    """Every object in a document with its fields, but for those whose keys are free."""
    if isinstance(part, dict):
        yield path, list(part)
        for key, value in part.items():
            if key not in FREE:
                yield from _objects(value, (*path, key))
    elif isinstance(part, list):
        for k, value in enumerate(part):
            yield from _objects(value, (*path, k))


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document
