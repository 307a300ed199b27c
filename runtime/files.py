"""Put a file in place whole or not at all: the one way in which murho writes files.

The content goes to a temporary file beside the target, onto the disk, and then takes the target's name in one step of
the file system. So whatever stops a writer, the target is the old file or the new one, whole, and of several writers
at once the last one wins. What a killed writer leaves behind is removed by the next one of the same target.
"""

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from .errors import InputError
from .reading import irregular

LONGEST_NAME, LONGEST_SUFFIX, LONGEST_MARK = 255, 16, 40  # the first in bytes, of nearly every file system
ABANDONED_SECONDS = 24 * 3600
"""Age of a temporary file after which no writer can still want it, where its process cannot be asked for."""
TRIES = 50 if os.name == "nt" else 1
"""Windows refuses to replace a file that another process looks at, which virus scanners do for some milliseconds."""
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_OF_WRITING = (*_FULL, errno.EIO, errno.EROFS)
"""What a write to an open file fails with, which then has no file's name."""
_MARK = re.compile(r"\.murho-([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{8}")
"""In the name of a temporary file: the machine, the process, and a random number."""


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all, as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a new empty file to write to, beside `path` and of the same suffix, which takes its place at the end.

    After an error inside, or a failure to write, `path` is what it was before. A symbolic link stays, and what it names
    is replaced. A replaced file keeps its permissions. Any number of threads and processes may replace one file.

    Raises InputError where `path` cannot be written: no folder, no permission, a full disk, a name too long, anything
    but a regular file.
    """
    target, before = check_writable(path)
    try:
        temporary = _created(target, Path(path).suffix, before)
    except (OSError, ValueError) as error:
        _refuse(path, error)
    try:
        try:
            yield temporary
        except OSError as error:
            if error.filename in (temporary, str(temporary)) or (error.filename is None and error.errno in _OF_WRITING):
                _refuse(path, error)
            raise
        try:
            _flush(temporary)
            if before is not None:
                _permit(temporary, before)
            _replace(temporary, target)
        except OSError as error:
            _refuse(path, error)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _flush_folder(target.parent)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what is thrown away at the end. Raises InputError where the system has no room for one."""
    import tempfile  # only here: predicting needs none

    try:
        with tempfile.TemporaryDirectory(prefix="murho-") as name:
            yield Path(name)
    except OSError as error:
        raise InputError(
            f"Cannot work in the system's temporary folder: {error.strerror or error}. Name another one with the "
            "environment variable TMPDIR."
        ) from None


def check_writable(path: str | os.PathLike[str]) -> tuple[Path, os.stat_result | None]:
    """The file that `path` leads to, and what the system says of it, None where there is none yet.

    Raises InputError for what `replacing` would refuse before it writes anything.
    """
    try:
        path = Path(path)
        found = _status(path)
        target = Path(os.path.realpath(path))
        parent = target.parent.is_dir()
    except (OSError, ValueError) as error:
        _refuse(path, error)
    except TypeError:
        raise InputError(f"A file's name must be a str or a pathlib.Path, not {path!r}.") from None
    if found is None:
        if not parent:
            raise InputError(f"Cannot write {path}: there is no folder {target.parent}. Make it first.")
        return target, None
    if kind := irregular(found):
        raise InputError(f"Cannot write {path}: it is {kind}. Give the name of a file.")
    if not os.access(target, os.W_OK):
        raise InputError(f"Cannot write {path}: it is read-only. Choose a writable place.")
    return target, found


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _created(target: Path, ending: str, before: os.stat_result | None) -> Path:
    """A new empty file beside the target, after what killed writers of the same target left was removed.

    The system's own mask applies to a new file's permissions. No one may read it who may not read the file before it.
    """
    ending = ending if len(ending) <= LONGEST_SUFFIX else ""
    begin = "." + _shortened(target.name.removesuffix(ending), LONGEST_NAME - LONGEST_MARK - 4 * len(ending))
    _clean(target.parent, begin, ending)
    permissions = 0o666 if before is None else before.st_mode & 0o777 | 0o600
    while True:
        temporary = target.with_name(f"{begin}.murho-{_machine()}-{os.getpid()}-{os.urandom(4).hex()}{ending}")
        try:
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, permissions))
        except FileExistsError:
            continue
        return temporary


def _shortened(name: str, most: int) -> str:
    """The name's beginning, at most so many bytes, whole characters."""
    return os.fsencode(name)[: max(most, 0)].decode(sys.getfilesystemencoding(), "ignore")


def _clean(folder: Path, begin: str, ending: str) -> None:
    """Remove temporary files of one target that no living process writes."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(begin) and name.endswith(ending):
                mark = _MARK.fullmatch(name, len(begin), len(name) - len(ending))
                if mark and abandoned(entry, mark[1], int(mark[2])):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)


def abandoned(entry: os.DirEntry[str], machine: str, process: int) -> bool:
    """Whether what `process` of `machine` began is surely no longer worked on."""
    if machine == _machine() != _UNKNOWN and not _alive(process):
        return True
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_SECONDS


_UNKNOWN = "0" * 8


def _machine() -> str:
    """Names the processes among which a process id says who is meant: one start of a machine, one container."""
    try:
        about = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8") + os.readlink("/proc/self/ns/pid")
    except OSError:
        return _UNKNOWN
    return hashlib.sha256(about.encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks only; never reached on Windows, where it would end the process
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # someone else's
    return True


def _permit(path: Path, like: os.stat_result) -> None:
    """Owner, as far as this process may give files away, and permissions."""
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(path, like.st_uid, like.st_gid)
    if stat.S_IMODE(path.stat().st_mode) != stat.S_IMODE(like.st_mode):
        os.chmod(path, stat.S_IMODE(like.st_mode))


def _flush(path: Path) -> None:
    """Onto the disk: a full one may say so only now."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """The new name onto the disk. Windows and some file systems know no such thing; the file is whole all the same."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _replace(temporary: Path, target: Path) -> None:
    for left in reversed(range(TRIES)):
        try:
            os.replace(temporary, target)
        except PermissionError:
            if not left:
                raise
            time.sleep(0.01)
        else:
            return


def _refuse(path: object, error: OSError | ValueError) -> NoReturn:
    if not isinstance(error, OSError):  # a NUL, or what the file system's encoding lacks
        raise InputError(f"Cannot write {str(path)!r}: no file can have this name ({error}). Choose another.") from None
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        raise InputError(
            f"Cannot write {path}: {reason}. Make room, or choose another place; what was there before is unchanged."
        ) from None
    raise InputError(f"Cannot write {path}: {reason}. Choose a writable place.") from None
