"""Tensors and plain Python values in a file of torch's, read without torch's reader.

The file is what `torch.save` writes, with a SHA-256 in the archive's comment, so `torch.load(path, weights_only=True)`
reads it. That reader believes the sizes that a file tells it and looks beyond the end of a record that is shorter. Here
a file's pickle may hold values, and names of three kinds, and each tensor is cut from a record of just its size.
"""

import io
import math
import pickle
import pickletools
from typing import Any

import torch

from ..runtime.archive import archive
from ..runtime.artifact import DIGEST_LENGTH, sealed_zip, zip_digest
from ..runtime.errors import InputError

MOST_BYTES, MOST_PICKLED, MOST_VALUES, DEEPEST = 2**31 - 1, 2**22, 2**20, 12
"""Of a file, and of its pickle: bytes; values, each counted as often as it stands; how deep they lie in each other."""
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
}
OPERATIONS = {
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT", "BINUNICODE",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK", "NEWFALSE",
    "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
"""Of pickle: what such values need."""


def to_bytes(values: dict[str, Any]) -> bytes:
    """The file of a dict of tensors and plain values. Raises InputError where it is larger than may be read."""
    content = io.BytesIO()
    torch.save(values, content)
    sealed = sealed_zip(content.getvalue())
    if len(sealed) > MOST_BYTES:
        raise InputError(f"A file of weights may have {MOST_BYTES:,} bytes; these take {len(sealed):,}.")
    return sealed


def from_bytes(content: bytes) -> dict[str, Any]:
    """The values, tensors on the CPU. Raises ValueError, whose text says what is wrong."""
    found = archive(content, DIGEST_LENGTH)
    if found.comment != zip_digest(content):
        raise ValueError("its checksum differs")
    pickled, order = found.records.get("archive/data.pkl"), found.records.get("archive/byteorder")
    if pickled is None or order is None or bytes(order) != b"little":
        raise ValueError("it holds no values of little-endian order")
    if len(pickled) > MOST_PICKLED:
        raise ValueError(f"its values take {len(pickled):,} bytes beside the tensors, more than {MOST_PICKLED:,}")
    try:
        _check_operations(bytes(pickled))
        values = _Reader(bytes(pickled), found.records).load()
        _check_values(values, [MOST_VALUES], DEEPEST)
    except Exception as error:  # pickle and torch raise nearly anything
        raise ValueError(f"its values cannot be read: {str(error)[:200] or type(error).__name__}") from None
    if type(values) is not dict or not all(type(key) is str for key in values):
        raise ValueError("its values have no names")
    return values


def _check_operations(pickled: bytes) -> None:
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name not in OPERATIONS:
            raise ValueError(f"{operation.name} in its pickle")
        if operation.name.endswith("PUT") and int(argument or 0) > len(pickled):  # a place that takes memory
            raise ValueError(f"place {argument} in its pickle")


class _Reader(pickle.Unpickler):
    def __init__(self, pickled: bytes, records: dict[str, memoryview]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._records = records
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        known = {("torch._utils", "_rebuild_tensor_v2"): _tensor, ("collections", "OrderedDict"): _no_hooks}
        if (module, name) not in known:
            raise ValueError(f"{module}.{name} in its pickle")
        return known[module, name]

    def persistent_load(self, said: Any) -> torch.Tensor:
        kind, dtype, key, _, count = said
        if kind != "storage" or type(dtype) is not torch.dtype or type(key) is not str or type(count) is not int:
            raise ValueError("a tensor without a record")
        if key not in self._storages:
            record = self._records[f"archive/data/{key}"]
            if len(record) % dtype.itemsize:
                raise ValueError(f"record {key} ends in the middle of a number")
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(bytearray(record), dtype=dtype) if len(record) else empty
        storage = self._storages[key]
        if storage.dtype != dtype or len(storage) != count:
            raise ValueError(f"record {key} has {len(storage)} of {storage.dtype}, not {count} of {dtype}")
        return storage


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any) -> torch.Tensor:
    whole = type(size) is type(stride) is tuple and all(type(n) is int and n >= 0 for n in (offset, *size, *stride))
    if not whole or not isinstance(storage, torch.Tensor) or math.prod(size) > storage.numel() or hooks:
        raise ValueError("a tensor that its record does not hold")
    return storage.as_strided(size, stride, offset)  # which checks that it lies inside


def _no_hooks() -> dict[str, Any]:
    return {}


def _check_values(value: Any, left: list[int], depth: int) -> None:
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        raise ValueError("too many values, or too deep in each other")
    if type(value) is dict:
        if not all(type(key) in (str, int) for key in value):
            raise ValueError("a name that is no text or number")
        for inner in value.values():
            _check_values(inner, left, depth - 1)
    elif type(value) in (list, tuple):
        for inner in value:
            _check_values(inner, left, depth - 1)
    elif not (value is None or type(value) in (bool, int, float, str) or isinstance(value, torch.Tensor)):
        raise ValueError(f"a value of {type(value)}")
