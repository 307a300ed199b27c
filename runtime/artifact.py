"""Read an artifact's card and check that nothing changed since its export, without torch, onnx or ONNX Runtime.

An ONNX file is a protobuf message. Its fields are walked at the top level only, which takes a few lines: the card is
one of the metadata entries, and the digest covers every field but its own entry. A TorchScript file is a zip archive.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .contract import CARD_KEY, DIGEST_KEY, Card
from .errors import ArtifactError

_METADATA = 14  # ModelProto.metadata_props, of StringStringEntryProto (key = 1, value = 2), onnx.proto
_ZIP_MAGIC = b"PK\x03\x04"
DIGEST_LENGTH = 64


@dataclass(frozen=True)
class Artifact:
    """A file that passed its check."""

    path: Path
    format: str
    """"onnx" or "torchscript"."""
    card: Card
    content: bytes


def read(path: str | os.PathLike[str]) -> Artifact:
    """Read and check a file. Raises ArtifactError if it is missing, empty, cut short, changed, or not murho's."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"Cannot read the artifact {path}: {error.strerror or error}.") from None
    if not content:
        raise ArtifactError(f"{path} is empty. Export it again.")
    zipped = content.startswith(_ZIP_MAGIC)
    entries, digest = _read_zip(path, content) if zipped else _read_onnx(path, content)
    if CARD_KEY not in entries or DIGEST_KEY not in entries:
        raise ArtifactError(
            f"{path} is not a murho artifact: it carries no card. Expected a file written by murho.export."
        )
    card = Card.from_json(entries[CARD_KEY])
    if digest != entries[DIGEST_KEY]:
        raise ArtifactError(f"{path} was changed or damaged after its export: its checksum differs. Export it again.")
    return Artifact(path, "torchscript" if zipped else "onnx", card, content)


def onnx_digest(content: bytes) -> str:
    """SHA-256 (hex) over every top-level field of an ONNX file but the digest's own entry."""
    return _scan_onnx(content)[1]


def zip_digest(content: bytes) -> str:
    """SHA-256 (hex) over a zip archive but for its last 64 bytes, the comment in which the digest itself stands."""
    return hashlib.sha256(memoryview(content)[:-DIGEST_LENGTH]).hexdigest()


def _read_onnx(path: Path, content: bytes) -> tuple[dict[str, str], str]:
    try:
        return _scan_onnx(content)
    except (ValueError, IndexError):
        raise ArtifactError(
            f"{path} is not a murho artifact, or is cut short: it reads neither as ONNX nor as TorchScript."
        ) from None


def _scan_onnx(content: bytes) -> tuple[dict[str, str], str]:
    total = hashlib.sha256()
    entries = {}
    view = memoryview(content)
    for number, start, body, end in _fields(view):
        if number == _METADATA:
            pair = {n: bytes(view[body:end][b:e]).decode() for n, _, b, e in _fields(view[body:end])}
            entries[pair.get(1, "")] = pair.get(2, "")
            if pair.get(1) == DIGEST_KEY:
                continue
        total.update(view[start:end])
    return entries, total.hexdigest()


def _fields(view: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """(number, start of the field, start of its body, end) for each field of a protobuf message."""
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


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("not a protobuf message")


def _read_zip(path: Path, content: bytes) -> tuple[dict[str, str], str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {DIGEST_KEY: archive.comment.decode()} if archive.comment else {}
            for name in archive.namelist():
                if name.endswith(f"/extra/{CARD_KEY}.json"):
                    entries[CARD_KEY] = archive.read(name).decode()
            return entries, zip_digest(content)
    except Exception as error:  # zipfile raises nearly anything for a damaged archive
        raise ArtifactError(f"{path} is damaged or cut short: {error}. Export it again.") from None
