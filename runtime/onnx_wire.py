"""Take the messages of an ONNX file apart, and refuse whatever is not encoded as onnx.proto says.

Of that file's messages and fields, these are the ones that murho writes. See
https://protobuf.dev/programming-guides/encoding for the encoding.
"""

from typing import Any

_TEXT, _BYTES, _INTEGER, _FLOATS, _DOUBLES, _INTEGERS, _FLOAT = (
    "text",
    "bytes",
    "integer",
    "f4",
    "f8",
    "varints",
    "float",
)

# Of each message of onnx.proto: number of the field -> what it holds, and whether it may come more than once. What is
# not here, murho does not write: training information, external and sparse tensors, sequences, maps, optional values.
_MESSAGES: dict[str, dict[int, tuple[str, bool]]] = {
    "Model": {
        1: (_INTEGER, False), 2: (_TEXT, False), 3: (_TEXT, False), 4: (_TEXT, False), 5: (_INTEGER, False),
        6: (_TEXT, False), 7: ("Graph", False), 8: ("Opset", True), 14: ("Entry", True), 25: ("Function", True),
    },
    "Opset": {1: (_TEXT, False), 2: (_INTEGER, False)},
    "Entry": {1: (_TEXT, False), 2: (_TEXT, False)},
    "Graph": {
        1: ("Node", True), 2: (_TEXT, False), 5: ("Tensor", True), 10: (_TEXT, False), 11: ("Value", True),
        12: ("Value", True), 13: ("Value", True), 16: ("Entry", True),
    },
    "Node": {
        1: (_TEXT, True), 2: (_TEXT, True), 3: (_TEXT, False), 4: (_TEXT, False), 5: ("Attribute", True),
        6: (_TEXT, False), 7: (_TEXT, False), 8: (_TEXT, False), 9: ("Entry", True),
    },
    "Attribute": {
        1: (_TEXT, False), 2: (_FLOAT, False), 3: (_INTEGER, False), 4: (_BYTES, False), 5: ("Tensor", False),
        6: ("Graph", False), 7: (_FLOATS, True), 8: (_INTEGERS, True), 9: (_BYTES, True), 10: ("Tensor", True),
        11: ("Graph", True), 13: (_TEXT, False), 20: (_INTEGER, False), 21: (_TEXT, False),
    },
    "Tensor": {
        1: (_INTEGERS, True), 2: (_INTEGER, False), 4: (_FLOATS, True), 5: (_INTEGERS, True), 7: (_INTEGERS, True),
        8: (_TEXT, False), 9: (_BYTES, False), 10: (_DOUBLES, True), 11: (_INTEGERS, True), 12: (_TEXT, False),
        16: ("Entry", True),
    },
    "Value": {1: (_TEXT, False), 2: ("Type", False), 3: (_TEXT, False), 4: ("Entry", True)},
    "Type": {1: ("TensorType", False), 6: (_TEXT, False)},
    "TensorType": {1: (_INTEGER, False), 2: ("Shape", False)},
    "Shape": {1: ("Axis", True)},
    "Axis": {1: (_INTEGER, False), 2: (_TEXT, False), 3: (_TEXT, False)},
    "Function": {
        1: (_TEXT, False), 4: (_TEXT, True), 5: (_TEXT, True), 6: (_TEXT, True), 7: ("Node", True), 8: (_TEXT, False),
        9: ("Opset", True), 10: (_TEXT, False), 11: ("Attribute", True), 12: ("Value", True), 13: (_TEXT, False),
        14: ("Entry", True),
    },
}  # fmt: skip
_WIRES = {_INTEGER: 0, _FLOAT: 5}  # all else has a length, but for repeated numbers, which may come one by one
_ONE_BY_ONE = {_FLOATS: 5, _DOUBLES: 1, _INTEGERS: 0}


class UnknownFieldError(ValueError):
    def __init__(self, message: str, number: int) -> None:
        super().__init__(f"its {message} has a field {number}, which murho does not know")
        self.number = number


def parsed(body: memoryview, message: str) -> dict[int, list[Any]]:
    """The fields of a message by number, each checked against what the message may have.

    Text is decoded, integers are unsigned, repeated numbers are lists or views of them, messages are views.
    """
    known = _MESSAGES[message]
    found: dict[int, list[Any]] = {}
    position, end = 0, len(body)
    while position < end:
        tag = body[position]
        position += 1
        if tag >= 0x80:
            tag, position = _varint(body, position - 1, end)
        number, wire = tag >> 3, tag & 7
        about = known.get(number)
        if about is None:
            raise UnknownFieldError(message, number)
        kind, repeated = about
        if wire == 2:
            if position < end and (length := body[position]) < 0x80:
                position += 1
            else:
                length, position = _varint(body, position, end)
            start = position
            position += length
            if position > end:
                raise ValueError("it is cut short")
            value: Any = body[start:position]
            if kind == _TEXT:
                value = str(value, "utf-8")
            elif kind == _INTEGERS:
                value = _varints(value)
            elif kind in (_FLOATS, _DOUBLES):
                width = 4 if kind == _FLOATS else 8
                if length % width:
                    raise ValueError("it has numbers that are cut short")
                value = range(length // width)  # their number is all that is asked
            elif kind in _WIRES:
                raise ValueError(f"its {message} has a field {number} of the wrong kind")
        else:
            if wire != _WIRES.get(kind, _ONE_BY_ONE.get(kind)):
                raise ValueError(f"its {message} has a field {number} of the wrong kind")
            if wire == 0:
                value, position = _varint(body, position, end)
            else:
                position += 4 if wire == 5 else 8
                value = 0
            if position > end:
                raise ValueError("it is cut short")
            if kind in _ONE_BY_ONE:
                value = [value]
        values = found.get(number)
        if values is None:
            found[number] = [value]
        elif repeated:
            values.append(value)
        else:
            raise ValueError(f"its {message} has the field {number} twice")
    return found


def _varint(body: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise ValueError("it is cut short")


def _varints(body: memoryview) -> list[int]:
    values, position, end = [], 0, len(body)
    while position < end:
        value, position = _varint(body, position, end)
        values.append(value)
    return values
