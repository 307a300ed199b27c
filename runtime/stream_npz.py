"""Where a stream is, as a `.npz` file that numpy reads; it has a digest and is checked whole.

The arrays are `identity` (of artifact, draws and seed: 64 hexadecimal digits), `rows`, and, once a row was read,
`state0`, `state1`, … float32 [S, B, H]. The archive's comment is the SHA-256 over all before it.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .archive import archive
from .artifact import DIGEST_LENGTH, sealed_zip, zip_digest
from .errors import InputError

States = tuple[NDArray[np.float32], ...]

MOST_BYTES = 2**31 - 1
"""Of a file: more takes an archive of another kind."""
MOST_ROWS = 2**53
"""That a stream can have read: many a lifetime's, and some are left to count on."""
LONGEST_HEAD = 1024
"""Of an array, in bytes: numpy writes 128."""


def to_npz(identity: str, rows: int, states: States | None) -> bytes:
    """The file. Raises InputError where it is larger than may be read."""
    parts = states or ()
    size = sum(state.nbytes for state in parts)
    if size > MOST_BYTES - 2**16:
        raise InputError(
            f"The states have {size / 2**30:.1f} GiB, and a file of them may have 2. Follow fewer sequences, or fewer "
            "draws, with one stream."
        )
    content = io.BytesIO()
    arrays: dict[str, Any] = {f"state{k}": np.ascontiguousarray(state, dtype="<f4") for k, state in enumerate(parts)}
    np.savez(content, identity=np.array(identity.encode()), rows=np.array(rows, dtype="<i8"), **arrays)
    return sealed_zip(content.getvalue())


def from_npz(content: bytes, identity: str, draws: int, widths: Sequence[int | None]) -> tuple[int, States | None]:
    """Rows read so far, and the states [draws, B, width] after them, None where no row was read.

    Raises ValueError, whose text says what is wrong.
    """
    found = archive(content, DIGEST_LENGTH)
    if found.comment != zip_digest(content):
        raise ValueError("its checksum differs")
    names = ["identity.npy", "rows.npy", *(f"state{k}.npy" for k in range(len(widths)))]
    if list(found.records) not in (names, names[:2]):
        raise ValueError(f"it must hold {', '.join(names)}")
    if _array(found.records[names[0]], np.dtype("S64"), ()).tobytes() != identity.encode():
        raise ValueError("it holds the states of another stream: of another artifact, other draws or another seed")
    rows = int(_array(found.records[names[1]], np.dtype("<i8"), ()).item())
    if not 0 <= rows <= MOST_ROWS or (rows == 0) != (len(found.records) == 2):
        raise ValueError(f"{rows} rows and {len(found.records) - 2} states do not go together")
    if rows == 0:
        return 0, None
    states = tuple(
        _array(found.records[name], np.dtype("<f4"), (draws, None, width)).astype(np.float32)
        for name, width in zip(names[2:], widths, strict=True)
    )
    if len({state.shape[1] for state in states}) > 1:
        raise ValueError("its states are of unlike numbers of sequences")
    # A row moves a state of an LSTM or GRU by 1 at most, whatever the weights; the rest is float32's rounding.
    if not all((np.abs(state) <= rows * 1.0001).all() for state in states):
        raise ValueError(f"its states are not finite numbers within ±{rows}, beyond which {rows} rows lead nowhere")
    return rows, states


def _array(body: memoryview, dtype: np.dtype[np.generic], shape: tuple[int | None, ...]) -> NDArray[np.generic]:
    """A view of the array in a `.npy` file, which must have this dtype and shape, in C's order; None is at least 1."""
    stream = io.BytesIO(body[:LONGEST_HEAD])
    try:
        version = np.lib.format.read_magic(stream)
        found, fortran, said = np.lib.format.read_array_header_1_0(stream)
    except Exception:  # numpy's parser raises nearly anything
        raise ValueError("the head of an array cannot be read") from None
    fits = len(found) == len(shape) and all(a == b or (b is None and a >= 1) for a, b in zip(found, shape, strict=True))
    if version != (1, 0) or fortran or said != dtype or not fits:
        raise ValueError(f"an array is {said} {found}, not {dtype} {shape}")
    data = body[stream.tell() :]
    if len(data) != dtype.itemsize * int(np.prod(found, dtype=object)):
        raise ValueError("an array is cut short")
    return np.frombuffer(data, dtype).reshape(found)
