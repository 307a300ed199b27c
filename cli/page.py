"""`murho page`: a folder with a page that forecasts a series in any browser, to be sent around or put on any server."""

import base64
import contextlib
import gzip
import json
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Table
from ..runtime.artifact import Artifact, read
from ..runtime.errors import InputError
from ..runtime.files import replacing, write_file
from ..runtime.inputs import described
from .examples import Asked, Read, read_for, say, target_of
from .page_packages import Packages, packages
from .tables import console

OURS = '<meta name="generator" content="murho page" />'
"""Tells a page that may be replaced from a folder of someone's own files."""
RUNTIME = "murho.js"
"""The module of `runtime/js` that the page's worker imports."""
INDEX = "index.html"
_ASSETS = re.compile(r"files-[0-9a-f]{8}")
_UNFINISHED = re.compile(r"\.index\.murho-.*\.html")
_NAMED = re.compile(rb'((?:src|href)=")([^"]+)')
_IMPORTS = re.compile(r'^(?:import|export|\}).* from "\./([\w.]+)";', re.MULTILINE)


def page(artifact: Path, data: Path, asked: Asked, out: Path, folder: Path | None) -> None:
    opened = read(artifact)
    _check_shown(opened)
    target = target_of(opened.card, asked)
    found = read_for(opened.card, data, Asked(asked.date, asked.columns, (target,), asked.window), [target])
    found.inputs(latest=True)  # checks that there is a window
    values = opened.card.scaling.values
    if values != "levels" and found.columns[0] != target:
        raise InputError(
            f"{artifact} adds {values} to the first column that it reads, {found.columns[0]!r}, so that is its target; "
            f"--target is {target!r}."
        )
    _check_free(out)
    with console.status("Asking for the page's packages …"):
        fetched = packages(folder)
    files = _files(opened, found, target, data.name, fetched)
    _write(out, files)
    say(found.table.repairs)
    size = sum(len(content) for content in files.values()) / 1e6
    console.print(
        f"{out}: {size:.1f} MB in {len(files)} files. Open {out / 'index.html'}, or put the folder on a server."
    )


def _check_shown(artifact: Artifact) -> None:
    """Raises InputError for what a page cannot show."""
    card = artifact.card
    if artifact.format != "onnx":
        raise InputError(f"A page runs ONNX artifacts; {artifact.path} is {artifact.format}. Export it as .onnx too.")
    shape = card.input.shape
    if len(card.inputs) != 1 or len(shape) != 3 or len(card.output.shape) != 2 or card.task == "classification":
        raise InputError(
            "A page shows forecasts of a series, by a network that reads [batch, time, feature] and answers "
            f"[batch, step]. {artifact.path} reads [{described(card.input)}], answers [{described(card.output)}], its "
            f"task is {card.task}."
        )


def _files(artifact: Artifact, read: Read, target: str, name: str, found: Packages) -> dict[str, bytes]:
    """Every file of the page by its name."""
    ours = resources.files(__package__) / "page_files"
    files = {file.name: file.read_bytes() for file in ours.iterdir() if file.name != "worker.js"}
    engine = {
        "worker": (ours / "worker.js").read_text(encoding="utf-8"),
        "runtime": _packed(found.runtime),
        "wasm": _packed(found.wasm),
        "modules": _modules(RUNTIME),
    }
    shown = {
        "artifact": {"name": artifact.path.name, "packed": _packed(artifact.content)},
        "series": {
            "name": name,
            "target": target,
            "reads": read.columns,
            "window": read.window,
            "columns": read.table.columns,
            "rows": [[float(str(value)) for value in row] for row in read.table.values],
            "dates": _dates(read.table),
        },
    }
    return files | {
        "engine.js": _script("murhoEngine", engine),
        "data.js": _script("murhoData", shown),
        "uPlot.iife.min.js": found.chart,
        "uPlot.min.css": found.chart_style,
        "licences.txt": found.licences.encode(),
    }


def _packed(content: bytes) -> str:
    """In base64, gzipped: a script that a page opened from a disk may load, and a third of the size."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _script(name: str, value: Any) -> bytes:
    return f"const {name} = {json.dumps(value, ensure_ascii=False, separators=(',', ':'), allow_nan=False)};\n".encode()


def _modules(entry: str) -> list[tuple[str, str]]:
    """The runtime's JavaScript modules that `entry` needs, each after those that it imports, as (file, source)."""
    folder = resources.files("murho.runtime") / "js"
    found: dict[str, str] = {}

    def add(file: str) -> None:
        source = (folder / file).read_text(encoding="utf-8")
        for needed in _IMPORTS.findall(source):
            if needed not in found:
                add(needed)
        found[file] = source

    add(entry)
    return list(found.items())


def _dates(table: Table) -> list[str] | None:
    if table.dates.dtype.kind != "M":
        return None
    return [f"{text}Z" for text in np.datetime_as_string(table.dates, unit="ms")]


def _check_free(out: Path) -> None:
    if not out.exists():
        return
    index = out / INDEX
    ours = index.is_file() and OURS in index.read_text(encoding="utf-8", errors="replace")
    begun = out.is_dir() and all(_ASSETS.fullmatch(path.name) or _UNFINISHED.match(path.name) for path in out.iterdir())
    if not (ours or begun):
        raise InputError(f"{out} exists and is no page of murho's. Choose another folder with --out.")


def _write(out: Path, files: dict[str, bytes]) -> None:
    """The whole page or nothing: its files in a folder of their own, and then the index that names them.

    So at every moment the index is that of a whole page, an earlier one or this one. What earlier ones left is removed.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / INDEX) as index:
            assets = out / f"files-{_token(index)}"
            try:
                assets.mkdir()
                for name in files.keys() - {INDEX}:
                    write_file(assets / name, files[name])
                index.write_bytes(_NAMED.sub(lambda found: _beside(found, assets.name, files), files[INDEX]))
            except BaseException:
                shutil.rmtree(assets, ignore_errors=True)
                raise
        _remove_others(out)
    except OSError as error:
        raise InputError(
            f"Cannot write {out}: {error.strerror or error}. Choose a writable place with --out."
        ) from None


def _beside(found: re.Match[bytes], folder: str, files: dict[str, bytes]) -> bytes:
    name = found[2].decode()
    return found[1] + (f"{folder}/{name}" if name in files else name).encode()


def _remove_others(out: Path) -> None:
    """Remove the folders that the index no longer names, but for those that an index still to come will name.

    In this order: who has no unfinished index any more has put it in place before the index is read.
    """
    with contextlib.suppress(OSError):  # the page is in place; the next one tries again
        folders = [path for path in out.iterdir() if _ASSETS.fullmatch(path.name)]
        coming = {_token(path) for path in out.iterdir() if _UNFINISHED.match(path.name)}
        index = (out / INDEX).read_text(encoding="utf-8")
        for folder in folders:
            if _token(folder) not in coming and folder.name not in index:
                shutil.rmtree(folder, ignore_errors=True)


def _token(path: Path) -> str:
    """The random end of a name, by which a folder of files and its index know each other."""
    return path.stem[-8:]
