"""`murho page`: the folder that it writes, and the page itself in a real browser (`make test-hosts`)."""

import base64
import contextlib
import dataclasses
import functools
import gzip
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import murho
from murho.cli.examples import Asked
from murho.cli.page import _write, page
from murho.cli.page_packages import INSTALL, VERSIONS
from murho.export import to_onnx
from murho.models import Forecaster
from murho.runtime.artifact import read, sealed_onnx
from murho.train import prepare, read_series

ROOT = Path(__file__).parents[1]
CONFORMANCE = ROOT / "tests" / "conformance"
JS = ROOT / "runtime" / "js"
OURS = ROOT / "cli" / "page_files"
WINDOW, ROWS = 9, 300
CLOSE = Asked(targets=("close",))
FILES = {path.name for path in OURS.iterdir()} - {"worker.js"} | {
    "engine.js",
    "data.js",
    "uPlot.iife.min.js",
    "uPlot.min.css",
    "licences.txt",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def prices(folder: Path) -> Path:
    """Columns date, close, volume, with a gap."""
    generator = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(0.02 * generator.standard_normal(ROWS)))
    frame = pd.DataFrame({"date": pd.bdate_range("2020-01-01", periods=ROWS), "close": close})
    frame["volume"] = generator.uniform(1000, 2000, ROWS)
    frame.loc[50, "close"] = np.nan
    frame.to_csv(folder / "prices.csv", index=False)
    return folder / "prices.csv"


@pytest.fixture(scope="module")
def artifacts(folder: Path) -> dict[str, Path]:
    """The conformance folder's networks, their cards saying a window: one step, and calibrated paths of four."""
    made = {}
    for name, source in (("one", "lstm"), ("paths", "paths")):
        found = read(CONFORMANCE / f"{source}.onnx")
        card = dataclasses.replace(found.card, training={"window": WINDOW}, name=f"Prices, {name}")
        made[name] = folder / f"{name}.onnx"
        made[name].write_bytes(sealed_onnx(found.content, card))
    return made


@pytest.fixture(scope="module")
def stand_ins(folder: Path) -> Path:
    """A node_modules folder with the packages' names, versions and files, but other contents."""
    root = folder / "node_modules"
    for name, files in {
        "onnxruntime-web": ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"),
        "uplot": ("LICENSE", "dist/uPlot.iife.min.js", "dist/uPlot.min.css"),
    }.items():
        (root / name / "dist").mkdir(parents=True)
        (root / name / "package.json").write_text(json.dumps({"version": VERSIONS[name]}))
        for file in files:
            (root / name / file).write_text(f"the text of {file}")
    return root


def assets(out: Path) -> Path:
    """The folder of a page's files, which its index names; there is nothing else."""
    (found,) = set(out.iterdir()) - {out / "index.html"}
    named = set(re.findall(r'(?:src|href)="(files-\w+)/', (out / "index.html").read_text(encoding="utf-8")))
    assert named == {found.name}
    return found


def assigned(script: Path, name: str) -> Any:
    text = script.read_text(encoding="utf-8")
    return json.loads(text.removeprefix(f"const {name} = ").removesuffix(";\n"))


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def test_the_folder_holds_all_that_the_page_loads(artifacts, prices, stand_ins, tmp_path, capsys) -> None:
    out = tmp_path / "deep" / "page"
    page(artifacts["paths"], prices, CLOSE, out, stand_ins)
    assert {path.name for path in assets(out).iterdir()} == FILES - {"index.html"}
    assert list(out.parent.iterdir()) == [out]

    data = assigned(assets(out) / "data.js", "murhoData")
    assert unpacked(data["artifact"]["packed"]) == artifacts["paths"].read_bytes()
    series = read_series(prices, "close")
    assert (np.array(data["series"]["rows"], np.float32) == series.values).all()
    assert data["series"]["dates"][0] == "2020-01-01T00:00:00.000Z"
    assert len(data["series"]["dates"]) == ROWS

    engine = assigned(assets(out) / "engine.js", "murhoEngine")
    assert unpacked(engine["wasm"]) == b"the text of dist/ort-wasm-simd-threaded.wasm"
    known: set[str] = set()
    for file, source in engine["modules"]:
        assert source == (JS / file).read_text(encoding="utf-8")
        needed = set(re.findall(r'from "\./([\w.]+)";$', source, re.MULTILINE)) - {file}
        assert needed <= known
        known.add(file)
    assert engine["modules"][-1][0] == "murho.js"
    said = " ".join(capsys.readouterr().err.split())
    assert "Repaired: close: 1 missing value(s) filled with the last value before" in said


def test_the_page_names_only_files_beside_it(artifacts, prices, stand_ins, tmp_path) -> None:
    page(artifacts["paths"], prices, CLOSE, tmp_path / "page", stand_ins)
    html = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    folder = assets(tmp_path / "page")
    named = {name for name in re.findall(r'(?:src|href)="([^"#]+)"', html) if not name.startswith("data:")}
    assert named <= {f"{folder.name}/{name}" for name in FILES}
    assert named > {f"{folder.name}/{name}" for name in ("engine.js", "data.js", "page.css", "licences.txt")}
    for path in (tmp_path / "page" / "index.html", *folder.iterdir()):
        if path.name in {file.name for file in OURS.iterdir()}:
            assert not re.search(r"""https?:|["'(]//""", path.read_text(encoding="utf-8")), path


def test_an_earlier_page_is_replaced_and_a_folder_of_others_is_not(artifacts, prices, stand_ins, tmp_path) -> None:
    out = tmp_path / "page"
    out.mkdir()
    page(artifacts["paths"], prices, CLOSE, out, stand_ins)  # an empty folder is free
    page(artifacts["one"], prices, CLOSE, out, stand_ins)
    assert assigned(assets(out) / "data.js", "murhoData")["artifact"]["name"] == "one.onnx"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(murho.InputError, match="exists and is no page of murho's"):
        page(artifacts["one"], prices, CLOSE, theirs, stand_ins)
    assert [path.name for path in theirs.iterdir()] == ["index.html"]


# What stops it in the middle.

EARLIER, LATER = (
    {
        "index.html": b'<meta name="generator" content="murho page" /><link href="data:," /><script src="data.js" />',
        "data.js": name * 1000,
        "page.css": b"*",
    }
    for name in (b"earlier", b"later")
)


def shown(out: Path) -> dict[str, bytes]:
    """The page that a folder shows, whole."""
    html = (out / "index.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'src="([^"]+)"', html)
    content = (out / data).read_bytes()
    found = EARLIER if content == EARLIER["data.js"] else LATER
    assert content == found["data.js"]
    assert (out / data).with_name("page.css").read_bytes() == b"*"
    return found


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("call", ["mkdir", "write_bytes", "fsync", "replace"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_page_that_is_stopped_anywhere_leaves_a_whole_one(
    tmp_path, monkeypatch, call: str, after: bool, error: type[BaseException]
) -> None:
    owner: Any = os if call in ("fsync", "replace") else Path
    was, counted = getattr(owner, call), []
    _write(tmp_path, EARLIER)
    for at in range(1, 100):

        def stops(*arguments: Any, at: int = at, **options: Any) -> Any:
            counted.append(True)
            if len(counted) != at:
                return was(*arguments, **options)
            if after:
                was(*arguments, **options)
            raise error("no more")

        counted.clear()
        with monkeypatch.context() as patch:
            patch.setattr(owner, call, stops)
            try:
                _write(tmp_path, LATER)
            except (KeyboardInterrupt, murho.InputError):
                stopped = True
            else:
                stopped = False  # or it was nothing that matters, as where a folder cannot be flushed
        found = shown(tmp_path)
        if stopped and (call in ("mkdir", "write_bytes") or (call == "replace" and not after)):
            assert found is EARLIER
        assert stopped or found is LATER
        _write(tmp_path, EARLIER)
        assert shown(tmp_path) is EARLIER
        assets(tmp_path)
        if len(counted) < at:
            break
    assert at > 1


def test_a_page_that_was_killed_is_written_again(artifacts, prices, stand_ins, tmp_path) -> None:
    child = os.fork()
    if not child:
        was = os.replace
        os.replace = lambda old, new: os.kill(os.getpid(), 9) if new.name == "index.html" else was(old, new)
        _write(tmp_path, LATER)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 9
    assert len(list(tmp_path.iterdir())) == 2  # an index that nobody put in place, and its files
    page(artifacts["paths"], prices, CLOSE, tmp_path, stand_ins)
    assert assigned(assets(tmp_path) / "data.js", "murhoData")["artifact"]["name"] == "paths.onnx"


def test_pages_written_at_once_into_one_folder_leave_one_whole_page(tmp_path) -> None:
    _write(tmp_path, EARLIER)
    failed: list[BaseException] = []

    def writes(files: dict[str, bytes]) -> None:
        try:
            for _ in range(30):
                _write(tmp_path, files)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=writes, args=(files,)) for files in (EARLIER, LATER, EARLIER)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    shown(tmp_path)
    _write(tmp_path, LATER)
    assert shown(tmp_path) is LATER
    assets(tmp_path)


def test_what_cannot_be_shown_says_why_and_writes_nothing(artifacts, columns, prices, stand_ins, tmp_path) -> None:
    short = tmp_path / "short.csv"
    short.write_text("close\n" + "\n".join(map(str, range(1, 6))))
    nowhere = tmp_path / "nowhere"
    for source, csv, target, packages, text in (
        (CONFORMANCE / "lstm.pt", prices, "close", stand_ins, "A page runs ONNX artifacts"),
        (CONFORMANCE / "convolution.onnx", prices, "close", stand_ins, "A page shows forecasts of a series"),
        (CONFORMANCE / "lstm.onnx", prices, "close", stand_ins, "does not say how many rows it reads"),
        (prices, prices, "close", stand_ins, "is not a murho artifact"),
        (artifacts["one"], prices, "open", stand_ins, "There is no column 'open'. The columns are: date, close"),
        (artifacts["one"], tmp_path / "none.csv", "close", stand_ins, "There is no file"),
        (artifacts["one"], short, "close", stand_ins, "windows of 9 rows, but .* has 5"),
        (columns, prices, "open", stand_ins, "There is no column 'open'"),
        (artifacts["one"], prices, "close", nowhere, re.escape(f"no package onnxruntime-web in {nowhere}. ")),
    ):
        with pytest.raises(murho.MurhoError, match=text):
            page(source, csv, Asked(targets=(target,)), tmp_path / "page", packages)
    assert [path.name for path in tmp_path.iterdir()] == ["short.csv"]


def test_another_version_of_a_package_is_refused(artifacts, prices, stand_ins, tmp_path) -> None:
    other = Path(shutil.copytree(stand_ins, tmp_path / "node_modules"))
    (other / "uplot" / "package.json").write_text('{"version": "1.0.0"}')
    with pytest.raises(
        murho.InputError, match=re.escape(f"uplot 1.0.0; the page is made for 1.6.32. Install it with: {INSTALL}")
    ):
        page(artifacts["one"], prices, CLOSE, tmp_path / "page", other)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (None, "there is no npm here"),
        (
            "#!/bin/sh\necho 'npm error 404 Not Found' >&2\nexit 1\n",
            "npm cannot get onnxruntime-web.*: npm error 404 Not Found",
        ),
    ],
)
def test_without_npm_s_packages_the_error_names_the_command(
    artifacts, prices, tmp_path, monkeypatch, script: str | None, text: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if script:
        (programs / "npm").write_text(script)
        (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/bin" if script else str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(murho.InputError, match=text) as error:
        page(artifacts["one"], prices, CLOSE, tmp_path / "page", None)
    assert INSTALL in str(error.value)
    assert not (tmp_path / "page").exists()
    assert not list((tmp_path / "cache").rglob("*-*"))


# The page in a browser. One visit does all; each test looks at a part of what it saw.

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SEED = 2**53 + 1  # no number of JavaScript


@pytest.fixture(scope="module")
def columns(folder: Path, prices: Path) -> Path:
    """A network that reads two columns and answers two steps at once."""
    data = prepare(read_series(prices, "close", ["volume"]), WINDOW, 2, values="differences")
    torch.manual_seed(0)
    network = Forecaster(hidden=4, features=2, horizon=2, learned_noise=True, posterior_rho_init=-2.0)
    about: dict[str, Any] = {"scaling": data.scaling, "noise": murho.Noise(), "task": "forecast"}
    about |= {"input_names": data.columns, "training": {"window": WINDOW}}
    to_onnx(network, folder / "columns.onnx", data.train.x[:32], **about)
    return folder / "columns.onnx"


@pytest.fixture(scope="module")
def files(folder: Path, artifacts: dict[str, Path], columns: Path, prices: Path) -> dict[str, Path]:
    """What is given to the page."""
    whole = artifacts["one"].read_bytes()
    frame = pd.read_csv(prices)
    other = pd.DataFrame({"first": frame["volume"], "second": 40 + np.arange(ROWS) % 7})
    gap = other.assign(first=other["first"].where(~other.index.isin(range(20, 30))))
    made = {"one": artifacts["one"], "columns": columns, "original": prices, "images": CONFORMANCE / "convolution.onnx"}
    zero = frame.assign(close=frame["close"].where(frame.index < ROWS - 1, 0.0))
    for name, content in (
        ("zero.csv", zero.to_csv(index=False).encode()),
        ("broken.onnx", whole[:-2000]),
        ("other.csv", other.to_csv(index=False).encode()),
        ("gap.csv", gap.to_csv(index=False).encode()),
        ("text.csv", b"a,b\nx,y\n"),
    ):
        made[Path(name).stem] = folder / name
        made[Path(name).stem].write_bytes(content)
    return made


@pytest.fixture(scope="module")
def seen(folder: Path, artifacts: dict[str, Path], files: dict[str, Path], prices: Path) -> Iterator[dict[str, Any]]:
    """What the browser saw of a page with paths of four steps; packages from npm, into a cache of its own."""
    missing = [name for name in ("playwright-core", "axe-core") if not (JS / "node_modules" / name).is_dir()]
    if not Path(CHROMIUM).exists() or missing:
        pytest.fail(f"This test needs Chromium at {CHROMIUM} and {missing or 'nothing'} from npm: make test-hosts")
    out = folder / "page"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        page(artifacts["paths"], prices, CLOSE, out, None)
    screenshots = Path(os.environ.get("SCREENSHOTS", folder))
    with served(out) as url:
        plan = {
            "url": url,
            "file": (out / "index.html").as_uri(),
            "chromium": CHROMIUM,
            "packages": str(JS / "package.json"),
            "screenshots": str(screenshots),
            "files": {name: str(path) for name, path in files.items()},
            "seed": str(SEED),
        }
        (folder / "plan.json").write_text(json.dumps(plan))
        command = ["node", str(ROOT / "tests" / "page_in_chromium.mjs"), str(folder / "plan.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"url": url}


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def agrees(shown: dict[str, Any], path: Path, rows: np.ndarray) -> None:
    """The page's answer is Python's, and the table shows it."""
    answer = shown["answer"]
    window = rows[answer["end"] - WINDOW : answer["end"]][np.newaxis].astype(np.float32)
    model = murho.load(path)
    expected = model.predict(window, answer["draws"], tuple(answer["levels"]), int(answer["seed"]))
    # Arithmetic in another order, and what float32 loses by storing raw units: as in the conformance file.
    raw = np.abs(expected.samples).max()
    limit = 1e-5 * np.abs(expected.samples - expected.mean).max() + 1.2e-7 * raw
    for name in ("mean", "std", "lower", "upper"):
        found = np.array(answer[name])
        np.testing.assert_allclose(found, getattr(expected, name)[..., 0, :], rtol=0, atol=limit, err_msg=name)
    np.testing.assert_allclose(answer["paths"], expected.samples[: len(answer["paths"]), 0], rtol=0, atol=limit)
    head, *body = shown["table"]
    levels = [f"{100 * level:.4g}" for level in answer["levels"]]
    ends = [f"{end} {level} %" for level in levels for end in ("Lower", "Upper")]
    assert head[: 3 + len(ends)] == ["When", "Mean", "Standard deviation", *ends]
    assert len(body) == expected.mean.shape[1]
    for step, row in enumerate(body):
        values = [answer["mean"][step], answer["std"][step]]
        values += [answer[end][k][step] for k in range(len(levels)) for end in ("lower", "upper")]
        for cell, value in zip(row[1:], values, strict=False):
            decimals = len(cell.partition(".")[2])
            assert (
                cell.replace(",", "").replace("−", "-") == f"{value:.{decimals}f}"
                or abs(float(cell.replace(",", "").replace("−", "-")) - value) <= 0.5001 * 10.0**-decimals
            )


@pytest.fixture(scope="module")
def close(prices: Path) -> np.ndarray:
    return read_series(prices, "close").values


@pytest.fixture(scope="module")
def days(prices: Path) -> list[str]:
    """The rows' dates as the page writes them."""
    return [f"{day.day} {day:%b %Y}" for day in pd.read_csv(prices, parse_dates=["date"])["date"]]


@pytest.mark.hosts
def test_it_opens_with_python_s_forecast(seen, artifacts, close, days) -> None:
    first = seen["first"]
    agrees(first, artifacts["paths"], close)
    answer = first["answer"]
    assert (answer["end"], answer["draws"], answer["seed"], answer["chosen"]) == (ROWS, 256, "0", 0.9)
    assert answer["levels"] == [0.5, 0.8, 0.9, 0.95]
    assert first["drawn"] == 1
    low, high = (answer[end][2][-1] for end in ("lower", "upper"))
    text = first["summary"]
    assert text.startswith(f"90 % interval for close, 4 steps after {days[-1]}: ")
    numbers = [float(number) for number in re.findall(r"(?<=[:\s])\d+\.\d+", text)]
    assert numbers == pytest.approx([low, high, answer["mean"][-1]], abs=0.05)
    assert first["chart"] == f"Chart of close and its forecast. {text}"
    assert re.fullmatch(r"[\d.]+ ms for 256 draws, [\d,]+ draws per second\.", first["speed"])
    assert first["truth"] == ""


@pytest.mark.hosts
def test_it_loads_nothing_from_elsewhere_and_reports_no_error(seen) -> None:
    places = {url.split(":")[0] for url in seen["requests"] if not url.startswith(seen["url"])}
    assert places <= {"blob", "data", "file"}
    assert seen["errors"] == []


@pytest.mark.hosts
def test_the_sliders_change_what_is_asked(seen, artifacts, close, days) -> None:
    for name, part, value, spoken in (
        ("seed", "seed", "1", "1"),
        ("level", "chosen", 0.89, "89 %"),
        ("draws", "draws", 512, "512"),
        ("back", "end", ROWS - 10, days[-11]),
    ):
        shown = seen[name]
        agrees(shown, artifacts["paths"], close)
        assert (shown["answer"][part], shown["spoken"]) == (value, spoken)
    assert seen["seed"]["answer"]["mean"] != seen["first"]["answer"]["mean"]
    assert seen["level"]["answer"]["mean"] == seen["seed"]["answer"]["mean"]


@pytest.mark.hosts
def test_a_window_moved_back_shows_what_followed(seen, close, days) -> None:
    back = seen["back"]
    answer, truth = back["answer"], close[ROWS - 10 : ROWS - 6, 0]
    k = answer["levels"].index(0.89)
    inside = sum(low <= y <= high for low, y, high in zip(answer["lower"][k], truth, answer["upper"][k], strict=True))
    assert back["truth"] == f"Of the 4 values that followed, {inside} lie inside the 89 % intervals."
    assert back["table"][0][-1] == "What followed"
    assert [float(row[-1]) for row in back["table"][1:]] == pytest.approx(truth.tolist(), abs=0.05)
    assert "24 single draws" in seen["legend"]
    assert "what followed" in seen["legend"]
    assert re.fullmatch(f"({'|'.join(days)}): [\\d.]+", seen["readout"])


@pytest.mark.hosts
def test_seeds_beyond_a_javascript_number_stay_exact(seen, artifacts, close) -> None:
    assert seen["large"]["answer"]["seed"] == str(SEED)
    agrees(seen["large"], artifacts["paths"], close)
    assert seen["noSeed"] == "A seed is a whole number, not many."


@pytest.mark.hosts
def test_what_cannot_be_used_is_explained_and_changes_nothing(seen, artifacts, close) -> None:
    for name, text in (
        ("broken", "broken.onnx is not a murho artifact, or is cut short"),
        ("images", "does not forecast a series"),
        ("gap", "Column first of gap.csv lacks more than 5 values in a row, up to row 26."),
        ("text", "text.csv has no column of numbers. Its columns are: a, b."),
    ):
        assert text in seen[name]["alert"]
        assert seen[name]["answer"] == seen["large"]["answer"]
    assert seen["focus"] == "file"


@pytest.mark.hosts
def test_a_window_without_an_answer_shows_why_and_no_number(seen, artifacts, close) -> None:
    """The network reads returns, and the series' last value is 0."""
    assert "has a last value of 0, of which there are no returns" in seen["zero"]["alert"]
    assert seen["hidden"] == ["hidden"] * 3
    assert seen["quiet"]
    agrees(seen["before"], artifacts["paths"], close)
    assert seen["before"]["answer"]["end"] == ROWS - 1


@pytest.mark.hosts
def test_other_artifacts_and_series_are_opened_by_button_and_by_drop(
    seen, artifacts, columns, files, close, days
) -> None:
    assert seen["one"]["alert"] is None
    agrees(seen["one"], artifacts["one"], close)
    assert seen["one"]["title"] == "Prices, one"
    assert f"1 step after {days[-1]}: " in seen["one"]["summary"]
    other = pd.read_csv(files["other"]).to_numpy(np.float32)
    agrees(seen["other"], artifacts["one"], other[:, :1])
    assert "interval for first, 1 step after row 300" in seen["other"]["summary"]
    agrees(seen["column"], artifacts["one"], other[:, 1:])
    both = read_series(files["original"], "close", ["volume"])
    assert seen["dropped"]["alert"] is None
    agrees(seen["dropped"], columns, both.values)


@pytest.mark.hosts
def test_it_works_by_double_click_too(seen) -> None:
    local, first = seen["local"], seen["first"]
    assert {**local["answer"], "milliseconds": 0} == {**first["answer"], "milliseconds": 0}
    assert local["summary"] == first["summary"]


@pytest.mark.hosts
def test_it_is_accessible(seen) -> None:
    assert seen["axe"] == {"light": [], "dark": []}
    controls = ["skip", "origin", "level", "draws", "seed-value", "seed", "history", "paths", "file"]
    assert seen["tabbed"][: len(controls)] == controls
    assert seen["overflow"] <= 0


# What the page makes of a card and a table, without a browser

FIT = """
const { readFileSync } = require("fs");
const element = new Proxy({}, { get: () => undefined, set: () => true });
globalThis.window = globalThis;
globalThis.document = { getElementById: () => element, documentElement: { dataset: {} } };
delete globalThis.DecompressionStream; // so that the page stops before it starts
const [csv, page, cases] = [1, 2, 3].map((k) => readFileSync(process.argv[k], "utf8"));
eval(`${csv}; ${page}; globalThis.fitting = fitting; globalThis.readCsv = readCsv; globalThis.state = state;`);
const found = JSON.parse(cases).map(({ card, text, target }) => {
  try {
    const { rows, values, columns, target: shown, window } = fitting(card, readCsv(text, "table"), target);
    return { last: rows.at(-1), value: values.at(-1), columns, shown, window };
  } catch (error) { return { error: error.message }; }
});
console.log(JSON.stringify(found));
"""


def fitted(tmp_path: Path, *cases: dict[str, Any]) -> list[dict[str, Any]]:
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    command = ["node", "-e", FIT, "--", str(OURS / "csv.js"), str(OURS / "page.js"), str(tmp_path / "cases.json")]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_page_reads_the_network_s_columns_and_shows_its_target(tmp_path: Path) -> None:
    def card(features: int, names: tuple[str, ...] = (), values: str = "levels", **more: Any) -> dict[str, Any]:
        inputs = [{"shape": [None, None, features], "names": names}]
        about = {"inputs": inputs, "outputs": [{"shape": [None, 1]}], "training": {}, "scaling": {"values": values}}
        return about | {"name": "net", "task": "forecast", **more}

    text = "day,a,b,c\n" + "\n".join(f"2020-01-0{k},{k},{10 * k},{100 * k}" for k in range(9, 0, -1))
    own = {"reads": ["b", "a"], "window": 3, "target": "a"}
    first, second, outside, changes, any_column, bare, exogenous, trained = fitted(
        tmp_path,
        {"card": card(2, **{**own, "target": "b"}), "text": text},
        {"card": card(2, **own), "text": text},
        {"card": card(2, **{**own, "target": "c"}), "text": text},
        {"card": card(2, values="differences", **own), "text": text},
        {"card": card(1, ("a",), window=3, reads=["a"], target="a"), "text": text, "target": "c"},
        {"card": card(3, window=3), "text": text},
        {"card": card(1, window=3, reads=["b"], target="c"), "text": text, "target": "a"},
        {"card": card(2, ("b", "a"), training={"window": 4, "target": "a"}), "text": text},
    )
    assert (first["last"], first["value"], first["shown"]) == ([90, 9], 90, "b")
    assert (second["last"], second["value"], second["shown"]) == ([90, 9], 9, "a")
    assert (outside["last"], outside["value"], outside["shown"]) == ([90, 9], 900, "c")
    assert changes["shown"] == "b"  # what differences are added to is the first column
    assert (any_column["last"], any_column["shown"]) == ([900], "c")
    assert (bare["last"], bare["shown"]) == ([9, 90, 900], "a")
    assert (exogenous["last"], exogenous["columns"]) == ([90], ["b"])
    assert exogenous["shown"] == "a"
    assert (trained["shown"], trained["value"], trained["window"]) == ("a", 9, 4)
