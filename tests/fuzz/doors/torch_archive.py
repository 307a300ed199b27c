"""Damaged .pt and .pt2 files with a true digest, as far as they go without trust, and the check of their sizes."""

import functools
import os
import tempfile
from pathlib import Path

import mutations
import numpy as np

import murho
from murho.runtime.archive import archive
from murho.runtime.artifact import DIGEST_LENGTH, read, zip_digest
from murho.runtime.torch_check import check_pt2, check_torchscript

ABOUT = "a .pt or .pt2 file, changed in its bytes or records, its digest made anew: read, refused untrusted, its sizes."
CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance"
NAMES = ("lstm", "convolution", "paths")
SUFFIXES = (".pt", ".pt2")


@functools.cache
def corpus() -> tuple[tuple[str, bytes, dict[str, bytes]], ...]:
    found = []
    for suffix in SUFFIXES:
        for name in NAMES:
            content = (CONFORMANCE / f"{name}{suffix}").read_bytes()
            records = archive(content, DIGEST_LENGTH).records
            found.append((suffix, content, {key: bytes(body) for key, body in records.items()}))
    return tuple(found)


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


def trial(random: np.random.Generator) -> str:
    suffix, content, records = corpus()[random.integers(len(corpus()))]
    if random.random() < 0.4:
        start = content.index(b"PK\1\2") if random.random() < 0.5 else 0  # the directory is small, and full of sizes
        content = content[:start] + mutations.of_bytes(content[start:], random)
        content = content if random.random() < 0.1 else mutations.sealed_zip(content)
    else:
        content = mutations.zipped(mutations.of_records(records, random), random)
    path = folder() / f"model{suffix}"
    path.write_bytes(content)
    try:
        artifact = read(path)
    except murho.ArtifactError:
        return "refused"
    try:
        murho.load(path)
    except murho.ArtifactError as error:
        if "Such files are programs" not in str(error):
            raise AssertionError("another error") from error
    else:
        raise AssertionError("a program was opened without trust")
    try:
        (check_torchscript if artifact.format == "torchscript" else check_pt2)(artifact.content)
    except murho.ArtifactError:
        return "sizes refused"
    return "a program, not opened"


assert zip_digest  # what mutations.sealed_zip makes anew
