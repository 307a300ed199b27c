"""Files from strangers: what opening one must never do."""

import contextlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import murho
from murho.runtime.artifact import DIGEST_LENGTH, SUFFIXES, zip_digest

CONFORMANCE = Path(__file__).parent / "conformance"
PROGRAM = r"Such files are programs: .* trusted=True \(--trusted in the command, MURHO_TRUSTED=1 in a service\)"


def sealed(entries: dict[str, bytes]) -> bytes:
    """A zip archive with a right digest."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, body in entries.items():
            archive.writestr(zipfile.ZipInfo(name), body)
        archive.comment = b"0" * DIGEST_LENGTH
    body = content.getvalue()
    return body[:-DIGEST_LENGTH] + zip_digest(body).encode()


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# Formats of torch are programs


class Leaves:
    """Unpickled, it writes a file: what a pickle in a stranger's file may do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def pickled_sample_inputs(marker: Path) -> bytes:
    """A .pt2 whose example inputs are a pickle of the stranger's."""
    entries = entries_of(CONFORMANCE / "paths.pt2")
    (name,) = (name for name in entries if "/data/sample_inputs/" in name)
    content = io.BytesIO()
    torch.save(((Leaves(marker),), {}), content)
    return sealed(entries | {name: content.getvalue()})


def pickled_weights(marker: Path) -> bytes:
    """A .pt2 whose list of weights says of one that it is pickled."""
    entries = entries_of(CONFORMANCE / "paths.pt2")
    (config,) = (name for name in entries if name.endswith("weights_config.json"))
    weights = json.loads(entries[config])
    name, about = next(iter(weights["config"].items()))
    about["use_pickle"] = True
    content = io.BytesIO()
    torch.save(Leaves(marker), content)
    place = f"{config.rpartition('/')[0]}/{about['path_name']}"
    assert place in entries, name
    return sealed(entries | {config: json.dumps(weights).encode(), place: content.getvalue()})


def saving_script(marker: Path) -> bytes:
    """A TorchScript file that saves a tensor to a path of the stranger's when it is opened."""

    class Saves(torch.nn.Module):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

        @torch.jit.export
        def __getstate__(self):
            return self.path, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]) -> None:
            self.path, self.training = state
            torch.save(torch.ones(3), self.path)

        @torch.jit.export
        def samples(self, x: torch.Tensor, draws: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
            return x

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    content, card = io.BytesIO(), entries_of(CONFORMANCE / "paths.pt")["archive/extra/murho.json"]
    torch.jit.save(torch.jit.script(Saves(str(marker))), content, _extra_files={"murho.json": card.decode()})
    content.seek(0)
    with zipfile.ZipFile(content) as archive:
        return sealed({name: archive.read(name) for name in archive.namelist()})


ATTACKS = {
    "pickled sample inputs": (pickled_sample_inputs, ".pt2"),
    "pickled weights": (pickled_weights, ".pt2"),
    "a saving script": (saving_script, ".pt"),
}


@pytest.fixture(params=ATTACKS)
def attack(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A hostile file, and the file that it writes when torch opens it."""
    make, suffix = ATTACKS[request.param]
    marker = tmp_path / "marker"
    path = tmp_path / f"model{suffix}"
    path.write_bytes(make(marker))
    return path, marker


def test_a_program_runs_only_where_it_is_trusted(attack: tuple[Path, Path]) -> None:
    path, marker = attack
    with pytest.raises(murho.ArtifactError, match=PROGRAM):
        murho.load(path)
    assert not marker.exists()
    with contextlib.suppress(murho.ArtifactError):
        murho.load(path, trusted=True)
    assert marker.exists()  # else this attack would show nothing


@pytest.mark.parametrize("suffix", [".onnx", ".bin", ""])
def test_a_program_with_the_name_of_data(attack: tuple[Path, Path], suffix: str) -> None:
    path, marker = attack
    path = path.rename(path.with_suffix(suffix))
    for trusted in (False, True):
        with pytest.raises(murho.ArtifactError, match="by its content, so its name must end in"):
            murho.load(path, trusted=trusted)
    assert not marker.exists()


@pytest.mark.parametrize("format", ["torchscript", "pt2"])
def test_without_trust_torch_is_not_even_imported(format: str) -> None:
    code = """
import sys, murho
try:
    murho.load(sys.argv[1])
except murho.ArtifactError as error:
    print(error)
print("torch" in sys.modules)
"""
    path = CONFORMANCE / f"paths{SUFFIXES[format]}"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert "Such files are programs" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_a_trusted_model_does_not_open_what_took_its_place(tmp_path: Path) -> None:
    """Calibration reads the file again: by then it may be another, of another format."""
    path = tmp_path / "paths.onnx"
    path.write_bytes((CONFORMANCE / "paths.onnx").read_bytes())
    model = murho.load(path)
    marker = tmp_path / "marker"
    path.write_bytes(pickled_sample_inputs(marker))
    with pytest.raises(murho.ArtifactError):
        model.calibrate(np.random.default_rng(0).normal(50, 1, (40, 8, 1)), np.full((40, 4), 50.0))
    assert not marker.exists()
