"""Check a card as it stands in a file, before anything is made of it: the rules of docs/card.schema.json, and bounds.

JSON allows what no card may hold: numbers that are not finite, text that is no Unicode, and a million of anything.
"""

import json
import math
import re
import sys
from collections.abc import Callable
from typing import Any

from .contract import (
    CALIBRATION_SLOTS,
    DISTRIBUTIONS,
    FIXED_INPUTS,
    MAX_DRAWS,
    NOISE_INPUT,
    OUTPUTS,
    STATE,
    STORAGES,
    VALUES,
)

TASKS = ("regression", "forecast", "classification")
MOST_DEPTH = 32  # of lists and objects in each other
MOST_ITEMS = 10_000  # of any list but those of free objects
MOST_SIZE = 2**31 - 1  # of an axis
LONGEST_NAME = 1000
LARGEST = sys.float_info.max
_DIGITS = frozenset("0123456789abcdef")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

Rule = Callable[[str, Any], None]


def parsed(text: str) -> Any:
    """The JSON value. Raises ValueError for what is no JSON, and for a key that stands twice in an object."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def check_card(card: Any) -> None:
    """Raises ValueError, whose text names the field."""
    _whole_json(card, 0)
    _CARD("card", card)
    inputs, outputs, states = card["inputs"], card["outputs"], card["states"]
    names = [*(part["name"] for part in inputs), *FIXED_INPUTS, NOISE_INPUT, *(part["name"] for part in states)]
    _different("inputs", names)
    _different("outputs", [part["name"] for part in outputs] + list(OUTPUTS))
    for k, state in enumerate(states):
        shape = state["shape"]
        if state["name"] != f"{STATE}{k}" or len(shape) != 3 or shape[:2] != [None, None] or not shape[2]:
            raise ValueError(f"states: {state['name']!r} is no state [draws, rows, units] in its place")
    for k, part in enumerate((*inputs, *outputs)):
        if "batch" in part["axes"] or k in (0, len(inputs)) or k > len(inputs):
            if part["axes"][:1] != ["batch"] or part["axes"].count("batch") > 1 or part["shape"][0] is not None:
                raise ValueError(f"{part['name']!r} has a fixed number of rows, or none")
        elif states:
            raise ValueError(f"states: a stream has no input that all rows share, such as {part['name']!r}")
    for part in outputs:
        if part["dtype"] != "float32":
            raise ValueError(f"the output {part['name']!r} is {part['dtype']}, not float32")
    _consistent(card)


def _consistent(card: dict[str, Any]) -> None:
    """Whether numbers that speak of one thing agree."""
    features, width = card["inputs"][0]["shape"][-1], card["outputs"][0]["shape"][-1]
    scaling, noise, calibration = card["scaling"], card["noise"], card["calibration"]
    for side, size in (("input", features), ("output", width)):
        mean, scale = (len(scaling[f"{side}_{part}"]) for part in ("mean", "scale"))
        if mean != scale and 1 not in (mean, scale):
            raise ValueError(f"scaling: {mean} means and {scale} scales for each {side}")
        if side == "input" and len(card["inputs"][0]["shape"]) == 1:
            size = 1
        if side == "input" and size is not None and max(mean, scale) not in (1, size):
            raise ValueError(f"scaling: {max(mean, scale)} values for {size} features")
    if noise is not None and width is not None and card["horizon"] == 1 and len(noise["scale"]) not in (0, 1, width):
        raise ValueError(f"noise: {len(noise['scale'])} scales for {width} outputs")
    if calibration is not None:
        levels, factors = calibration["levels"], calibration["factors"]
        if sorted(set(levels)) != levels or len(factors) != len(levels):
            raise ValueError("calibration: levels that do not rise, or not as many rows of factors")
        if width is None or any(len(row) != width for row in factors):
            raise ValueError(f"calibration: not a factor for each of the outputs {width}")
    for site in card["sites"]:
        count = sum(math.prod(shape) for shape in site["shapes"].values())
        if site["sampling"] == "weights" and site["n"] != count:
            raise ValueError(f"sites: {site['layer']!r} draws {site['n']} numbers for {count} weights")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return made


def _whole_json(value: Any, depth: int) -> None:
    """Of all that stands in a card, the free objects too: no depth without end, and text that can be written."""
    if depth > MOST_DEPTH:
        raise ValueError("it is nested too deep")
    if isinstance(value, str):
        if found := _CONTROL.search(value):  # which a terminal would obey
            raise ValueError(f"a text holds the control character {found[0]!r}")
        if not value.isascii():
            value.encode()  # UnicodeEncodeError, which is a ValueError, for half a pair of surrogates
    elif isinstance(value, dict):
        for key, part in value.items():
            _whole_json(key, depth)
            _whole_json(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _whole_json(part, depth + 1)


def _different(where: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: one name twice")


def _said(value: Any) -> str:
    said = json.dumps(value)
    return said if len(said) <= 60 else f"{said[:60]}…"


def _wrong(where: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{where} must be {expected}, not {_said(value)}")


def _text(where: str, value: Any) -> None:
    if type(value) is not str:
        raise _wrong(where, value, "text")


def _name(where: str, value: Any) -> None:
    _text(where, value)
    if not 0 < len(value) <= LONGEST_NAME or "\0" in value:
        raise _wrong(where, value, f"a name of at most {LONGEST_NAME} characters")


def _switch(where: str, value: Any) -> None:
    if type(value) is not bool:
        raise _wrong(where, value, "true or false")


def _whole(least: int, most: int) -> Rule:
    def rule(where: str, value: Any) -> None:
        if type(value) is not int or not least <= value <= most:
            raise _wrong(where, value, f"a whole number from {least} to {most}")

    return rule


def _number(where: str, value: Any) -> None:
    if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:  # a whole number may be beyond all floats
        raise _wrong(where, value, "a finite number")


def _positive(where: str, value: Any) -> None:
    _number(where, value)
    if not value > 0:
        raise _wrong(where, value, "a number above 0")


def _not_negative(where: str, value: Any) -> None:
    _number(where, value)
    if not value >= 0:
        raise _wrong(where, value, "a number of at least 0")


def _ratio(where: str, value: Any) -> None:
    """Of a posterior whose means are all 0, infinite."""
    if value != math.inf:
        _not_negative(where, value)


def _level(where: str, value: Any) -> None:
    _number(where, value)
    if not 0 < value < 1:
        raise _wrong(where, value, "a number between 0 and 1")


def _choice(*choices: str) -> Rule:
    def rule(where: str, value: Any) -> None:
        if type(value) is not str or value not in choices:
            raise _wrong(where, value, f"one of {', '.join(choices)}")

    return rule


def _digest(where: str, value: Any) -> None:
    _text(where, value)
    if len(value) != 64 or not _DIGITS.issuperset(value):
        raise _wrong(where, value, "64 hexadecimal digits")


def _perhaps(rule: Rule, absent: Any = None) -> Rule:
    def either(where: str, value: Any) -> None:
        if value is not absent and (absent is None or value != absent):
            rule(where, value)

    return either


def _list(rule: Rule, least: int = 0, most: int = MOST_ITEMS) -> Rule:
    def rules(where: str, value: Any) -> None:
        if type(value) is not list or not least <= len(value) <= most:
            raise _wrong(where, value, f"a list of {least} to {most}")
        for part in value:
            rule(where, part)

    return rules


def _free(where: str, value: Any) -> None:
    if type(value) is not dict:
        raise _wrong(where, value, "an object")


def _map(rule: Rule) -> Rule:
    def rules(where: str, value: Any) -> None:
        _free(where, value)
        if len(value) > MOST_ITEMS:
            raise ValueError(f"{where} has {len(value)} entries")
        for part in value.values():
            rule(where, part)

    return rules


def _fields(*may_lack: str, **rules: Rule) -> Rule:
    def check(where: str, value: Any) -> None:
        _free(where, value)
        lacks, more = sorted(rules.keys() - value.keys() - {*may_lack}), sorted(value.keys() - rules.keys())
        if lacks or more:
            raise ValueError(f"{where} lacks {lacks} and has {more} too many" if more else f"{where} lacks {lacks}")
        for name, rule in rules.items():
            if name in value:
                rule(name if where == "card" else f"{where}.{name}", value[name])

    return check


def _array(where: str, value: Any) -> None:
    _ARRAY(where, value)
    shape, names, limit = value["shape"], value["names"], value["limit"]
    if len(shape) != len(value["axes"]):
        raise ValueError(f"{where}: {value['name']!r} has {len(value['axes'])} axes and {len(shape)} sizes")
    if names and (shape[-1:] or [0])[0] not in ((None, len(names)) if len(shape) > 1 or len(names) == 1 else ()):
        raise ValueError(f"{where}: {value['name']!r} has {len(names)} names for {shape[-1:]}")
    if isinstance(limit, list):
        if value["dtype"] == "bool" or [len(limit)] != (shape[-1:] if len(shape) > 1 else [1]):
            raise ValueError(f"{where}: {value['name']!r} has {len(limit)} limits for {shape[-1:]}")
    elif limit is not None and value["dtype"] != "int64":
        raise ValueError(f"{where}: {value['name']!r} has a limit, and is no tokens")


def _noise(where: str, value: Any) -> None:
    _NOISE(where, value)
    student = value["distribution"] == "student-t"
    if value["degrees"] < 3 if student else value["degrees"] != 0:
        raise ValueError(f"{where}: {value['degrees']} degrees of freedom do not go with {value['distribution']}")


def _limits(where: str, value: Any) -> None:
    limit = _whole(1, 2**63 - 1)
    (_list(_perhaps(limit), 1) if type(value) is list else limit)(where, value)


_NUMBERS = _list(_number, 1)
_ARRAY = _fields(
    name=_name,
    axes=_list(_text, 0, 16),
    shape=_list(_perhaps(_whole(0, MOST_SIZE)), 0, 16),
    dtype=_choice("float32", "int64", "bool"),
    names=_list(_text),
    unit=_text,
    limit=_perhaps(_limits),
)


def _report(where: str, value: Any) -> None:
    """The proof's report is free, but for what is compared by: what float32 may be off."""
    _free(where, value)
    if (exact := value.get("exact")) is not None:
        _free(f"{where}.exact", exact)
        for name in _EXACT.keys() & exact.keys():
            _EXACT[name](f"{where}.exact.{name}", exact[name])


_EXACT: dict[str, Rule] = {
    "truth": _choice("float64", "float32"),
    "float32_error": _perhaps(_not_negative),
    "multiple": _positive,
    "allowed": _positive,
    "largest_error": _not_negative,
}
_NOISE = _fields(distribution=_choice(*DISTRIBUTIONS), degrees=_whole(0, MOST_SIZE), scale=_list(_not_negative))
_CARD = _fields(
    "storage",  # as float32 in the first files
    "constants",  # none in the first files
    name=_text,
    created=_text,
    versions=_map(_text),
    task=_choice(*TASKS),
    inputs=_list(_array, 1, 256),
    outputs=_list(_array, 1, 256),
    scaling=_fields(
        input_mean=_NUMBERS,
        input_scale=_list(_positive, 1),
        output_mean=_NUMBERS,
        output_scale=_list(_positive, 1),
        values=_choice(*VALUES),
    ),
    sites=_list(
        _fields(
            layer=_text,
            kind=_name,
            shapes=_map(_list(_whole(0, MOST_SIZE), 0, 16)),
            n=_whole(1, MOST_SIZE),
            sampling=_choice("weights", "local"),
            relative_sigma=_ratio,
            trained=_switch,
            elements=_whole(0, 2**53),
        )
    ),
    posterior_sha256=_digest,
    draws=_whole(1, MAX_DRAWS),
    levels=_list(_level, 1, 1000),
    seed=_whole(-(2**63), 2**63 - 1),
    training=_free,
    verification=_report,
    noise=_perhaps(_noise),
    horizon=_whole(1, MOST_SIZE),
    calibration=_perhaps(
        _fields(
            levels=_list(_level, 1, CALIBRATION_SLOTS),
            factors=_list(_list(_not_negative, 1), 1, CALIBRATION_SLOTS),
            rows=_whole(0, 2**53),
            half_life=_perhaps(_positive),
            data_sha256=_perhaps(_digest, ""),
        )
    ),
    states=_list(_array, 0, 256),
    storage=_choice(*STORAGES),
    constants=_free,
    generator=_text,
    schema=_whole(0, MOST_SIZE),
)
