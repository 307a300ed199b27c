"""Check the archives of torch before torch reads them: that each tensor has the bytes that it is said to have.

torch believes the sizes that it finds, and reads beyond what is there. It also unpickles parts of a program that murho
never writes; they are refused. All this is for files that somebody trusts: it finds damage, and does not make a program
harmless.
"""

import io
import json
import pickle
import pickletools
from collections.abc import Callable, Iterable
from math import prod
from typing import Any

from .archive import archive
from .artifact import DIGEST_LENGTH
from .errors import ArtifactError

# Bytes of an element: of the storages that TorchScript names, and of the numbers by which torch.export names types.
_STORAGES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip
_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}
_OPERATIONS = frozenset(
    {"PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
    | {"BINUNICODE", "GLOBAL", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BINPERSID", "REDUCE", "BUILD"}
    | {"NEWOBJ", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"}
    | {"EMPTY_DICT", "SETITEM", "SETITEMS"}
)
_WEIGHTS = (("data/weights/", "_weights_config.json"), ("data/constants/", "_constants_config.json"))


def check_torchscript(content: bytes) -> None:
    """Raises ArtifactError where a TorchScript file has a tensor that is larger than its record."""
    _told(_check_torchscript, content)


def check_pt2(content: bytes) -> None:
    """Raises ArtifactError where a program has a tensor that is larger than its record, or parts that are pickled."""
    _told(_check_pt2, content)


def _told(check: Callable[[bytes], None], content: bytes) -> None:
    try:
        check(content)
    except ValueError as error:
        raise ArtifactError(f"This file must not be opened by torch: {error}. Export it again.") from None


def _check_torchscript(content: bytes) -> None:
    records = archive(content, DIGEST_LENGTH).records
    top = next(iter(records)).partition("/")[0]
    for name in ("data", "constants"):
        body = records.get(f"{top}/{name}.pkl")
        if body is None:
            continue
        try:
            _check_operations(bytes(body))
            _Sizes(io.BytesIO(body), {key: len(record) for key, record in records.items()}, f"{top}/{name}/").load()
        except ValueError:
            raise
        except Exception as error:  # of a damaged pickle, nearly anything
            raise ValueError(f"{name}.pkl cannot be read: {error}") from None


def _check_pt2(content: bytes) -> None:
    records = archive(content, DIGEST_LENGTH).records
    top = next(iter(records)).partition("/")[0]
    for name, record in records.items():
        if name.startswith(f"{top}/data/sample_inputs/") and len(record):
            raise ValueError("it holds example inputs, which torch would unpickle")
    for folder, ending in _WEIGHTS:
        configs = [name for name in records if name.startswith(f"{top}/{folder}") and name.endswith(".json")]
        if len(configs) != 1 or not configs[0].endswith(ending):
            raise ValueError(f"it has not one list of what lies in {folder}")
        try:
            for about in json.loads(bytes(records[configs[0]]))["config"].values():
                _check_payload(about, records, f"{top}/{folder}")
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"the list of what lies in {folder} is damaged ({error!r})") from None


def _check_operations(pickled: bytes) -> None:
    """Whether a pickle has only what TorchScript writes, and asks for no more memory than its size lets expect."""
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name not in _OPERATIONS:
            raise ValueError(f"it has the operation {operation.name}, which TorchScript does not write")
        if operation.name == "LONG_BINPUT" and not 0 <= (argument or 0) <= len(pickled):
            raise ValueError("it remembers more than it holds")


def _check_payload(about: dict[str, Any], records: dict[str, memoryview], folder: str) -> None:
    path = about["path_name"]
    if about["use_pickle"] is not False:
        raise ValueError(f"{path} is pickled")
    meta = about["tensor_meta"]
    sizes, strides = ([part["as_int"] for part in meta[key]] for key in ("sizes", "strides"))
    there = len(records[folder + path]) // _TYPES[meta["dtype"]]
    _check_view(path, there, meta["storage_offset"]["as_int"], sizes, strides)


def _check_view(name: str, there: int, offset: Any, sizes: Iterable[Any], strides: Iterable[Any]) -> None:
    """Whether all elements of a tensor are among so many that are there."""
    sizes, strides = tuple(sizes), tuple(strides)
    numbers = (offset, *sizes, *strides)
    if any(type(number) is not int or number < 0 for number in numbers) or len(sizes) != len(strides):
        raise ValueError(f"tensor {name} has sizes that no tensor has")
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if (prod(sizes) and last >= there) or max(numbers, default=0) > 2**40:
        raise ValueError(f"tensor {name} has more elements than its record, {there}")


class _Anything:
    """Stands for whatever a pickle names. Nothing of what it names is looked up, let alone called."""

    def __new__(cls, *arguments: Any, **named: Any) -> "_Anything":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> "_Anything":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class _Storage(_Anything):
    def __init__(self, name: str, elements: int) -> None:
        self.name, self.elements = name, elements

    def __new__(cls, *arguments: Any, **named: Any) -> "_Storage":
        return object.__new__(cls)


class _Sizes(pickle.Unpickler):
    """Reads a pickle of TorchScript for the sizes of its tensors alone."""

    def __init__(self, file: io.BytesIO, lengths: dict[str, int], folder: str) -> None:
        super().__init__(file)
        self._lengths, self._folder = lengths, folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return name
        if module == "torch._utils":
            if name != "_rebuild_tensor_v2":
                raise ValueError(f"it has a tensor of a kind that murho does not write ({name})")
            return _tensor
        return _Anything

    def persistent_load(self, about: Any) -> _Storage:
        _, kind, key, _, elements = about
        if kind not in _STORAGES or type(elements) is not int:
            raise ValueError(f"the record {key} has a type that murho does not write")
        there = self._lengths[self._folder + key] // _STORAGES[kind]
        if not 0 <= elements <= there:
            raise ValueError(f"the record {key} has {there} elements, not {elements}")
        return _Storage(key, elements)


def _tensor(storage: Any, offset: Any, sizes: Any, strides: Any, *_: Any) -> _Anything:
    if type(storage) is not _Storage:
        raise ValueError("it has a tensor without a record")
    _check_view(storage.name, storage.elements, offset, sizes, strides)
    return _Anything()
