"""Read the zip archives that murho writes for torch, and no others: records one after another, none compressed.

The format leaves many ways to say two things at once, and to say little that becomes much. None of them is needed:
every byte of such a file is a record's, the directory's or the comment's, and every name stands once.
"""

import struct
from dataclasses import dataclass

_END = struct.Struct(
    "<4s4H2LH"
)  # magic, disks (2), entries (2), size and place of the directory, length of the comment
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_UTF8 = 0x800
"""The only flag of an entry that may be set: its name is UTF-8 beyond ASCII."""


@dataclass(frozen=True)
class Archive:
    comment: str
    records: dict[str, memoryview]


def archive(content: bytes, comment_length: int) -> Archive:
    """The records by name. Raises ValueError, whose text says what is wrong."""
    view = memoryview(content)
    start = len(content) - comment_length - _END.size
    if start < 0:
        raise ValueError("it is too short")
    magic, *disks, here, entries, size, place, length = _END.unpack_from(content, start)
    if magic != b"PK\5\6" or length != comment_length:
        raise ValueError("its directory does not end where it must")
    if any(disks) or here != entries or place + size != start:
        raise ValueError("its directory is not whole")
    position, expected = place, 0
    records: dict[str, memoryview] = {}
    for _ in range(entries):
        if position + _ENTRY.size > start:
            raise ValueError("its directory is cut short")
        entry = _ENTRY.unpack_from(content, position)
        magic, _, _, flags, method, _, _, _, packed, unpacked, name_size, extra, remark, disk, _, _, offset = entry
        if magic != b"PK\1\2" or flags & ~_UTF8 or extra or remark or disk:
            raise ValueError("its directory holds something that murho does not write")
        if method or packed != unpacked:
            raise ValueError("a record is compressed")
        raw = content[position + _ENTRY.size : position + _ENTRY.size + name_size]
        position += _ENTRY.size + name_size
        if offset != expected or offset + _LOCAL.size + name_size + packed > place:
            raise ValueError("its records do not follow each other")
        local = _LOCAL.unpack_from(content, offset)
        body = offset + _LOCAL.size + name_size
        same = local[0] == b"PK\3\4" and local[2:4] == (flags, method) and local[7:] == (packed, unpacked, name_size, 0)
        if not same or content[body - name_size : body] != raw:
            raise ValueError("a record differs from what the directory says of it")
        name = raw.decode()  # UnicodeDecodeError is a ValueError
        if name in records or "\0" in name:
            raise ValueError(f"it has the name {name!r} twice")
        expected = body + packed
        records[name] = view[body:expected]
    if position != start or expected != place:
        raise ValueError("there is something between its records and its directory")
    return Archive(content[start + _END.size :].decode(), records)
