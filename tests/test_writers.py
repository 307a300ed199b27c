"""Every file that murho writes goes through `runtime/files.py`; and what users see of a full disk."""

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import murho
from murho.cli.app import app
from murho.export import required_operators, to_onnx, to_ort, to_pt2, to_torchscript
from murho.models import Forecaster
from murho.train import builtin_series, fit, load_checkpoint, prepare, save_checkpoint

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "data", "models", "export", "train", "evaluation", "cli")
THE_WRITER = Path("runtime", "files.py")

METHODS = {
    "write_text", "write_bytes", "touch", "symlink_to", "hardlink_to", "rename", "savefig", "imsave", "savez", "tofile",
    "savez_compressed", "savetxt", "to_csv", "to_parquet", "to_pickle", "dump", "mkstemp", "NamedTemporaryFile",
    "writestr", "unpack_archive", "extract", "extractall",
}  # fmt: skip
"""Functions and methods that write a file where they are given a path."""
OF_MODULES = {
    "os": {"replace", "rename", "renames", "link", "symlink", "truncate"},
    "shutil": {"copy", "copy2", "copyfile", "copyfileobj", "copytree", "move"},
    "np": {"save"},
    "torch": {"save"},
    "torch.jit": {"save"},
    "torch.export": {"save"},
    "onnx": {"save"},
}


def may_write(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Attribute):
        name, of = call.func.attr, ast.unparse(call.func.value)
        if name == "rename" and any(keyword.arg == "columns" for keyword in call.keywords):  # of a table
            return False
        if name in METHODS or name in OF_MODULES.get(of, ()):
            return True
        if of == "tarfile":
            return False
    else:
        name = getattr(call.func, "id", "")
    modes = [part.value for part in (*call.args, *(keyword.value for keyword in call.keywords)) if _is_mode(part)]
    return name in ("open", "fdopen") and any(set(mode) & set("wax+") for mode in modes)


def _is_mode(part: ast.expr) -> bool:
    return isinstance(part, ast.Constant) and isinstance(part.value, str) and set(part.value) <= set("rwaxbt+")


def writes(source: str) -> list[str]:
    """What in a module may write a file in another way than through the writer."""
    found = []
    for scope in ast.walk(ast.parse(source)):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            continue
        own = list(_own(scope))
        fine = {
            target.id
            for node in own
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("io.BytesIO(")
            for target in node.targets
            if isinstance(target, ast.Name)
        } | {
            item.optional_vars.id
            for node in own
            if isinstance(node, ast.With)
            for item in node.items
            if isinstance(item.optional_vars, ast.Name) and ast.unparse(item.context_expr).startswith("replacing(")
        }
        for call in (node for node in own if isinstance(node, ast.Call) and may_write(node)):
            of = [call.func.value] if isinstance(call.func, ast.Attribute) else []
            into_fine = any(isinstance(part, ast.Name) and part.id in fine for part in (*of, *call.args))
            gives_text = ast.unparse(call.func).endswith(".to_csv") and not call.args
            if not (into_fine or gives_text):
                found.append(ast.unparse(call))
    return found


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function but not of those inside it."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _own(node)


NO_FILES = {
    ("runtime/artifact.py", "target.writestr(zipfile.ZipInfo(name), source.read(name))"),  # into memory
    ("runtime/artifact.py", "target.writestr(zipfile.ZipInfo(name), card.to_json())"),
    ("runtime/frames.py", "dates.rename(name)"),  # a column
}
"""What has such a name and writes no file."""


def test_no_module_writes_files_by_itself() -> None:
    modules = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    modules = [path for path in modules if path != THE_WRITER and "node_modules" not in path.parts]
    assert len(modules) > 50
    found = {(path.as_posix(), text) for path in modules for text in writes((ROOT / path).read_text(encoding="utf-8"))}
    assert found - NO_FILES == set(), "write files with murho.runtime.files, whole or not at all"
    assert found >= NO_FILES, "an exception that is no longer needed"


@pytest.mark.parametrize(
    "line",
    [
        "Path('a').write_text('x')",
        "path.write_bytes(b'x')",
        "open(path, 'w')",
        "path.open('ab')",
        "io.open(path, mode='r+')",
        "os.fdopen(number, 'wb')",
        "figure.savefig(path)",
        "np.savez(path, a=1)",
        "torch.save({}, path)",
        "torch.jit.save(module, path)",
        "frame.to_csv(path)",
        "json.dump({}, file)",
        "os.replace(a, b)",
        "a.rename(b)",
        "shutil.copy(a, b)",
        "tar.extractall(folder)",
    ],
)
def test_the_search_finds(line: str) -> None:
    assert writes(f"def f(path):\n    {line}\n")


@pytest.mark.parametrize(
    "lines",
    [
        "content = io.BytesIO()\n    np.savez(content, a=1)",
        "with replacing(path) as new:\n        new.write_bytes(b'x')",
        "frame.to_csv(index=False)",
        "path.open('rb')",
        "open(path)",
    ],
)
def test_the_search_lets_pass(lines: str) -> None:
    assert not writes(f"def f(path):\n    {lines}\n")


# A full disk. Every kind of file is written to a disk of 16 kB, where an old one of the same name lies.


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for no file of murho's."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("root mounts a small disk here")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr!r}")
    try:
        (disk / "filling").write_bytes(bytes(8192))
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "checkpoint.pt"
    data = prepare(builtin_series(), 5, 1)
    torch.manual_seed(0)
    fit(Forecaster(hidden=4), data, epochs=1, batch_size=512, checkpoint=path)
    return path


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streaming") / "stream.onnx"
    torch.manual_seed(0)
    to_onnx(Forecaster(hidden=16), path, torch.randn(4, 5, 1), streaming=True)
    return path


def _streamed(artifact: Path, path: Path) -> None:
    stream = murho.load(artifact).stream(draws=256)
    stream.step(np.zeros((1, 1), np.float32))
    stream.save(path)


def _kept(checkpoint: Path, path: Path) -> None:
    save_checkpoint(path, load_checkpoint(checkpoint))


def _network() -> nn.Module:
    torch.manual_seed(0)
    return Forecaster(hidden=16)


WRITERS: dict[str, Callable[[Path, Path, Path], Any]] = {
    "a.onnx": lambda checkpoint, artifact, path: to_onnx(_network(), path, torch.randn(4, 5, 1)),
    "a.pt": lambda checkpoint, artifact, path: to_torchscript(_network(), path, torch.randn(4, 5, 1)),
    "a.pt2": lambda checkpoint, artifact, path: to_pt2(_network(), path, torch.randn(4, 5, 1)),
    "a.ort": lambda checkpoint, artifact, path: to_ort(artifact, path),
    "saved.onnx": lambda checkpoint, artifact, path: murho.load(artifact).save(path),
    "stream.npz": lambda checkpoint, artifact, path: _streamed(artifact, path),
    "checkpoint.pt": lambda checkpoint, artifact, path: _kept(checkpoint, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_and_leaves_the_old_file(full: Path, trained: Path, streaming: Path, name: str) -> None:
    path = full / name
    path.write_bytes(b"old")
    with pytest.raises(murho.InputError, match=rf"Cannot write .*{name}: No space left on device\. Make room"):
        WRITERS[name](trained, streaming, path)
    assert path.read_bytes() == b"old"
    assert {found.name for found in full.iterdir()} == {name, "filling"}


@pytest.mark.parametrize("suffix", [".onnx", ".pt"])
def test_the_command_export_says_that_the_disk_is_full(full: Path, trained: Path, suffix: str) -> None:
    path = full / f"model{suffix}"
    path.write_bytes(b"old")
    done = CliRunner().invoke(app, ["export", str(trained), str(path)])
    assert isinstance(done.exception, murho.InputError)
    assert "No space left on device. Make room" in str(done.exception)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("write", [to_ort, required_operators])
def test_a_full_folder_for_temporary_files_is_said(
    full: Path, streaming: Path, tmp_path: Path, write, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(full))
    with pytest.raises(murho.MurhoError, match="Failed to save ORT format model to file"):  # ONNX Runtime's words
        write(streaming, tmp_path / "net.ort")
    assert not (tmp_path / "net.ort").exists()
    monkeypatch.setattr(tempfile, "tempdir", str(full / "nowhere"))
    with pytest.raises(murho.InputError, match=r"temporary folder.*No such file.*TMPDIR"):
        write(streaming, tmp_path / "net.ort")


def test_a_checkpoint_of_every_epoch_is_said_too(full: Path) -> None:
    data = prepare(builtin_series(), 5, 1)
    with pytest.raises(murho.InputError, match="No space left on device"):
        fit(Forecaster(hidden=16), data, epochs=1, batch_size=512, checkpoint=full / "checkpoint.pt")
    assert [found.name for found in full.iterdir()] == ["filling"]
