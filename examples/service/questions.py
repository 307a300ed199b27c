"""A request from its bytes to arrays: all that it could cost is known, and limited, before the model is asked."""

import json
from hashlib import sha256
from itertools import chain
from math import prod
from typing import Any, NamedTuple

from batching import Inputs
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, ValidationError
from settings import Settings

import murho
from murho.runtime.inputs import as_draws, as_inputs, as_level, as_seed

NUMBERS, TRUTHS = frozenset((int, float)), frozenset((bool,))


class Question(BaseModel):
    """What is left out comes from the artifact's card."""

    model_config = ConfigDict(extra="forbid", strict=True)

    x: list[Any] | dict[str, list[Any]]
    """[rows, …] in raw units; of a network with several inputs an object of them by name."""
    draws: int | list[int] | None = None
    level: float | list[float] | None = None
    seed: int | None = None
    noise: bool = True


class Key(NamedTuple):
    """What requests of one call have in common."""

    draws: bytes
    level: float | tuple[float, ...]
    seed: int
    noise: bool
    shapes: tuple[tuple[int, ...], ...]
    """Of a row of each input: sequences may be of any length, but of one length in a call."""
    shared: tuple[str, ...]
    """SHA-256 of each input that all rows of a call share: a mask, an edge list."""


def checked(card: murho.Card, settings: Settings, body: bytes) -> tuple[Key, Inputs, int]:
    """A request's key, its inputs, and what it costs.

    Raises HTTPException (400 or 422) and InputError: no mistake of its own may spoil the call that others share.
    """
    try:
        question = Question.model_validate(from_json(body))
    except ValidationError as error:
        raise HTTPException(422, "; ".join(map(described, error.errors()))) from None
    dtypes = {array.name: array.dtype for array in card.inputs}
    for name, part in question.x.items() if isinstance(question.x, dict) else [(card.input.name, question.x)]:
        check_numbers(name, part, TRUTHS if dtypes.get(name) == "bool" else NUMBERS)
    draws, levels = (part if isinstance(part, list) else [part] for part in (question.draws, question.level))
    count = question.draws if isinstance(question.draws, int) else len(draws)
    if count > settings.max_draws:
        raise murho.InputError(f"draws must be at most {settings.max_draws} in this service; got {short(count)}.")
    if len(levels) > settings.max_levels:
        raise murho.InputError(f"There may be at most {settings.max_levels} levels in this service; got {len(levels)}.")
    inputs = as_inputs(card, question.x)
    cost = check_cost(card, settings, question, inputs)
    key = Key(
        as_draws(card, question.draws).tobytes(),
        as_level(card, question.level),
        as_seed(card, question.seed),
        question.noise,
        tuple(array.shape[1:] for array in inputs),
        tuple(
            sha256(array.tobytes()).hexdigest()
            for array, about in zip(inputs, card.inputs, strict=True)
            if about.shared
        ),
    )
    return key, inputs, cost


def from_json(body: bytes) -> Any:
    """JSON as its standard has it. Raises HTTPException 400 for anything else, and for what is nested too deeply."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) < len(pairs):
            raise ValueError("a name stands twice in an object")
        return names

    def refused(word: str) -> None:
        raise ValueError(f"{word} is no number of JSON")

    try:
        return json.loads(body, object_pairs_hook=unique, parse_constant=refused)
    except RecursionError:
        raise HTTPException(400, "The body must be JSON: it is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise HTTPException(400, f"The body must be JSON: {error.msg} at character {error.pos}.") from None
    except UnicodeDecodeError:
        raise HTTPException(400, "The body must be JSON: it is no UTF-8.") from None
    except ValueError as error:  # from above, or an integer of thousands of digits
        raise HTTPException(400, f"The body must be JSON: {str(error).partition(';')[0]}.") from None


def check_numbers(name: str, values: list[Any], wanted: frozenset[type] = NUMBERS) -> None:
    """Refuse what is no number, or no truth of a mask, before numpy makes room, for one long text as much for each."""
    layer = values
    while (kinds := set(map(type, layer))) == {list}:
        layer = list(chain.from_iterable(layer))
    if list in kinds:
        raise murho.InputError(f"{name} must be nested equally deeply everywhere: some lists end early.")
    if wrong := sorted({JSON_NAMES[kind] for kind in kinds - wanted}):
        what = "true and false" if bool in wanted else "numbers"
        raise murho.InputError(f"{name} must hold {what}, but holds {' and '.join(wrong)}.")


JSON_NAMES = {
    int: "numbers",
    float: "numbers",
    str: "text",
    bool: "true or false",
    type(None): "null",
    dict: "an object",
}


def check_cost(card: murho.Card, settings: Settings, question: Question, inputs: Inputs) -> int:
    """Rows × steps × draws × levels. Raises InputError where one of them, all together, or the answer is too large."""
    rows = len(inputs[0])
    steps = max(
        prod([size for size, fixed in zip(array.shape, about.shape, strict=True) if fixed is None][not about.shared :])
        for array, about in zip(inputs, card.inputs, strict=True)
    )
    draws = card.draws if question.draws is None else question.draws
    draws = len(draws) if isinstance(draws, list) else draws
    level = card.levels if question.level is None else question.level
    levels = 1 if isinstance(level, int | float) else len(level)
    if rows > settings.max_rows:
        raise murho.InputError(
            f"x must have at most {settings.max_rows} rows in this service, but has {rows}: "
            "split it into several requests."
        )
    if steps > settings.max_steps:
        raise murho.InputError(f"x must have at most {settings.max_steps} steps in this service, but has {steps}.")
    cost = rows * steps * draws * levels
    if cost > settings.max_cost:
        raise murho.InputError(
            f"{rows} rows × {steps} steps × {draws} draws × {levels} levels are {cost}, and this service computes at "
            f"most {settings.max_cost} for a request. Ask for less of one of them."
        )
    values = rows * prod(size or 1 for size in card.output.shape[1:]) * (2 + 2 * levels)
    if values > settings.max_values:
        raise murho.InputError(
            f"The answer would hold {values} numbers, and in this service at most {settings.max_values}. "
            "Ask for fewer rows or levels."
        )
    return cost


def described(mistake: Any) -> str:
    """What pydantic has to say of one field."""
    return f"{'.'.join(map(str, mistake['loc'])) or 'The body'}: {mistake['msg']}."


def short(number: int) -> str:
    return str(number) if number < 10**20 else "far more"
