"""Writing files: whole or not at all, whatever stops it and however many write."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from murho.runtime import files
from murho.runtime.errors import InputError
from murho.runtime.files import check_writable, replacing, write_file

BOTH = pytest.mark.parametrize("write", [write_file, lambda path, content: _in_place(path, content)])
POSIX = pytest.mark.skipif(os.name == "nt", reason="what only POSIX has")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def _in_place(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@BOTH
def test_a_new_file_and_one_that_is_replaced(tmp_path: Path, write) -> None:
    path = tmp_path / "a.bin"
    for content in (b"first", b"", b"second" * 100_000):
        write(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_is_beside_the_target_and_has_its_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.onnx") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".onnx"
        assert temporary.name.startswith(".model.murho-")
        assert temporary.read_bytes() == b""


def test_an_error_inside_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_bytes(b"half" * (1 // 0))
    with pytest.raises(FileNotFoundError, match="other"), replacing(path):
        (tmp_path / "other").read_bytes()
    with pytest.raises(ConnectionError), replacing(path):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@POSIX
@BOTH
def test_a_symbolic_link_stays_and_what_it_names_is_replaced(tmp_path: Path, write) -> None:
    (tmp_path / "real").mkdir()
    real, link, chain = tmp_path / "real" / "a.bin", tmp_path / "link.bin", tmp_path / "chain.bin"
    link.symlink_to(Path("real", "a.bin"))
    chain.symlink_to(link)
    for content in (b"made", b"replaced"):  # at first the link leads nowhere
        write(chain, content)
        assert link.is_symlink()
        assert chain.is_symlink()
        assert real.read_bytes() == content
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.bin", "chain.bin", "link.bin", "real"]


@POSIX
@BOTH
def test_only_regular_files_are_replaced(tmp_path: Path, write) -> None:
    fifo, folder, loop, place = (tmp_path / name for name in ("fifo", "folder", "loop", "socket"))
    os.mkfifo(fifo)
    folder.mkdir()
    loop.symlink_to(loop)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    device = tmp_path / "device"
    device.symlink_to("/dev/null")
    for path, reason in (
        ("/dev/null", "it is a device"),
        ("/dev/full", "it is a device"),
        (device, "it is a device"),
        (fifo, "it is a pipe"),
        (folder, "it is a folder"),
        (place, "it is a socket"),
        ("", "it is a folder"),
        (loop, "symbolic links"),
    ):
        with pytest.raises(InputError, match=f"Cannot write .*{reason}"):
            write(path, b"x")
    listener.close()
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere/a.bin", "there is no folder .*nowhere. Make it first"),
        ("file/a.bin", "Not a directory"),
        ("a" * 256, "name too long"),
        ("a\0b", "no file can have this name"),
        ("\ud800", "no file can have this name"),
    ],
)
@BOTH
def test_names_that_no_file_can_have(tmp_path: Path, write, name: str, reason: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=rf"Cannot write .*{reason}"):
        write(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", [3, b"bytes", None, 1.5])
def test_what_is_no_name(path: object) -> None:
    with pytest.raises(InputError, match=r"must be a str or a pathlib\.Path, not"):
        write_file(path, b"x")


@POSIX
@pytest.mark.parametrize(
    "name", ["a" * 255, "é" * 127, "a." + "b" * 253, "é." + "é" * 126, ".hidden", "no suffix", "ü.tar.gz", "a\udcff"]
)
def test_names_as_long_and_odd_as_the_system_allows(tmp_path: Path, name: str) -> None:
    write_file(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@POSIX
def test_permissions_are_kept_and_new_files_follow_the_mask(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"")
    before = os.umask(0o027)
    try:
        write_file(new, b"x")
        assert stat.S_IMODE(new.stat().st_mode) == 0o640
        for mode in (0o600, 0o666, 0o755, 0o640):
            old.chmod(mode)
            with replacing(old) as temporary:
                assert not temporary.stat().st_mode & ~mode & 0o077  # nobody reads it who may not read the old one
                temporary.write_bytes(b"x")
            assert stat.S_IMODE(old.stat().st_mode) == mode
    finally:
        os.umask(before)


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.write_bytes(b"")
    os.chown(path, 12345, 54321)
    write_file(path, b"x")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


DENIED = """
import os, sys
from murho.runtime.errors import InputError
from murho.runtime.files import write_file
os.setgid(65534), os.setuid(65534)
for name in ("locked/new", "read_only"):
    try:
        write_file(os.path.join(sys.argv[1], name), b"x")
    except InputError as error:
        print(error)
"""


@pytest.mark.skipif(not ROOT, reason="root becomes someone else here")
def test_without_permission() -> None:
    import tempfile  # a folder that another user may enter, unlike pytest's

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "locked").mkdir(mode=0o755)
        (folder / "read_only").write_bytes(b"old")
        done = subprocess.run([sys.executable, "-c", DENIED, name], capture_output=True, text=True, check=True)
        first, second = done.stdout.splitlines()
        assert "Permission denied. Choose a writable place." in first
        assert "it is read-only. Choose a writable place." in second
        assert (folder / "read_only").read_bytes() == b"old"


@pytest.mark.skipif(not ROOT or sys.platform != "linux", reason="root mounts a small disk here")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr!r}")
    try:
        (tmp_path / "a.bin").write_bytes(b"old")
        for write in (write_file, _in_place):
            with pytest.raises(InputError, match=r"No space left on device\. Make room, .* is unchanged"):
                write(tmp_path / "a.bin", bytes(4_000_000))
            assert (tmp_path / "a.bin").read_bytes() == b"old"
            assert os.listdir(tmp_path) == ["a.bin"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@POSIX
def test_a_limit_on_the_size_of_files_leaves_the_old_file(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"File too large\. Make room"):
            write_file(path, bytes(4_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


CALLS = ("os.open", "os.close", "pathlib.Path.write_bytes", "os.chown", "os.chmod", "os.fsync", "os.replace")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failure_at_every_step_leaves_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, after: bool
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    path.chmod(0o622)
    owner, name = {"os": os, "pathlib.Path": Path}[call.rpartition(".")[0]], call.rpartition(".")[2]
    was, failed = getattr(owner, name), []

    def fails(*arguments, **options):
        if failed:
            return was(*arguments, **options)
        failed.append(True)
        if after:
            was(*arguments, **options)
        raise OSError(code, os.strerror(code), *(arguments[:1] if name == "write_bytes" else ()))

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        try:
            write_file(path, b"new")
            told = ""
        except InputError as error:
            told = str(error)
    assert failed
    if call == "os.chown":  # only as far as it may be
        assert not told
    else:
        assert told.startswith(f"Cannot write {path}: {os.strerror(code)}. ")
    assert path.read_bytes() == (b"new" if not told or (call == "os.replace" and after) else b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o622
    begun = call in ("os.open", "os.close")  # nobody knows whether there is a file
    assert begun or list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", CALLS)
def test_a_writer_that_vanishes_at_every_step_leaves_a_whole_file(tmp_path: Path, call: str) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("forks a process that ends in the middle")
    path = tmp_path / "a.bin"
    for after in (False, True):
        path.write_bytes(b"old")
        path.chmod(0o622)
        child = os.fork()
        if not child:
            owner, name = {"os": os, "pathlib.Path": Path}[call.rpartition(".")[0]], call.rpartition(".")[2]
            was = getattr(owner, name)

            def dies(*arguments, was=was, after=after, **options):
                if after:
                    was(*arguments, **options)
                os.kill(os.getpid(), 9)

            setattr(owner, name, dies)
            write_file(path, b"new")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 9
        assert path.read_bytes() == (b"new" if call == "os.replace" and after else b"old")
        assert len(list(tmp_path.iterdir())) <= 2
        write_file(path, b"newer")
        assert path.read_bytes() == b"newer"
        assert list(tmp_path.iterdir()) == [path], "what the dead writer left is still there"


def test_only_what_nobody_writes_any_more_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here, elsewhere = files._machine(), "12345678"
    names = {
        f".a.murho-{here}-{dead.pid}-00000000.bin": False,
        f".a.murho-{here}-{os.getpid()}-00000000.bin": True,
        f".a.murho-{here}-1-00000000.bin": True,
        f".a.murho-{elsewhere}-{dead.pid}-00000000.bin": True,
        f".a.murho-{elsewhere}-{dead.pid}-11111111.bin": False,  # old
        f".a.murho-{here}-{os.getpid()}-22222222.bin": False,  # old
        f".b.murho-{here}-{dead.pid}-00000000.bin": True,  # another's
        f".a.murho-{here}-{dead.pid}-00000000.txt": True,
        f".a.murho-{here}-{dead.pid}.bin": True,
        ".a.bin": True,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        if name.removesuffix(".bin")[-1] in "12":
            long_ago = time.time() - files.ABANDONED_SECONDS - 60
            os.utime(tmp_path / name, (long_ago, long_ago))
    if here == files._UNKNOWN:
        pytest.skip("this system does not say which machine it is")
    write_file(tmp_path / "a.bin", b"x")
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", *(name for name, stays in names.items() if stays)}


def test_many_threads_and_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    code = (
        "import sys; from murho.runtime.files import write_file\n"
        "for k in range(40): write_file(sys.argv[1], bytes([int(sys.argv[2]) + k % 3]) * 300_000)"
    )
    write_file(path, bytes(300_000))
    processes = [subprocess.Popen([sys.executable, "-c", code, path, str(n)]) for n in (10, 20)]
    failed: list[BaseException] = []

    def writes(value: int) -> None:
        try:
            for _ in range(40):
                write_file(path, bytes([value]) * 300_000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=writes, args=(value,)) for value in range(1, 5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or any(process.poll() is None for process in processes):
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
    assert not failed
    assert [process.returncode for process in processes] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


def test_what_windows_refuses_for_a_moment_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    was, refused = os.replace, []

    def busy(*arguments) -> None:
        refused.append(arguments)
        if len(refused) < 4:
            raise PermissionError(errno.EACCES, "used by another process")
        was(*arguments)

    monkeypatch.setattr(files, "TRIES", 5)
    monkeypatch.setattr(os, "replace", busy)
    write_file(tmp_path / "a.bin", b"x")
    assert (tmp_path / "a.bin").read_bytes() == b"x"
    monkeypatch.setattr(files, "TRIES", 1)
    refused.clear()
    with pytest.raises(InputError, match="used by another process"):
        write_file(tmp_path / "a.bin", b"y")


def test_a_check_before_work_writes_nothing(tmp_path: Path) -> None:
    assert check_writable(tmp_path / "a.bin") == (tmp_path.resolve() / "a.bin", None)
    assert not list(tmp_path.iterdir())
