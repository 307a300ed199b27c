"""What is shipped: the source distribution, the wheel, its README, and the pinned environment of the tests."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2])
"""


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone, to know which files belong to it")
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    return [name for name in names if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def copy(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files in a folder whose name is no module's, without git, which would tell setuptools of them."""
    folder = tmp_path_factory.mktemp("a clone") / "murho-main"
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def built(copy: Path, kind: str, **environment: str) -> Path:
    out = copy.parent / kind
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(copy / "build", ignore_errors=True)
    command = [sys.executable, "-c", BUILD, kind, str(out)]
    subprocess.run(command, cwd=copy, env=os.environ | environment, capture_output=True, check=True)
    (path,) = out.iterdir()
    return path


def test_the_source_distribution_has_every_file(copy: Path, tracked: list[str]) -> None:
    with tarfile.open(built(copy, "sdist")) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {name for name in names if name.startswith("murho.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert names - made == set(tracked)


@pytest.mark.parametrize("compiler", [None, "false"], ids=["as usual", "no compiler"])
def test_one_wheel_for_every_python(copy: Path, tracked: list[str], compiler: str | None) -> None:
    wheel = built(copy, "wheel", **({"CC": compiler} if compiler else {}))
    assert re.fullmatch(r"murho-[0-9.]+-cp311-abi3-\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("murho/") for name in archive.namelist() if name.startswith("murho/")}
    modules = {
        name for name in tracked if name.endswith(".py") and not re.match(r"(\.ci|tests|benchmarks|examples)/", name)
    }
    assert {name for name in names if name.endswith(".py")} == modules
    if compiler:
        assert not any(name.startswith("runtime/_compiled.") and not name.endswith(".pyi") for name in names)


@pytest.fixture(scope="module")
def package() -> ModuleType:
    spec = importlib.util.spec_from_file_location("package", ROOT / ".ci" / "package.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_stands_alone(package: ModuleType) -> None:
    """A package index shows it without the files beside it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for url in ("", "https://example.org/murho"):
        targets = re.findall(r"\]\(([^)]*)\)", package.standing_alone(readme, url))
        assert all(target.startswith(("https://", "#")) for target in targets)
    text = "![Speed](docs/speed.png) of [it](docs/design.md#speed), [below](#how), [there](https://example.net)"
    assert package.standing_alone(text, "") == " of it, [below](#how), [there](https://example.net)"
    root = "https://example.org/murho"
    assert package.standing_alone(text, root).startswith(
        f"![Speed]({root}/raw/HEAD/docs/speed.png) of [it]({root}/blob/HEAD/docs/design.md#speed), [below](#how)"
    )


def required(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # of an extra that is not installed
        return []


@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="of the environment that constraints.txt pins")
def test_every_package_of_the_environment_is_pinned() -> None:
    """A package that constraints.txt lacks may change under the tests; `make constraints` writes it anew."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if not line.startswith("#")}
    needed, waiting = set[str](), [("murho", frozenset({"dev"}))]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        needed.add(name)
        for requirement in map(Requirement, required(name)):
            environments = [{"extra": extra} for extra in extras or {""}]
            if requirement.marker and not any(requirement.marker.evaluate(each) for each in environments):
                continue
            found = canonicalize_name(requirement.name), frozenset(requirement.extras)
            # torch's builds for GPUs pin these themselves.
            if found not in seen and not found[0].startswith(("nvidia-", "cuda-", "triton")):
                seen.add(found)
                waiting.append(found)
    assert needed - {"murho"} <= pinned
