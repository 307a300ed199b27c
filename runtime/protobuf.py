"""Walk and write protobuf messages, which ONNX files are made of: enough to spare the runtime the package onnx.

See https://protobuf.dev/programming-guides/encoding for the encoding.
"""

from collections.abc import Iterator


def fields(view: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """(number, start of the field, start of its body, end) for each field of a message; ValueError if it is none."""
    position = 0
    while position < len(view):
        start = position
        tag, position = _varint(view, position)
        kind = tag & 7
        body = position
        if kind == 0:
            _, position = _varint(view, position)
        elif kind == 2:
            length, body = _varint(view, position)
            position = body + length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError("not a protobuf message")
        if position > len(view) or tag < 8:
            raise ValueError("not a protobuf message")
        yield tag >> 3, start, body, position


def bodies(view: memoryview, wanted: int) -> Iterator[memoryview]:
    """The bodies of all fields with one number."""
    for number, _, body, end in fields(view):
        if number == wanted:
            yield view[body:end]


def strings(view: memoryview, wanted: int) -> list[str]:
    """The values of a text field, repeated or not."""
    return [bytes(body).decode() for body in bodies(view, wanted)]


def integers(view: memoryview, wanted: int) -> list[int]:
    """The values of an unsigned field, or of an integer one that is not negative."""
    return [_varint(view, body)[0] for number, _, body, _ in fields(view) if number == wanted]


def delimited(number: int, body: bytes | memoryview) -> bytes:
    """A field that holds text, bytes or a message."""
    return b"".join((_as_varint(number << 3 | 2), _as_varint(len(body)), body))


def _as_varint(value: int) -> bytes:
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(view):
        byte = view[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            break
    raise ValueError("not a protobuf message")
