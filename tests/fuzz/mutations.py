"""Changes of files for the doors: of bytes, and of protobuf messages."""

import hashlib
import io
import struct
import warnings
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf.message import Message

from murho.runtime.artifact import DIGEST_LENGTH, zip_digest
from murho.runtime.contract import DIGEST_KEY
from murho.runtime.protobuf import delimited, fields

NUMBERS = (0, 1, 2, 3, 7, 16, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**62 + 1, 2**63 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3.4e38, float("inf"), float("-inf"), float("nan"), 1e300)
TEXTS = ("", "x", "samples", "drawn.0", "\0", "é\u202e", "../../etc/passwd", "murho", "ai.onnx.ml", "a" * 5000)


def of_bytes(content: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(len(changed)))
        match random.integers(6):
            case 0:
                changed[place] ^= 1 << int(random.integers(8))
            case 1:
                changed[place] = int(random.integers(256))
            case 2:
                del changed[place : place + int(random.integers(1, 20))]
            case 3:
                changed[place:place] = random.bytes(int(random.integers(1, 20)))
            case 4:
                other = int(random.integers(len(changed)))
                changed[place : place + 16] = changed[other : other + 16]
            case _:
                form, value = (
                    ("<i", int(random.integers(-5, 5))) if random.random() < 0.5 else ("<f", of_floats(random))
                )
                changed[place : place + 4] = struct.pack(form, value)
        if not changed:
            return b""
    return bytes(changed)


def of_floats(random: np.random.Generator) -> float:
    value = FLOATS[random.integers(len(FLOATS))]
    return value if abs(value) < 3.5e38 else float("inf")


def of_message(message: Message, random: np.random.Generator) -> None:
    """Change one field somewhere in a message: drop, double, swap it, or give it another value."""
    while True:
        present = message.ListFields()
        if not present:
            return
        described, value = present[random.integers(len(present))]
        repeated = hasattr(value, "append")
        if described.message_type is None:
            _change(message, described, value, repeated, random)
            return
        if random.random() < 0.15:
            _rearrange(message, described, value, repeated, random)
            return
        message = value[int(random.integers(len(value)))] if repeated else value


def _change(message: Any, described: Any, value: Any, repeated: bool, random: np.random.Generator) -> None:
    if repeated:
        if random.random() < 0.3:
            _rearrange(message, described, value, repeated, random)
        else:
            place = int(random.integers(len(value)))
            value[place] = _other(described, value[place], random)
    elif random.random() < 0.15:
        message.ClearField(described.name)
    else:
        setattr(message, described.name, _other(described, value, random))


def _rearrange(message: Any, described: Any, value: Any, repeated: bool, random: np.random.Generator) -> None:
    if not repeated:
        message.ClearField(described.name)
        return
    place, other = (int(random.integers(len(value))) for _ in range(2))
    match random.integers(3):
        case 0:
            del value[place]
        case 1:
            value.extend([value[place]])
        case _ if described.message_type is None:
            value[place], value[other] = value[other], value[place]
        case _:
            copy = type(value[place])()
            copy.CopyFrom(value[place])
            value[place].CopyFrom(value[other])
            value[other].CopyFrom(copy)


def _other(described: Any, value: Any, random: np.random.Generator) -> Any:
    kind = described.cpp_type
    if kind == described.CPPTYPE_STRING:
        if isinstance(value, str):
            near = value + "x" if random.random() < 0.5 else value[: len(value) // 2]
            return near if random.random() < 0.4 else TEXTS[random.integers(len(TEXTS))]
        return of_bytes(value, random) if value else random.bytes(8)
    if kind in (described.CPPTYPE_FLOAT, described.CPPTYPE_DOUBLE):
        return of_floats(random)
    if kind == described.CPPTYPE_ENUM:
        return described.enum_type.values[random.integers(len(described.enum_type.values))].number
    small = kind in (described.CPPTYPE_INT32, described.CPPTYPE_UINT32)
    number = (
        NUMBERS[random.integers(len(NUMBERS))] if random.random() < 0.6 else abs(value) + int(random.integers(-2, 3))
    )
    signed = kind in (described.CPPTYPE_INT32, described.CPPTYPE_INT64)
    if signed and random.random() < 0.3:
        number = -number
    least, most = (-(2**31), 2**31 - 1) if small else (-(2**63), 2**63 - 1)
    return min(max(number, least if signed else 0), most)


def sealed_onnx(content: bytes) -> bytes:
    """The content with a digest that fits; as it is, where no message can be read in it."""
    view = memoryview(content)
    try:
        parts = [
            view[start:end]
            for number, start, body, end in fields(view)
            if number != 14 or f"{DIGEST_KEY}".encode() not in bytes(view[body:end])
        ]
    except (ValueError, IndexError):
        return content
    kept = b"".join(parts)
    pair = delimited(1, DIGEST_KEY.encode()) + delimited(2, hashlib.sha256(kept).hexdigest().encode())
    return kept + delimited(14, pair)


def sealed_zip(content: bytes) -> bytes:
    """The content with a digest that fits at its end."""
    return content[:-DIGEST_LENGTH] + zip_digest(content).encode()


def of_records(records: dict[str, bytes], random: np.random.Generator) -> list[tuple[str, bytes]]:
    """Records with another body or name, dropped or doubled; small ones, where sizes stand, as often as others."""
    changed = list(records.items())
    for _ in range(random.integers(1, 3)):
        place = int(random.integers(len(changed)))
        name, body = changed[place]
        match random.integers(8):
            case 0:
                del changed[place]
                if not changed:
                    return changed
            case 1:
                changed.append((name, body))
            case 2:
                changed[place] = (name + "x", body)
            case 3:
                changed[place] = (name, body[: int(random.integers(len(body) + 1))])
            case 4:
                changed[place] = (name, body + random.bytes(int(random.integers(1, 100))))
            case 5:
                changed[place] = (name, changed[int(random.integers(len(changed)))][1])
            case _:
                changed[place] = (name, of_bytes(body, random) if body else b"\x80\x04.")
    return changed


def zipped(records: list[tuple[str, bytes]], random: np.random.Generator) -> bytes:
    """A zip archive with a digest that fits; now and then one of the many ways to write one that murho has not."""
    content = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if random.random() < 0.05 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(content, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)  # of a name that stands twice
        for name, body in records:
            archive.writestr(zipfile.ZipInfo(name), body, method)
        archive.comment = b"0" * DIGEST_LENGTH
    return sealed_zip(content.getvalue())


def of_json(value: Any, random: np.random.Generator) -> Any:
    """A JSON value that differs in one place."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = list(value)[random.integers(len(value))]
        changed = dict(value)
        match random.integers(12):
            case 0:
                del changed[key]
            case 1:
                changed[key + "x"] = value[key]
            case _:
                changed[key] = of_json(value[key], random)
        return changed
    if isinstance(value, list) and value and random.random() < 0.9:
        place = int(random.integers(len(value)))
        match random.integers(8):
            case 0:
                return value[:place] + value[place + 1 :]
            case 1:
                return [*value, value[place]]
            case 2:
                return value * int(random.integers(2, 20))
            case _:
                return [*value[:place], of_json(value[place], random), *value[place + 1 :]]
    if isinstance(value, str) and random.random() < 0.5:
        return TEXTS[random.integers(len(TEXTS))]
    if isinstance(value, int | float) and not isinstance(value, bool) and random.random() < 0.7:
        near = (value + 1, value - 1, -value, 0, 0.5, *NUMBERS, *FLOATS, 10**400)
        return near[random.integers(len(near))]
    others = (
        None,
        True,
        False,
        0,
        -1,
        2**70,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "\ud800",
        "x",
        [],
        {},
        [[]],
        {"": 1},
    )
    return others[random.integers(len(others))]


def zip_of(records: Iterable[tuple[str, bytes]], compression: int, comment: bytes) -> bytes:
    """A zip archive of records, any name as often as it comes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, body in records:
            archive.writestr(zipfile.ZipInfo(name), body, compression)
        archive.comment = comment
    return made.getvalue()
