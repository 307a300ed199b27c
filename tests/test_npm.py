"""runtime/js as a package of npm's: what it holds, and that it installs and bundles as its README says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

import murho

ROOT = Path(__file__).parents[1]
JS = ROOT / "runtime" / "js"
ARTIFACT = ROOT / "tests" / "conformance" / "lstm.onnx"
X = [[[100.0], [101.0], [99.0]]]
PACKAGE = json.loads((JS / "package.json").read_text())

ASK = f"""
const x = {json.dumps(X)};
const ask = async (model) => Array.from((await model.predict(x, {{ draws: 100, level: 0.9, seed: 1 }})).lower.data);
"""
PROGRAM = f"""import {{ load }} from "murho";
{ASK}
const wasm = {{ backend: "onnxruntime-web" }};
console.log(JSON.stringify([await ask(await load("model.onnx")), await ask(await load("model.onnx", wasm))]));
"""
PAGE = f"""import {{ load, loadInWorker }} from "murho";
{ASK}
document.title = JSON.stringify([await ask(await load("model.onnx")), await ask(await loadInWorker("model.onnx"))]);
"""
INDEX = '<!doctype html><meta charset="utf-8"><title>waiting</title><script type="module" src="./app.js"></script>'

pytestmark = pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")


def run(command: str, folder: Path) -> str:
    """What a command of the shell prints."""
    quiet = {"npm_config_audit": "false", "npm_config_fund": "false"}
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def commands(start: str) -> str:
    """The README's commands that begin with these words."""
    blocks = re.findall(r"```sh\n(.*?)```", (JS / "README.md").read_text(), re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(start))
    return found


def test_its_version_licence_and_types_are_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (PACKAGE["name"], PACKAGE["version"]) == (project["name"], project["version"])
    assert PACKAGE["license"] == project["license"]
    assert (JS / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (JS / PACKAGE["exports"]["."]["types"]).is_file()
    assert "private" not in PACKAGE
    assert f"murho-{PACKAGE['version']}.tgz" in (JS / "README.md").read_text()


def test_it_holds_every_module_and_no_test() -> None:
    (packed,) = json.loads(run("npm pack --dry-run --json", JS))
    files = {file["path"] for file in packed["files"]}
    modules = {path.name for path in JS.glob("*.js")}
    assert files == modules | {"murho.d.ts", "package.json", "README.md", "LICENSE"}
    imported = {name for module in modules for name in re.findall(r'"\./([\w.]+)"', (JS / module).read_text())}
    assert imported - {"murho.js", "ort.wasm.bundle.min.mjs"} <= modules


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runtime/js as a fresh clone has it: without node_modules, which would be found there."""
    copy = tmp_path_factory.mktemp("clone") / "js"
    shutil.copytree(JS, copy, ignore=shutil.ignore_patterns("node_modules", "test"))
    return copy


def project(path: Path) -> Path:
    """An empty one, with an artifact and a program."""
    (path / "package.json").write_text('{"name": "app", "version": "1.0.0", "type": "module", "private": true}')
    shutil.copy(ARTIFACT, path / "model.onnx")
    (path / "program.js").write_text(PROGRAM)
    return path


def right(text: str) -> None:
    """Two answers, both Python's."""
    expected = murho.load(ARTIFACT).predict(np.array(X, np.float32), 100, 0.9, 1).lower[0]
    np.testing.assert_allclose(json.loads(text), [expected, expected], rtol=1e-5)


@pytest.mark.hosts
@pytest.mark.parametrize("way", ["npm pack", "npm install", "a link"])
def test_node_imports_it_by_name(way: str, folder: Path, tmp_path: Path) -> None:
    place = project(tmp_path)
    written = commands("npm install" if way == "a link" else way)
    if way == "a link":
        written = written.replace(" --install-links", "")
    run(written.replace("path/to/murho/runtime/js", str(folder)), place)
    assert (place / "node_modules" / "murho").is_symlink() == (way == "a link")
    right(run("node program.js", place))


@pytest.mark.hosts
def test_vite_and_esbuild_bundle_it(folder: Path, tmp_path: Path) -> None:
    """What they make runs in Chromium, in the page and in a worker."""
    place = project(tmp_path)
    (place / "app.js").write_text(PAGE)
    (place / "index.html").write_text(INDEX)
    run(commands("npm pack").replace("path/to/murho/runtime/js", str(folder)), place)
    run("npm install --ignore-scripts --save-dev esbuild vite", place)
    run(commands("npx vite").replace("vite build", "vite build --base ./"), place)  # it is not served from the root
    run(commands("npx esbuild"), place)
    (place / "out" / "index.html").write_text(INDEX)
    pages = [place / "dist", place / "out"]
    for page in pages:
        shutil.copy(ARTIFACT, page / "model.onnx")
    titles = json.loads(run(shlex.join(["node", *map(str, (JS / "test" / "titles.mjs", *pages))]), place))
    for page in pages:
        right(titles[str(page)])
