"""Kill what writes files with signal 9 at random moments: afterwards the old file must lie there or the new one, whole.

    python benchmarks/kills.py [--moments 200] [--only export save …] [--seed 0]

For each way of writing, a process writes one version after another into one place and says when each is done. A third
of the kills falls at any time, a third within two milliseconds of the moment when something unfinished is seen beside
the target, a third within two milliseconds of the moment when the target is another file. Then the version that lies
there is opened as a user would, digest and all, and must be the last that was said to be done, or the one after it. At
the end nothing may lie there beside it.
"""

import argparse
import dataclasses
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import murho
from murho.cli.calibration import calibrate
from murho.cli.examples import Asked
from murho.cli.page import _write as write_page
from murho.export import to_onnx
from murho.models import Forecaster, Regressor
from murho.runtime.artifact import read
from murho.train import builtin_series, fit, load_checkpoint, prepare, save_checkpoint

SOON = 0.002
"""Seconds within which a kill follows the sight of something unfinished."""
TURNS = 8
"""Tables of as many lengths are calibrated with in turn."""


@dataclasses.dataclass
class Way:
    """One way of writing."""

    target: Path
    write: Callable[[int], None]
    """Write a version in place of the one before; called in a process of its own."""
    version: Callable[[], int]
    """Of what lies there, opened whole."""
    turns: int = 2**31
    """After how many versions they are the same again."""


def export(folder: Path) -> Way:
    torch.manual_seed(0)
    network, example, path = Forecaster(hidden=3), torch.randn(4, 4, 1), folder / "model.onnx"

    def write(k: int) -> None:
        _quietly(to_onnx, network, path, example, name=str(k))

    return Way(path, write, lambda: int(read(path).card.name))


def _table(folder: Path) -> tuple[Path, Path]:
    """An artifact of a regression in a folder of its own, and where the ways put theirs."""
    torch.manual_seed(0)
    apart = folder.with_name(f"{folder.name}-before")
    apart.mkdir(exist_ok=True)
    before = apart / "model.onnx"
    options: dict[str, Any] = {"input_names": ["a", "b"], "output_names": ["y"], "noise": murho.Noise(scale=(0.5,))}
    to_onnx(Regressor(2, hidden=(4,)), before, torch.randn(4, 2), **options)
    return before, folder / "model.onnx"


def _rows(path: Path) -> int:
    calibration = read(path).card.calibration
    return -1 if calibration is None else calibration.rows


def save(folder: Path) -> Way:
    before, path = _table(folder)
    x = np.random.default_rng(0).standard_normal((40 + TURNS, 2))

    def write(k: int) -> None:
        model = murho.load(before, threads=1, measure=False)
        model.calibrate(x[: 40 + k % TURNS], x[: 40 + k % TURNS, :1], (0.5,), draws=16)
        model.save(path)

    return Way(path, write, lambda: _rows(path) - 40, TURNS)


def calibrate_in_place(folder: Path) -> Way:
    before, path = _table(folder)
    path.write_bytes(before.read_bytes())
    x = np.random.default_rng(0).standard_normal((40 + TURNS, 3))
    tables = [before.with_name(f"{turn}.csv") for turn in range(TURNS)]
    for turn, table in enumerate(tables):
        np.savetxt(table, x[: 40 + turn], delimiter=",", header="a,b,y", comments="")

    def write(k: int) -> None:
        given = {"asked": Asked(), "out": None, "levels": [0.5], "half_life": None, "rows": "auto", "trusted": False}
        _quietly(calibrate, path, tables[k % TURNS], **given)

    return Way(path, write, lambda: _rows(path) - 40, TURNS)


def state(folder: Path) -> Way:
    before, _ = _table(folder)
    path, x = folder / "state.json", np.zeros((2, 2))

    def write(k: int) -> None:
        model = murho.load(before, threads=1, measure=False)
        for _ in range(k % TURNS):
            model.predict(x, draws=16)
            model.observe(np.zeros((2, 1)))
        model.save_state(path)

    def version() -> int:
        model = murho.load(before, threads=1, measure=False)
        model.load_state(path)
        assert model._online is not None
        return model._online.observed

    return Way(path, write, version, TURNS)


def stream(folder: Path) -> Way:
    torch.manual_seed(0)
    apart = folder.with_name(f"{folder.name}-before")
    apart.mkdir()
    to_onnx(Forecaster(hidden=3), apart / "model.onnx", torch.randn(4, 4, 1), streaming=True)
    path = folder / "stream.npz"

    def opened() -> Any:
        return murho.load(apart / "model.onnx", threads=1, measure=False).stream(16)

    def write(k: int) -> None:
        stream = opened()
        for _ in range(k % TURNS):
            stream.step(np.ones((50, 1)))
        stream.save(path)

    def version() -> int:
        stream = opened()
        stream.load(path)
        return int(stream.rows)

    return Way(path, write, version, TURNS)


def checkpoint(folder: Path) -> Way:
    torch.manual_seed(0)
    path = folder / "checkpoint.pt"
    data = prepare(builtin_series(), 5, 1)
    fit(Forecaster(hidden=3), data, epochs=1, batch_size=1024, progress=False, checkpoint=path)
    made = load_checkpoint(path)

    def write(k: int) -> None:
        save_checkpoint(path, dataclasses.replace(made, name=str(k)))

    return Way(path, write, lambda: int(load_checkpoint(path).name))


def page(folder: Path) -> Way:
    names = [f"{name}.js" for name in "abcdefgh"]
    html = '<meta name="generator" content="murho page" />' + "".join(f'<script src="{name}" />' for name in names)

    def write(k: int) -> None:
        write_page(folder, {"index.html": html.encode(), **{name: str(k).rjust(20).encode() * 5000 for name in names}})

    def version() -> int:
        found = (folder / "index.html").read_text(encoding="utf-8")
        contents = {(folder / part.partition('"')[0]).read_bytes() for part in found.split('src="')[1:]}
        assert len(contents) == 1, "files of more than one version"
        (content,) = contents
        assert len(content) == 100_000, "a file that is not whole"
        return int(content[:20])

    return Way(folder / "index.html", write, version)


WAYS = {
    "export": export,
    "save": save,
    "calibrate in place": calibrate_in_place,
    "state": state,
    "stream": stream,
    "checkpoint": checkpoint,
    "page": page,
}


@dataclasses.dataclass
class Found:
    old: int = 0
    new: int = 0
    unfinished: int = 0
    """Kills that left something unfinished beside the target."""


def killed(make: Callable[[Path], Way], folder: Path, moments: int, seed: int = 0) -> Found:
    """Kill as often, and count what lay there. Raises AssertionError, or what opening raises, where it is not whole."""
    random, found = np.random.default_rng(seed), Found()
    way = make(folder)
    way.write(0)
    assert way.version() == 0
    place, last, took = way.target.parent, 0, 0.1
    for moment in range(moments):
        reading, writing = os.pipe()
        started = time.monotonic()
        child = os.fork()
        if not child:
            _write_on(way, last, writing)
        os.close(writing)
        if moment % 3 == 0:
            time.sleep(random.uniform(0, 3 * took))
        else:
            _wait(way.target, moment % 3 == 1, started + 20)
            time.sleep(random.uniform(0, SOON))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, encoding="utf-8") as lines:
            said = [line.split() for line in lines.read().splitlines()]
        assert all(line[0] == "done" for line in said), said
        if said:
            last, took = int(said[-1][1]), float(said[-1][2])
        version = way.version()
        assert version in (last % way.turns, (last + 1) % way.turns), f"version {version}, after {last} was done"
        if version == last % way.turns:
            found.old += 1
        else:
            found.new += 1
            last += 1
        found.unfinished += _is_unfinished(place)
    way.write(last + 1)
    assert way.version() == (last + 1) % way.turns
    assert not _is_unfinished(place), f"{os.listdir(place)} are left"
    return found


def _write_on(way: Way, last: int, out: int) -> None:
    """In the child: version after version, until it is killed."""
    try:
        while True:
            last, started = last + 1, time.monotonic()
            way.write(last)
            os.write(out, f"done {last} {time.monotonic() - started}\n".encode())
    except BaseException as error:
        os.write(out, f"failed {error!r}\n".encode())
    finally:
        os._exit(1)


def _unfinished(place: Path) -> Iterator[str]:
    names = os.listdir(place)
    yield from (name for name in names if ".murho-" in name)
    if "index.html" in names:  # of a page, files that the index does not name
        html = (place / "index.html").read_text(encoding="utf-8")
        yield from (name for name in names if name.startswith("files-") and name not in html)


def _is_unfinished(place: Path) -> bool:
    return next(_unfinished(place), None) is not None


def _wait(target: Path, unfinished: bool, end: float) -> None:
    """Until something unfinished is seen, or the target is another file than before."""
    known, before = set(_unfinished(target.parent)), target.stat().st_ino
    while time.monotonic() < end:
        if set(_unfinished(target.parent)) - known if unfinished else target.stat().st_ino != before:
            return


def _quietly(function: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """Without what commands print."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        kept = sys.stdout
        sys.stdout = nowhere
        try:
            function(*arguments, **options)
        finally:
            sys.stdout = kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=200, help="of each way of writing")
    parser.add_argument("--only", nargs="*", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work, "place")
            folder.mkdir()
            found = killed(WAYS[name], folder, options.moments, options.seed)
        print(
            f"{name}: {options.moments} kills, the old file {found.old} times, the new one {found.new} times, whole "
            f"each time; {found.unfinished} left something unfinished, which is gone after the next write "
            f"({time.monotonic() - started:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
