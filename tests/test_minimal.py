"""For small builds of ONNX Runtime: the list of operators, and the artifact in the .ort format."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

import murho
from murho import ArtifactError, ExportError, InputError, Noise
from murho.cli.app import app
from murho.export import ort_file, required_operators, to_onnx, to_ort
from murho.models import Classifier, Forecaster

# Without kernels in ONNX Runtime: it makes initializers of constants, and a CastLike a Cast, as ONNX defines it.
NO_KERNEL = {"Constant", "CastLike"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of an LSTM that says its noise, stored in half; and a convolution, whose optimised form has fused nodes."""
    folder = tmp_path_factory.mktemp("minimal")
    torch.manual_seed(0)
    series = np.random.default_rng(0).normal(20, 3, (9, 6, 1)).astype(np.float32)
    options = {"noise": Noise(), "horizon": 3, "storage": "half"}
    to_onnx(Forecaster(hidden=4, learned_noise=True), folder / "lstm.onnx", series, **options)
    images = np.random.default_rng(0).random((9, 1, 8, 8), dtype=np.float32)
    network = Classifier(size=8, kernel=3, padding=1)
    to_onnx(network, folder / "images.onnx", images, task="classification")
    return {"lstm": folder / "lstm.onnx", "images": folder / "images.onnx"}


INPUTS = {"lstm": np.full((2, 8, 1), 19.0, np.float32), "images": np.full((3, 1, 8, 8), 0.5, np.float32)}


def run(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {"x": x, "draws": np.arange(40), "seed": np.array(2**40 + 3), "levels": np.float32([0.5, 0.9])}
    if "noise" in [part.name for part in session.get_inputs()]:
        feeds["noise"] = np.array(1, np.float32)
    return dict(zip((part.name for part in session.get_outputs()), session.run(None, feeds), strict=True))


@pytest.mark.parametrize("name", INPUTS)
def test_the_ort_format_says_the_same(paths, tmp_path: Path, name: str) -> None:
    to_ort(paths[name], tmp_path / "net.ort")
    ours, theirs = run(tmp_path / "net.ort", INPUTS[name]), run(paths[name], INPUTS[name])
    assert list(ours) == list(theirs) == ["samples", "mean", "std", "lower", "upper"]
    for part, values in theirs.items():
        assert ours[part].shape == values.shape
        np.testing.assert_allclose(ours[part], values, rtol=0, atol=1e-5 * np.abs(values).max(), err_msg=part)
    metadata = onnxruntime.InferenceSession(tmp_path / "net.ort").get_modelmeta().custom_metadata_map
    assert metadata["murho"] == murho.load(paths[name]).card.to_json()


def operators(path: Path) -> set[tuple[str, str]]:
    """(domain, operator) of a file with its functions laid out, bodies of loops and branches included, by onnx."""
    model = onnx.inliner.inline_local_functions(onnx.load(path))

    def of(graph: onnx.GraphProto) -> set[tuple[str, str]]:
        found = {(node.domain or "ai.onnx", node.op_type) for node in graph.node}
        bodies = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
        return found.union(*(of(body) for body in bodies))

    return {part for part in of(model.graph) if part[1] not in NO_KERNEL}


def listed(config: Path) -> set[tuple[str, str]]:
    lines = [line.split(";") for line in config.read_text().splitlines() if not line.startswith("#")]
    return {(domain, name) for domain, _, names in lines for name in names.split(",")}


@pytest.mark.parametrize("name", INPUTS)
def test_the_list_has_every_operator(paths, tmp_path: Path, name: str) -> None:
    required_operators(paths[name], tmp_path / "net.config")
    found = listed(tmp_path / "net.config")
    assert operators(paths[name]) <= found
    assert len(found) < 60  # of the hundreds that ONNX Runtime has
    text = (tmp_path / "net.config").read_text()
    assert text.startswith(f"# Operators that {name}.onnx needs of ONNX Runtime {onnxruntime.__version__}\n")
    assert text.count("#") == 1  # and no path of this machine


def test_operators_of_the_optimised_file_too(paths, tmp_path: Path) -> None:
    required_operators(paths["images"], tmp_path / "net.config")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": ["NchwcTransformer"]}
    onnxruntime.InferenceSession(paths["images"], options, **session)
    optimised = operators(tmp_path / "optimised.onnx")
    assert {domain for domain, _ in optimised} == {"ai.onnx", "com.microsoft"}  # else this shows nothing
    assert optimised <= listed(tmp_path / "net.config")


def test_the_command(paths, tmp_path: Path) -> None:
    shutil.copy(paths["lstm"], tmp_path / "model.onnx")
    outcome = CliRunner().invoke(app, ["minimal", str(tmp_path / "model.onnx")])
    assert outcome.exit_code == 0, outcome.output
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.ort", "model.required_operators.config"}


def test_what_is_refused(paths, exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = exported("mlp").torchscript
    for write in (to_ort, required_operators):
        with pytest.raises(ArtifactError, match=r"mlp\.pt is not an ONNX artifact"):
            write(script, tmp_path / "net.ort")
        with pytest.raises(InputError, match="Cannot write"):
            write(paths["lstm"], tmp_path / "nowhere" / "net.ort")
    with pytest.raises(InputError, match=r"ends in \.ort, not net\.onnx"):
        to_ort(paths["lstm"], tmp_path / "net.onnx")
    monkeypatch.setattr(ort_file, "_converted", lambda *_: tmp_path / "other.ort")
    shutil.copy(paths["images"], tmp_path / "other.ort")
    other = run(paths["images"], INPUTS["images"])
    answers = {part: {k: v + (part == b"ORTM") for k, v in other.items()} for part in (b"ORTM", b"onnx")}
    monkeypatch.setattr(
        ort_file, "whole", lambda content, _: lambda *_: answers[b"ORTM" if b"ORTM" in content else b"onnx"]
    )
    (tmp_path / "other.ort").write_bytes(b"ORTM")
    with pytest.raises(ExportError, match="In ONNX Runtime's format samples differs by"):
        to_ort(paths["images"], tmp_path / "net.ort")
    assert not (tmp_path / "net.ort").exists()
