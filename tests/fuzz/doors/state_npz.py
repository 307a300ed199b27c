"""Damaged states of a stream, half of them with a true digest."""

import functools
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import mutations
import numpy as np

import murho

ABOUT = (
    "the states of a stream, changed in their bytes, arrays or archive, for half of the trials with their digest made "
    "anew: load, then two steps and save."
)
MAKE = """
import sys, torch
from blitz.modules import BayesianGRU, BayesianLinear, BayesianLSTM
from murho.export import to_onnx

class Stack(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lower, self.upper, self.head = BayesianLSTM(2, 4), BayesianGRU(4, 3), BayesianLinear(3, 1)

    def forward(self, x):
        return self.head(self.upper(self.lower(x)[0])[0][:, -1])

torch.set_num_threads(1)
torch.manual_seed(0)
to_onnx(Stack(), sys.argv[1], torch.randn(4, 6, 2), streaming=True)
"""
DRAWS = 20
DTYPES = ("<f4", ">f4", "<f8", "<f2", "<i4", "?", "<c8", "O", "V4", "U1", "S64", "<i8", "M8[s]", "(2,)<f4", "f4,f4")
VALUES = (0.0, -0.0, 1.0, -1.0, 2.0, 100.0, 1e-45, 3.4e38, float("nan"), float("inf"), float("-inf"))


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


@functools.cache
def corpus() -> tuple[murho.Model, tuple[bytes, ...]]:
    """A model, and states before the first row, and after some."""
    subprocess.run([sys.executable, "-c", MAKE, folder() / "stream.onnx"], check=True, capture_output=True)
    model = murho.load(folder() / "stream.onnx", threads=1, measure=False)
    contents = []
    for rows in (0, 1, 5):
        stream = model.stream(DRAWS)
        for _ in range(rows):
            stream.step(_row(3))
        stream.save(folder() / "stream.npz")
        contents.append((folder() / "stream.npz").read_bytes())
    return model, tuple(contents)


def _row(sequences: int) -> Any:
    return np.random.default_rng(0).standard_normal((sequences, 2))


def trial(random: np.random.Generator) -> str:
    model, contents = corpus()
    content = contents[min(random.integers(8), 2)]
    true = random.random() < 0.5
    changed = mutations.of_bytes(content, random) if random.random() < 0.3 else _changed(content, random)
    if true:
        changed = sealed(changed)
    path = folder() / "stream.npz"
    path.write_bytes(changed)
    stream = model.stream(DRAWS)
    try:
        stream.load(path)
    except murho.ArtifactError:
        return "refused"
    if not true:
        stream.save(path)
        assert path.read_bytes() == content, "accepted with a stale digest, as other states"
    sequences = next((n for n in range(1, 50) if _fits(stream, n)), None)
    assert sequences is not None, "no number of sequences goes on"
    answer = stream.step(_row(sequences))
    assert np.isfinite(answer.samples).all(), "an answer that is not finite"
    stream.save(path)
    stream.load(path)
    return "accepted, changed" if changed not in contents else "accepted as it was"


def _fits(stream: Any, sequences: int) -> bool:
    try:
        return bool(np.isfinite(stream.step(_row(sequences)).samples).all())
    except murho.InputError:
        return False


def _changed(content: bytes, random: np.random.Generator) -> bytes:
    """An archive with other members, names or arrays, or written in another way."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
        comment = archive.comment
    compression = zipfile.ZIP_STORED
    for _ in range(random.integers(1, 3)):
        place = int(random.integers(len(members)))
        name, body = members[place]
        match random.integers(9):
            case 0:
                del members[place]
                if not members:
                    break
            case 1:
                members.insert(int(random.integers(len(members) + 1)), members[place])
            case 2:
                members[place] = (str(random.choice([f"../{name}", name.upper(), "x.npy", f"{name}\0", ""])), body)
            case 3:
                members[place] = (name, mutations.of_bytes(body, random))
            case 4:
                compression = int(random.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
            case 5:
                members.append(("bomb.npy", bytes(10**6)))
            case _:
                members[place] = (name, _array(body, random))
    return mutations.zip_of(members, compression, comment)


def _array(body: bytes, random: np.random.Generator) -> bytes:
    """The file of another array, or with another head."""
    try:
        array = np.load(io.BytesIO(body))
    except Exception:
        return body
    match random.integers(8):
        case 0 if array.dtype.kind == "f" and array.size:
            array = np.array(array)
            array[tuple(random.integers(size) for size in array.shape)] = VALUES[random.integers(len(VALUES))]
        case 1:
            array = np.asfortranarray(array)
        case 2 if array.ndim:
            array = np.repeat(array, 2, axis=random.integers(array.ndim))
        case 3 if array.ndim:
            array = np.swapaxes(array, 0, random.integers(array.ndim))
        case 4 if array.dtype.kind in "fi":
            array = array * array.dtype.type(random.choice([-1, 2, 100]))
        case 5 if array.ndim:
            array = array[..., : random.integers(array.shape[-1] + 1)]
        case 6 if array.dtype.kind == "i":
            array = np.array(int(random.choice([-1, 0, 1, 2**40, 2**63 - 1])))
        case _:
            said = str(random.choice(["3", "-1", "10**9", "True", str(2**63), "None", "(((((3", "'x'"]))
            descr = DTYPES[random.integers(len(DTYPES))]
            head = f"{{'descr': {descr!r}, 'fortran_order': {random.random() < 0.2}, 'shape': ({said}, 3, 4), }}"
            head = head.ljust(117 if random.random() < 0.8 else 5000) + "\n"
            return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + array.tobytes()
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def sealed(content: bytes) -> bytes:
    """With a digest that fits, where a comment of that length stands at the end."""
    return content[:-64] + hashlib.sha256(content[:-64]).hexdigest().encode()
