"""Files from strangers: what opening one must never do."""

import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import murho
from murho.runtime.artifact import DIGEST_LENGTH, MOST_CARD, SUFFIXES, read, zip_digest
from murho.runtime.parts import _compiled
from murho.runtime.protobuf import delimited
from murho.runtime.torch_check import check_torchscript
from murho.runtime.typical import typical_inputs

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
    with contextlib.suppress(Exception):  # what torch itself does: else this attack would show nothing
        torch.export.load(path) if path.suffix == ".pt2" else torch.jit.load(path)
    assert marker.exists()


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


# Records of torch's archives: torch reads as many bytes as it is told


def trusted_error(path: Path, suffix: str, entries: dict[str, bytes]) -> str:
    path = path.with_suffix(suffix)
    path.write_bytes(sealed(entries))
    with pytest.raises(murho.ArtifactError) as error:
        murho.load(path, trusted=True)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_record_shorter_than_its_tensor(tmp_path: Path, suffix: str) -> None:
    entries = entries_of(CONFORMANCE / f"paths{suffix}")
    name = "archive/data/8" if suffix == ".pt" else "archive/data/weights/weight_9"
    assert len(entries[name]) == 384
    said = trusted_error(tmp_path / "short", suffix, entries | {name: entries[name][:-4]})
    assert "This file must not be opened by torch" in said
    assert "95 elements, not 96" in said or "more elements than its record, 95" in said


def test_a_view_beyond_its_record(tmp_path: Path) -> None:
    """In TorchScript's pickle, sizes and strides are numbers of their own."""
    entries = entries_of(CONFORMANCE / "paths.pt")
    pickle = entries["archive/data.pkl"]
    place = pickle.index(b"archive" if b"archive" in pickle else b"_rebuild_tensor_v2")
    found = []
    for at in range(place, len(pickle) - 1):
        if pickle[at] == ord("K"):  # BININT1: a size, a stride, an offset or a number of elements
            changed = pickle[: at + 1] + b"\xff" + pickle[at + 2 :]
            path = tmp_path / "view.pt"
            path.write_bytes(sealed(entries | {"archive/data.pkl": changed}))
            try:
                check_torchscript(path.read_bytes())
            except murho.ArtifactError as error:
                found.append(str(error))
    assert any("more elements than its record" in said for said in found)
    assert any("elements, not 255" in said for said in found)


def test_a_pickle_that_asks_for_memory(tmp_path: Path) -> None:
    """Nine bytes that make an unpickler keep a place for each of 2^30 things."""
    entries = entries_of(CONFORMANCE / "paths.pt")
    for pickled, said in (
        (b"\x80\x02Nr\x00\x00\x00\x40.", "remembers more"),
        (b"\x80\x05\x96" + bytes(8) + b".", "BYTEARRAY8"),
    ):
        assert said in trusted_error(tmp_path / "pickle", ".pt", entries | {"archive/constants.pkl": pickled})


def test_parts_of_a_program_that_are_pickled(tmp_path: Path) -> None:
    """Even where the file is trusted: murho writes none."""
    for make, said in ((pickled_sample_inputs, "torch would unpickle"), (pickled_weights, "is pickled")):
        marker = tmp_path / "marker"
        path = tmp_path / "pickled.pt2"
        path.write_bytes(make(marker))
        with pytest.raises(murho.ArtifactError, match=said):
            murho.load(path, trusted=True)
        assert not marker.exists()


# External data: an artifact is one file


def onnx_artifact(name: str = "lstm") -> onnx.ModelProto:
    return onnx.load_from_string((CONFORMANCE / f"{name}.onnx").read_bytes())


def resealed(model: onnx.ModelProto, path: Path, card: dict[str, Any] | None = None) -> Path:
    """The model as an artifact, with a true digest."""
    (old,) = (entry.value for entry in model.metadata_props if entry.key == "murho")
    del model.metadata_props[:]
    content = model.SerializeToString()
    for key, value in (("murho", json.dumps(card) if card else old), ("murho.sha256", "")):
        text = value or hashlib.sha256(content).hexdigest()
        pair = delimited(1, key.encode()) + delimited(2, text.encode())
        content += delimited(14, pair)
    path.write_bytes(content)
    return path


def refused(model: onnx.ModelProto, path: Path, card: dict[str, Any] | None = None) -> str:
    """What is said of it, and no session is made."""
    resealed(model, path, card)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", None)
        with pytest.raises(murho.ArtifactError) as error:
            murho.load(path)
    return str(error.value)


def used(path: Path) -> None:
    model = murho.load(path)
    model.predict(typical_inputs(model.card, 2)[0], 8)


def external(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"


def constant(name: str = "taken") -> onnx.NodeProto:
    node = onnx.helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.zeros(4, np.float32)))
    external(node.attribute[0].t)
    return node


def in_an_initializer(model: onnx.ModelProto) -> None:
    external(next(t for t in model.graph.initializer if t.name.endswith("mu")))


def in_a_constant(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, constant())


def in_a_function(model: onnx.ModelProto) -> None:
    model.functions[0].node.insert(0, constant())


def in_a_subgraph(model: onnx.ModelProto) -> None:
    (node,) = (n for f in model.functions if f.name == "BayesianWeights" for n in f.node if n.op_type == "If")
    node.attribute[0].g.node.insert(0, constant())


def in_an_initializer_of_a_subgraph(model: onnx.ModelProto) -> None:
    (node,) = (n for f in model.functions if f.name == "BayesianWeights" for n in f.node if n.op_type == "If")
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "taken")
    external(tensor)
    node.attribute[0].g.initializer.append(tensor)


def with_a_location_alone(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "*/_ORT_MEM_ADDR_/*"


def in_a_list_of_tensors(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "taken")
    external(tensor)
    attribute = model.graph.node[0].attribute.add()
    attribute.name, attribute.type = "more", onnx.AttributeProto.TENSORS
    attribute.tensors.append(tensor)


EXTERNAL = [
    in_an_initializer, in_a_constant, in_a_function, in_a_subgraph, in_an_initializer_of_a_subgraph,
    with_a_location_alone, in_a_list_of_tensors,
]  # fmt: skip


@pytest.mark.parametrize("change", EXTERNAL, ids=lambda change: change.__name__)
def test_a_tensor_outside_the_file(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx_artifact()
    change(model)
    assert "it takes a tensor from another file, and an artifact is one file" in refused(model, tmp_path / "a.onnx")


def test_a_sparse_tensor(tmp_path: Path) -> None:
    model = onnx_artifact()
    sparse = model.graph.sparse_initializer.add()
    sparse.values.name = "taken"
    external(sparse.values)
    assert "its Graph has a field 15, which murho does not know" in refused(model, tmp_path / "a.onnx")


def test_the_unchanged_model_passes(tmp_path: Path) -> None:
    """The way in which these files are made does not spoil them."""
    x = np.zeros((2, 9, 1), np.float32)
    for name in ("lstm", "paths", "convolution"):
        model = murho.load(resealed(onnx_artifact(name), tmp_path / f"{name}.onnx"))
        x = dict(zip((a.name for a in model.card.inputs), typical_inputs(model.card, 2), strict=True))
        same = murho.load(CONFORMANCE / f"{name}.onnx")
        np.testing.assert_array_equal(model.samples(x, 8), same.samples(x, 8))


# Sizes that lie


def lstm_node(model: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = (node for node in model.graph.node if node.op_type == "BayesianLSTMLast")
    return node


@pytest.mark.parametrize(
    ("inputs", "hidden"), [(2**62 + 1, 0), (0, 4), (1, 0), (-1, 4), (2**63 - 1, 2**63 - 1), (3, 9), (2**31, 1)]
)
def test_an_lstm_whose_sizes_lie(tmp_path: Path, inputs: int, hidden: int) -> None:
    """With hidden = 0 and inputs = 2^62 + 1 a product of the sizes, in 64 bits, was what the arrays have."""
    model = onnx_artifact()
    for attribute in lstm_node(model).attribute:
        if attribute.name in ("inputs", "hidden"):
            attribute.i = {"inputs": inputs, "hidden": hidden}[attribute.name]
    path = resealed(model, tmp_path / "a.onnx")
    with pytest.raises(murho.ArtifactError):
        used(path)


@pytest.mark.skipif(_compiled is None, reason="no compiled code here")
@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1, 2**62 + 1, 0), (1, 1, 1, 0, 1), (-1, 1, 1, 1, 1), (2**62, 4, 1, 1, 1), (1, 2**63 - 1, 2, 1, 1)],
)
def test_the_compiled_module_multiplies_with_care(sizes: tuple[int, ...]) -> None:
    one, none = np.zeros(1, np.float32), np.zeros(0, np.float32)
    for state in (one, none):
        with pytest.raises(ValueError, match="arrays do not have the sizes"):
            _compiled.lstm(sizes, one, state, state, none, False, none, state.copy(), state.copy())


@pytest.mark.skipif(_compiled is None, reason="no compiled code here")
def test_the_compiled_module_looks_at_types_and_alignment() -> None:
    draws, three = np.zeros(2, np.int64), np.zeros(3, np.float32)
    out = np.zeros((2, 3), np.float32)
    _compiled.draw(draws, 0, 2**32 - 1, three, three, out)
    crooked = np.zeros(13, np.uint8)[1:].view(np.float32)
    for wrong in (np.zeros(3), np.zeros(3, np.int32), crooked, np.zeros(3, ">f4")):
        with pytest.raises(TypeError, match="expected an aligned array of float32"):
            _compiled.draw(draws, 0, 0, wrong, three, out)
    for wrong in (np.zeros(4, np.int32), np.zeros(2, np.float64), np.zeros(2, ">i8"), np.zeros(2, np.uint64)):
        with pytest.raises(TypeError, match="expected an aligned array of int64"):
            _compiled.draw(wrong, 0, 0, three, three, out)
    with pytest.raises((ValueError, BufferError)):
        _compiled.draw(draws, 0, 0, np.zeros(6, np.float32)[::2], three, out)
    for stream in (-1, 2**32):
        with pytest.raises(ValueError, match="expected draws"):
            _compiled.draw(draws, 0, stream, three, three, out)
    for few in (out[:1], out[:, :2].copy()):
        with pytest.raises(ValueError, match="expected draws"):
            _compiled.draw(draws, 0, 0, three, three, few)


def test_tensors_whose_shapes_lie(tmp_path: Path) -> None:
    for dims in ([2**40], [2**62, 4], [-1], [3], []):
        model = onnx_artifact()
        tensor = next(t for t in model.graph.initializer if t.name.endswith("mu"))
        del tensor.dims[:]
        tensor.dims.extend(dims)
        assert re.search("elements that its shape says|that no tensor has", refused(model, tmp_path / "a.onnx"))


def test_a_posterior_that_is_no_posterior(tmp_path: Path) -> None:
    for ending, value, said in (("mu", np.nan, "not finite"), ("sigma", np.inf, "finite"), ("sigma", -1, "below 0")):
        model = onnx_artifact()
        tensor = next(t for t in model.graph.initializer if t.name.endswith(ending))
        values = numpy_helper.to_array(tensor).copy()
        values[3] = value
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        assert said in refused(model, tmp_path / "a.onnx")


# Bombs: sizes are bounded before anything is read


def test_a_card_that_inflates(tmp_path: Path) -> None:
    """Of a file of 3 MB that held a card of 3 GiB, as it was reported, a tenth: nothing of it is inflated."""
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/extra/murho.json", "w") as card:
            for _ in range(300):
                card.write(bytes(2**20))
        archive.comment = b"0" * DIGEST_LENGTH
    content = path.read_bytes()
    path.write_bytes(content[:-DIGEST_LENGTH] + zip_digest(content).encode())
    code = """
import resource, sys, murho
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    murho.load(sys.argv[1])
except murho.ArtifactError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    *said, grown = done.stdout.splitlines()
    assert "a record is compressed" in said[0] or "murho does not write" in said[0]
    assert int(grown) < 20 * 2**10  # KiB


def test_many_cards_and_large_ones(tmp_path: Path) -> None:
    entries = entries_of(CONFORMANCE / "paths.pt")
    card = entries["archive/extra/murho.json"]
    many = entries | {f"archive{k}/extra/murho.json": card for k in range(200)}
    large = entries | {"archive/extra/murho.json": card + b" " * MOST_CARD}
    for changed in (many, large):
        (tmp_path / "many.pt").write_bytes(sealed(changed))
        with pytest.raises(murho.ArtifactError, match="several cards, or one of more than"):
            murho.load(tmp_path / "many.pt")
    model = onnx_artifact()
    content = resealed(model, tmp_path / "a.onnx").read_bytes()
    pair = delimited(14, delimited(1, b"murho") + delimited(2, b"{}"))
    large_pair = delimited(14, delimited(1, b"murho") + delimited(2, b" " * MOST_CARD))
    for more in (pair, large_pair, pair * 200):
        (tmp_path / "a.onnx").write_bytes(more + content)
        with pytest.raises(murho.ArtifactError, match="is not a murho artifact, or is cut short"):
            murho.load(tmp_path / "a.onnx")


def test_two_records_of_one_name(tmp_path: Path) -> None:
    """Readers differ in which one they take."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, body in entries_of(CONFORMANCE / "paths.pt").items():
            archive.writestr(zipfile.ZipInfo(name), body)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(zipfile.ZipInfo("archive/data.pkl"), b"\x80\x04.")
        archive.comment = b"0" * DIGEST_LENGTH
    body = content.getvalue()
    (tmp_path / "two.pt").write_bytes(body[:-DIGEST_LENGTH] + zip_digest(body).encode())
    with pytest.raises(murho.ArtifactError, match=r"the name 'archive/data\.pkl' twice"):
        murho.load(tmp_path / "two.pt")


@pytest.mark.skipif(os.name == "nt", reason="has no such devices")
def test_only_regular_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path, kind in (("/dev/zero", "a device"), (pipe, "a pipe"), (tmp_path, "a folder"), ("/dev/full", "a device")):
        with pytest.raises(murho.ArtifactError, match=f"Cannot read the artifact .*: it is {kind}, not a file"):
            murho.load(path)
    link = tmp_path / "link.onnx"
    link.symlink_to("/dev/zero")
    with pytest.raises(murho.ArtifactError, match="it is a device, not a file"):
        murho.load(link)
    link.unlink()
    link.symlink_to(CONFORMANCE / "lstm.onnx")
    assert murho.load(link).card.name


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(
        murho.ArtifactError, match=r"it has 1,099,511,627,776 bytes, and may have 2,147,483,647 at most"
    ):
        murho.load(path)


def test_a_path_with_a_nul(tmp_path: Path) -> None:
    with pytest.raises((murho.ArtifactError, murho.InputError)):
        murho.load(tmp_path / "a\0b.onnx")
    with pytest.raises(murho.ArtifactError, match=r"Cannot read the artifact .*null"):
        read(tmp_path / "a\0b.onnx")


# Graphs that would run for ever, or grow


def test_operators_and_domains_that_no_artifact_has(tmp_path: Path) -> None:
    for node, said in (
        (onnx.helper.make_node("Loop", ["", ""], ["y"]), "a node Loop"),
        (onnx.helper.make_node("RandomNormal", [], ["y"], shape=[3]), "a node RandomNormal"),
        (onnx.helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), "a node com.microsoft.Gelu"),
    ):
        model = onnx_artifact()
        model.graph.node.insert(0, node)
        assert said in refused(model, tmp_path / "a.onnx")
        model = onnx_artifact()
        model.functions[0].node.insert(0, node)
        assert said in refused(model, tmp_path / "a.onnx")
    model = onnx_artifact()
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert "it needs the operators 'com.microsoft'" in refused(model, tmp_path / "a.onnx")


def function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes = [onnx.helper.make_node(call, ["x"], [f"y{k}"], domain="murho") for k, call in enumerate(calls)]
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("murho", 1)]
    return onnx.helper.make_function("murho", name, ["x"], ["y0"], nodes, opsets)


def test_functions_that_never_end(tmp_path: Path) -> None:
    model = onnx_artifact()
    model.functions.extend([function("A", ["B"]), function("B", ["A"])])
    model.graph.node.append(onnx.helper.make_node("A", ["levels"], ["never"], domain="murho"))
    assert "calls itself" in refused(model, tmp_path / "a.onnx")
    model = onnx_artifact()  # thirty functions, each of which calls the next one twice
    model.functions.extend(function(f"F{k}", [f"F{k + 1}"] * 2) for k in range(30))
    model.functions.append(onnx.helper.make_function("murho", "F30", ["x"], ["y0"], [], []))
    model.graph.node.append(onnx.helper.make_node("F0", ["levels"], ["never"], domain="murho"))
    assert "its functions, put in the place of their calls, have more than 262,144 nodes" in refused(
        model, tmp_path / "a.onnx"
    )


def test_constants_that_grow(tmp_path: Path) -> None:
    """ONNX Runtime computes what depends on constants when it opens a file: here 4 GiB of a number."""
    model = onnx_artifact()
    one = numpy_helper.from_array(np.ones(1, np.float32), "grown.0")
    model.graph.initializer.append(one)
    for k in range(30):
        model.graph.node.append(onnx.helper.make_node("Concat", [f"grown.{k}"] * 2, [f"grown.{k + 1}"], axis=0))
    model.graph.node.append(onnx.helper.make_node("ReduceMin", ["grown.30"], ["least"], keepdims=0))
    mean = next(node for node in model.graph.node if "mean" in node.output)
    mean.output[list(mean.output).index("mean")] = "small"
    model.graph.node.append(onnx.helper.make_node("Mul", ["small", "least"], ["mean"]))
    path = resealed(model, tmp_path / "a.onnx")
    code = """
import resource, sys
import murho, onnxruntime
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
murho.load(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 600 * 2**10  # KiB


# What a card says of the graph


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another input": (lambda c: c["inputs"][0].update(name="z"), "its card says inputs z, draws"),
    "another output": (lambda c: c["outputs"].append(c["outputs"][0] | {"name": "more"}), "its card says outputs"),
    "another width": (lambda c: c["inputs"][0]["shape"].__setitem__(2, 7), "its input 'x' is another than its card"),
    "noise that is not there": (
        lambda c: c.update(noise={"distribution": "gaussian", "degrees": 0, "scale": [1.0]}),
        "its card says inputs .*noise, but it has",
    ),
    "more weights": (lambda c: c["sites"].clear(), "weights of site 0, and the card says otherwise"),
    "weights that are not numbers": (lambda c: c["sites"][0].update(n=3), "draws 3 numbers for"),
    "a calibration": (
        lambda c: c.update(
            calibration={"levels": [0.5], "factors": [[2.0]], "rows": 9, "half_life": None, "data_sha256": ""}
        ),
        "its calibration is another than its card's",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_card_that_says_something_else(tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    model = onnx_artifact("lstm")
    card = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "murho"))
    change(card)
    assert re.search(said, refused(model, tmp_path / "a.onnx", card))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("draws", 0), ("draws", True), ("draws", 2.0), ("levels", []), ("levels", [1.0]), ("levels", [float("nan")]),
        ("levels", [0.5] * 5000), ("seed", 2**63), ("task", "guessing"), ("posterior_sha256", "0" * 63), ("horizon", 0),
        ("storage", "none"), ("name", 3), ("name", "\ud800"), ("name", "\x1b[2J"), ("training", []), ("states", [{}]),
        ("created", None), ("versions", {"torch": 2}), ("outputs", []), ("noise", {}), ("calibration", {}),
    ],
)  # fmt: skip
def test_fields_of_a_card(field: str, value: Any) -> None:
    card = json.loads(read(CONFORMANCE / "lstm.onnx").card.to_json())
    murho.Card.from_json(json.dumps(card))
    with pytest.raises(murho.ArtifactError, match=r"card (lacks or garbles a field|cannot be read)"):
        murho.Card.from_json(json.dumps(card | {field: value}))


@pytest.mark.parametrize("text", ['{"schema": 4, "schema": 4}', '{"schema": 1e999}', '{"schema": ' + "9" * 5000 + "}"])
def test_json_that_no_card_holds(text: str) -> None:
    with pytest.raises(murho.ArtifactError, match="card"):
        murho.Card.from_json(text)


# What only evaluating shows


def test_what_fails_in_evaluation_is_an_error_of_the_artifact(tmp_path: Path) -> None:
    """A slice that is no table: ONNX Runtime finds it when it opens the file, or when it computes."""
    model = onnx_artifact("lstm")
    tensor = next(t for t in model.graph.initializer if t.name == "calibration_factors")
    node = next(node for node in model.graph.node if node.op_type == "Gemm")
    node.input[1] = tensor.name
    path = resealed(model, tmp_path / "a.onnx")
    with pytest.raises(murho.ArtifactError, match=r"ONNX Runtime .*cannot (load|evaluate) .*a\.onnx"):
        used(path)


def test_samples_of_another_shape(tmp_path: Path) -> None:
    model = onnx_artifact("lstm")
    node = next(node for node in model.graph.node if "samples" in node.output)
    node.output[list(node.output).index("samples")] = "narrow"
    model.graph.node.append(onnx.helper.make_node("Concat", ["narrow", "narrow"], ["samples"], axis=1))
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    path = resealed(model, tmp_path / "a.onnx")
    with pytest.raises(murho.ArtifactError, match=r"a\.onnx answers with output"):
        used(path)
