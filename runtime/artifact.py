"""Read an artifact's card and check that nothing changed since it was written; put card and digest into a file.

An ONNX file is a protobuf message: the card is one of its metadata entries, and the digest covers every field but its
own entry. A TorchScript file and a program of torch.export are zip archives.
"""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .archive import archive
from .contract import CARD_KEY, DIGEST_KEY, Card
from .errors import ArtifactError, InputError
from .files import write_file
from .onnx_check import check_model
from .protobuf import bodies, delimited, fields, strings
from .reading import read_file

# Numbers of fields in onnx.proto.
_METADATA = 14  # ModelProto.metadata_props, of StringStringEntryProto (key = 1, value = 2)
_GRAPH, _INITIALIZER, _TENSOR_NAME, _TENSOR_RAW_DATA = 7, 5, 8, 9
_ZIP_MAGIC = b"PK\x03\x04"
DIGEST_LENGTH = 64
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "pt2": ".pt2"}
KINDS = {"onnx": "an ONNX artifact", "torchscript": "a TorchScript artifact", "pt2": "a program of torch.export"}
MOST_BYTES = 2**31 - 1
"""Of a file; no protobuf message may be larger."""
MOST_CARD = 2**22
"""Bytes of a card."""
_CARD_RECORD = f"/extra/{CARD_KEY}.json"
_PT2_MARK = "/archive_format"  # an entry of every archive that torch.export writes, and of no other


@dataclass(frozen=True)
class Artifact:
    """A file that passed its check."""

    path: Path
    format: str
    """"onnx", "torchscript", or "pt2" for a program of torch.export."""
    card: Card
    content: bytes


def read(path: str | os.PathLike[str]) -> Artifact:
    """Read a file and check all of it that can be checked without running it.

    Raises ArtifactError if it is missing, no regular file, too large, empty, cut short, changed, or not murho's.
    """
    path = Path(path)
    try:
        content = read_file(path, MOST_BYTES)
    except ValueError as error:
        raise ArtifactError(f"Cannot read the artifact {path}: {error}.") from None
    return checked(path, content)


def checked(path: Path, content: bytes) -> Artifact:
    """The artifact whose file has this content; the path's suffix and messages count, nothing is read."""
    if not content:
        raise ArtifactError(f"{path} is empty. Export it again.")
    format, entries, digest = (_read_zip if content.startswith(_ZIP_MAGIC) else _read_onnx)(path, content)
    if CARD_KEY not in entries or DIGEST_KEY not in entries:
        raise ArtifactError(
            f"{path} is not a murho artifact: it carries no card. Expected a file written by murho.export."
        )
    if digest != entries[DIGEST_KEY]:
        raise ArtifactError(f"{path} was changed or damaged after its export: its checksum differs. Export it again.")
    card = Card.from_json(entries[CARD_KEY])
    if path.suffix != SUFFIXES[format]:
        raise ArtifactError(
            f"{path} is {KINDS[format]} by its content, so its name must end in {SUFFIXES[format]}. A name must not "
            "hide whether a file is data or a program: rename it only if you know where it comes from."
        )
    if format == "onnx":
        try:
            check_model(memoryview(content), card)
        except ValueError as error:
            raise ArtifactError(f"{path} is no file that murho.export writes: {_cut(error)}.") from None
    return Artifact(path, format, card, content)


def _cut(error: ValueError) -> str:
    """Its text, of which a stranger may have written a part."""
    said = str(error)
    return said if len(said) <= 500 else f"{said[:500]} …"


def check_trust(artifact: Artifact, trusted: bool) -> None:
    """Raises ArtifactError for a format of torch that nobody said to trust: such files are programs, ONNX is data."""
    if artifact.format != "onnx" and not trusted:
        raise ArtifactError(
            f"{artifact.path} is {KINDS[artifact.format]}. Such files are programs: they can run any code when torch "
            "opens them, and nothing of it has been opened. Only where you trust whoever made the file, open it with "
            "trusted=True (--trusted in the command, MURHO_TRUSTED=1 in a service). An ONNX artifact is data and needs "
            "no trust."
        )


def write(artifact: Artifact, path: str | os.PathLike[str]) -> None:
    """Write the artifact: the whole file or nothing. Raises InputError where that fails, or for a wrong suffix."""
    suffix = SUFFIXES[artifact.format]
    if Path(path).suffix != suffix:
        raise InputError(
            f"This artifact is {artifact.format}, so its name must end in {suffix}, not {Path(path).name}."
        )
    write_file(path, artifact.content)


def sealed_onnx(content: bytes, card: Card) -> bytes:
    """An ONNX file with this card, in place of any it had, and the digest."""
    view = memoryview(content)
    kept = [view[start:end] for number, start, _, end in fields(view) if number != _METADATA]
    content = b"".join((*kept, _metadata(CARD_KEY, card.to_json())))
    return content + _metadata(DIGEST_KEY, _scan_onnx(content)[1])


def with_card(format: str, content: bytes, card: Card) -> bytes:
    """An artifact of this content with another card in place of its own."""
    return sealed_onnx(content, card) if format == "onnx" else sealed_zip(content, card)


def sealed_zip(content: bytes, card: Card | None = None) -> bytes:
    """An archive of torch's without torch's notes of sources and paths, and with the digest.

    Its card is the one that it has, or `card` in place of that.
    """
    import zipfile  # only here: an ONNX artifact needs none, and starts the sooner

    sealed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(sealed, "w") as target:
        for name in source.namelist():
            if card is not None and name.endswith(_CARD_RECORD):
                target.writestr(zipfile.ZipInfo(name), card.to_json())
            elif not name.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(name), source.read(name))
        target.comment = b"0" * DIGEST_LENGTH
    content = sealed.getvalue()
    return content[:-DIGEST_LENGTH] + zip_digest(content).encode()


def with_onnx_tensors(content: bytes, tensors: dict[str, NDArray[np.float32]]) -> bytes:
    """An ONNX file with other values in the named initializers, which keep their shapes."""
    changed = bytearray(content)
    missing = set(tensors)
    with memoryview(changed) as view:
        for graph in bodies(view, _GRAPH):
            for tensor in bodies(graph, _INITIALIZER):
                (name,) = strings(tensor, _TENSOR_NAME)
                if name in missing:
                    (raw,) = bodies(tensor, _TENSOR_RAW_DATA)
                    raw[:] = tensors[name].astype("<f4").tobytes()
                    missing.remove(name)
    if missing:
        raise ValueError(f"no initializer {', '.join(missing)}")
    return bytes(changed)


def _metadata(key: str, value: str) -> bytes:
    """The field of one metadata entry."""
    pair = b"".join(delimited(number, text.encode()) for number, text in ((1, key), (2, value)))
    return delimited(_METADATA, pair)


def zip_digest(content: bytes) -> str:
    """SHA-256 (hex) over a zip archive but for its last 64 bytes, the comment in which the digest itself stands."""
    return hashlib.sha256(memoryview(content)[:-DIGEST_LENGTH]).hexdigest()


def _read_onnx(path: Path, content: bytes) -> tuple[str, dict[str, str], str]:
    try:
        return "onnx", *_scan_onnx(content)
    except ValueError:
        raise ArtifactError(
            f"{path} is not a murho artifact, or is cut short: it reads neither as ONNX nor as a file of torch."
        ) from None


def _scan_onnx(content: bytes) -> tuple[dict[str, str], str]:
    total = hashlib.sha256()
    entries: dict[str, str] = {}
    view = memoryview(content)
    for number, start, body, end in fields(view):
        if number == _METADATA:
            key, value = _entry(view[body:end])
            if key in entries:
                raise ValueError(f"two entries {key}")
            entries[key] = value
            if key == DIGEST_KEY:
                continue
        total.update(view[start:end])
    return entries, total.hexdigest()


def _entry(pair: memoryview) -> tuple[str, str]:
    """Key and value of a metadata entry."""
    if len(pair) > MOST_CARD:
        raise ValueError("a card too large")
    (key,), (value,) = strings(pair, 1), strings(pair, 2)
    return key, value


def _read_zip(path: Path, content: bytes) -> tuple[str, dict[str, str], str]:
    """The format of an archive, its entries, and the digest over the rest."""
    try:
        found = archive(content, DIGEST_LENGTH)
        cards = [record for name, record in found.records.items() if name.endswith(_CARD_RECORD)]
        if len(cards) > 1 or any(len(card) > MOST_CARD for card in cards):
            raise ValueError(f"it has several cards, or one of more than {MOST_CARD:,} bytes")
        entries = {DIGEST_KEY: found.comment}
        if cards:
            entries[CARD_KEY] = str(cards[0], "utf-8")
    except ValueError as error:
        raise ArtifactError(
            f"{path} is not a murho artifact, or is damaged or cut short: {_cut(error)}. Export it again."
        ) from None
    format = "pt2" if any(name.endswith(_PT2_MARK) for name in found.records) else "torchscript"
    return format, entries, zip_digest(content)
