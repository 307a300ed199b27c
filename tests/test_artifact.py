import dataclasses
import io
import json
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.numpy_helper import to_array

import murho
from murho.export import onnx_file
from murho.runtime.artifact import read, zip_digest
from murho.runtime.contract import GENERATOR, SCHEMA, Array, Card, Site

DAMAGED = r"mlp\.(onnx|pt) (is damaged or cut short|is not a murho artifact|was changed or damaged)"


@pytest.fixture
def card(exported) -> Card:
    return read(exported("mlp").onnx).card


# Files that are not whole, not ours, or changed


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_truncated(small: Path, share: float) -> None:
    content = small.read_bytes()
    small.write_bytes(content[: max(1, int(share * len(content)))])
    with pytest.raises(murho.ArtifactError, match=DAMAGED):
        murho.load(small, trusted=True)


@pytest.mark.parametrize("missing", [1, 2, 20, 64, 65, 84, 100])
def test_the_last_bytes_are_missing(small: Path, missing: int) -> None:
    small.write_bytes(small.read_bytes()[:-missing])
    with pytest.raises(murho.ArtifactError, match=DAMAGED):
        murho.load(small, trusted=True)


def test_appended_bytes(small: Path) -> None:
    small.write_bytes(small.read_bytes() + b"\x00" * 7)
    with pytest.raises(murho.ArtifactError, match=DAMAGED):
        murho.load(small, trusted=True)


def test_empty_missing_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(murho.ArtifactError, match=r"empty\.onnx is empty\. Export it again"):
        murho.load(tmp_path / "empty.onnx")
    with pytest.raises(murho.ArtifactError, match=r"Cannot read the artifact .*none\.onnx: No such file or directory"):
        murho.load(tmp_path / "none.onnx")
    with pytest.raises(murho.ArtifactError, match=r"Cannot read the artifact .*: it is a folder, not a file"):
        murho.load(tmp_path)


def _zip(entries: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in entries.items():
            archive.writestr(name, value)
    return content.getvalue()


def _checkpoint() -> bytes:
    content = io.BytesIO()
    torch.save({"weight": torch.ones(3)}, content)
    return content.getvalue()


def _foreign_script() -> bytes:
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), content)
    return content.getvalue()


def _foreign_onnx() -> bytes:
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", info[:1], info[1:]))
    onnx.helper.set_model_props(model, {"author": "someone"})
    return model.SerializeToString()


FOREIGN: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"date,close\n2020-01-01,100\n" * 20,
    "a picture": lambda: b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)),
    "zeros": lambda: bytes(1000),
    "an ONNX model": _foreign_onnx,
    "a zip archive": lambda: _zip({"a.txt": b"hello", "b/extra/c": b"x"}),
    "an empty zip archive": lambda: b"PK\x05\x06" + bytes(18),
    "a checkpoint": _checkpoint,
    "another TorchScript file": _foreign_script,
}


@pytest.mark.parametrize("suffix", [".onnx", ".pt"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(FOREIGN[kind]())
    with pytest.raises(murho.ArtifactError, match=r"foreign\.(onnx|pt) is not a murho artifact"):
        murho.load(path, trusted=True)


@pytest.mark.parametrize("suffix", [".bin", ".onnx", ".pt", ".pt2", ""])
def test_the_suffix_says_what_the_content_is(small: Path, format: str, suffix: str) -> None:
    kinds = {"onnx": "an ONNX artifact", "torchscript": "a TorchScript artifact"}
    if suffix == small.suffix:
        return
    path = small.rename(small.with_suffix(suffix))
    with pytest.raises(murho.ArtifactError, match=f"is {kinds[format]} by its content, so its name must end in"):
        murho.load(path, trusted=True)


@pytest.mark.parametrize("what", ["weights", "card", "digest", "middle", "first byte of a weight"])
def test_one_changed_byte(exported, small: Path, format: str, what: str) -> None:
    content = bytearray(small.read_bytes())
    layer = exported("mlp").network[0]
    mu = layer.weight_sampler.mu.detach().numpy().tobytes()
    digest = _entries(bytes(content))["murho.sha256"].encode()
    place = {
        "weights": content.index(mu) + len(mu) - 1,
        "first byte of a weight": content.index(mu),
        "card": content.index(b'"regression"') + 3,
        "digest": content.rindex(digest) + 5,
        "middle": len(content) // 2,
    }[what]
    content[place] ^= 1
    small.write_bytes(content)
    with pytest.raises(murho.ArtifactError, match=DAMAGED):
        murho.load(small, trusted=True)


def test_a_weight_changed_with_all_its_checksums(small: Path, format: str, exported) -> None:
    """A zip's own checksum, or none in ONNX, does not hide a change from ours."""
    if format == "onnx":
        model = onnx.load(small)
        tensor = next(t for t in model.graph.initializer if t.name.endswith("mu"))
        values = to_array(tensor).copy()
        values[0] += 0.25
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, small)
    else:
        mu = exported("mlp").network[0].weight_sampler.mu.detach().numpy()
        changed = mu.copy()
        changed.flat[0] += 0.25
        _rezip(small, lambda name, body: body.replace(mu.tobytes(), changed.tobytes()))
    with pytest.raises(murho.ArtifactError, match=r"was changed or damaged after its export: its checksum differs"):
        murho.load(small, trusted=True)


def _entries(content: bytes) -> dict[str, str]:
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (card,) = (name for name in archive.namelist() if name.endswith("/extra/murho.json"))
            return {"murho": archive.read(card).decode(), "murho.sha256": archive.comment.decode()}
    return {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}


def _rezip(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries, digest = {name: archive.read(name) for name in archive.namelist()}, archive.comment
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = digest
        for name, body in entries.items():
            archive.writestr(name, change(name, body))


def _with_card(path: Path, format: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Give a file another card, with a right digest."""
    if format == "onnx":
        model = onnx.load(path)
        data = json.loads(_entries(path.read_bytes())["murho"])
        change(data)

        class Fake:
            @staticmethod
            def to_json() -> str:
                return json.dumps(data)

        path.write_bytes(onnx_file.saved(model, Fake()))
        return

    def changed(name: str, body: bytes) -> bytes:
        if not name.endswith("extra/murho.json"):
            return body
        data = json.loads(body)
        change(data)
        return json.dumps(data).encode()

    _rezip(path, changed)
    content = path.read_bytes()
    path.write_bytes(content[:-64] + zip_digest(content).encode())


CARDS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "newer schema": (
        lambda c: c.update(schema=SCHEMA + 1, surprise=[1]),
        rf"card schema {SCHEMA + 1}; this murho reads 4 and {SCHEMA}\. Upgrade with: pip install --upgrade murho",
    ),
    "older schema": (lambda c: c.update(schema=2), rf"card schema 2; this murho reads 4 and {SCHEMA}\. Export it"),
    "unknown generator": (lambda c: c.update(generator="dice-1"), r"generator 'dice-1'; this murho knows 'pcg4d"),
    "no schema": (lambda c: c.pop("schema"), r"card cannot be read \('schema'\)"),
    "schema that is no number": (lambda c: c.update(schema="one"), r"card cannot be read"),
    "infinite schema": (lambda c: c.update(schema=float("inf")), r"card (cannot be read|has card schema)"),
    "no inputs": (lambda c: c.pop("inputs"), r"card lacks or garbles a field \(card lacks \['inputs'\]"),
    "no sites": (lambda c: c.pop("sites"), r"card lacks or garbles a field \(card lacks \['sites'\]"),
    "no name": (lambda c: c.pop("name"), r"card lacks or garbles a field .*'name'"),
    "unknown field": (lambda c: c.update(unheard=1), r"card lacks or garbles a field .*unheard"),
    "garbled scaling": (lambda c: c.update(scaling=3), r"card lacks or garbles a field"),
    "garbled site": (lambda c: c.update(sites=[{"layer": "a"}]), r"card lacks or garbles a field"),
    "garbled axes": (lambda c: c["outputs"][0].update(axes=None), r"card lacks or garbles a field"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CARDS.values(), ids=CARDS)
def test_cards_that_do_not_fit(small: Path, format: str, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    _with_card(small, format, change)
    with pytest.raises(murho.ArtifactError, match=message):
        murho.load(small, trusted=True)


def test_a_card_that_fits(small: Path, format: str) -> None:
    """The change itself does not spoil the file."""
    _with_card(small, format, lambda c: c.update(name="another"))
    assert murho.load(small, trusted=True).card.name == "another"


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"text"', '{"schema": null}', "[" * 100_000])
def test_cards_that_are_none(text: str) -> None:
    with pytest.raises(murho.ArtifactError, match="card"):
        Card.from_json(text)


def test_random_damage_raises_artifact_errors_only(exported, format: str, tmp_path: Path) -> None:
    random = np.random.default_rng(20240229)
    content = exported("mlp").path(format).read_bytes()
    path = tmp_path / "damaged"
    for _ in range(400):
        damaged = bytearray(content)
        match random.integers(4):
            case 0:
                del damaged[random.integers(1, len(content)) :]
            case 1:
                for place in random.integers(len(content), size=random.integers(1, 8)):
                    damaged[place] ^= int(random.integers(1, 256))
            case 2:
                start = random.integers(len(content) - 64)
                damaged[start : start + 64] = random.bytes(64)
            case _:
                damaged = bytearray(random.bytes(random.integers(1, 300)))
        path.write_bytes(damaged)
        with pytest.raises(murho.ArtifactError):
            read(path)


def test_a_damaged_directory_of_a_zip_raises_artifact_errors_only(exported, tmp_path: Path) -> None:
    """Where names, sizes and methods of compression stand; few bytes of the file, so rarely hit by chance."""
    random = np.random.default_rng(7)
    content = exported("mlp").torchscript.read_bytes()
    start = content.index(b"PK\x01\x02")
    path = tmp_path / "damaged.pt"
    for _ in range(600):
        damaged = bytearray(content)
        damaged[random.integers(start, len(content))] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        with pytest.raises(murho.ArtifactError):
            read(path)


# The card


def test_card_round_trip(card: Card) -> None:
    full = dataclasses.replace(
        card,
        name='Кurs "x" \n σ',
        inputs=(
            Array("x", ("batch", "time", "feature"), (None, 5, 2), "float32", ("a", "b"), "USD"),
            Array("tokens", ("batch", "time"), (None, None), "int64", limit=7),
        ),
        scaling=murho.Scaling((1.5, 2.5), (0.1, 1 / 3), (1e-30,), (3.0e30,)),
        sites=(
            Site(
                layer="a.b",
                kind="BayesianLSTM",
                shapes={"weight_ih": (2, 8), "weight_hh": (2, 8), "bias": (8,)},
                n=40,
                sampling="weights",
                relative_sigma=0.1,
                trained=True,
                elements=12,
            ),
        ),
        levels=(0.1, 0.95),
        training={"epochs": 3, "loss": [0.1, 0.2], "note": None},
        noise=murho.Noise("student-t", 5, (0.5, 1 / 3)),
        horizon=7,
        calibration=murho.Calibration((0.5, 0.95), ((1.0, 1.1), (1 / 3, 2.0)), 99, 12.5, "ab" * 32),
    )
    again = Card.from_json(full.to_json())
    assert again == full
    assert list(again.sites[0].shapes) == ["weight_ih", "weight_hh", "bias"]  # in the posterior's order
    assert Card.from_json(again.to_json()).to_json() == full.to_json()


def test_what_the_card_says(exported, format: str) -> None:
    case = exported("demo")
    got = read(case.path(format)).card
    lstm = case.network.recurrent[0]
    assert (got.name, got.task, got.generator, got.schema) == ("demo", "regression", GENERATOR, SCHEMA)
    assert got.inputs == (Array("x", ("batch", "time", "feature"), (None, None, 1), "float32", ("close",), ""),)
    assert got.outputs == (Array("output", ("batch", "output"), (None, 1), "float32", (), ""),)
    assert got.scaling.input_mean == case.scaling.input_mean
    shapes = {"weight_ih": (1, 40), "weight_hh": (10, 40), "bias": (40,)}
    (site,) = got.sites
    assert (site.layer, site.kind, site.shapes, site.n) == ("recurrent.0", "BayesianLSTM", shapes, 480)
    assert (site.sampling, site.trained, site.elements) == ("weights", True, 9 + 9 * 10)
    samplers = [getattr(lstm, f"{name}_sampler") for name in shapes]
    mu = np.concatenate([s.mu.detach().double().numpy().ravel() for s in samplers])
    rho = np.concatenate([s.rho.detach().double().numpy().ravel() for s in samplers])
    assert site.relative_sigma == pytest.approx(np.logaddexp(0, rho).mean() / np.abs(mu).mean(), rel=1e-5)
    assert tuple(lstm.weight_hh_sampler.mu.shape) == shapes["weight_hh"]
    assert got.versions["torch"] == torch.__version__
    assert got.verification["passed"] is True
    assert got.verification["exact"]["largest_error"] <= 1.1e-5
    assert got.training == {"window": 21}


def test_axes_of_a_sequence_of_answers(exported) -> None:
    got = read(exported("every_step").onnx).card.output
    assert got.shape == (None, None, 3)
    assert got.axes == ("batch", "time", "output")


# What the files are made of


@pytest.fixture(params=["demo", "zoo", "every_step", "mlp"])
def model(request: pytest.FixtureRequest, exported) -> onnx.ModelProto:
    return onnx.load(exported(request.param).onnx)


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    found: list[onnx.NodeProto] = []

    def walk(nodes: Any) -> None:
        for node in nodes:
            found.append(node)
            for attribute in node.attribute:
                walk(attribute.g.node)

    walk(model.graph.node)
    for function in model.functions:
        walk(function.node)
    return found


def test_no_random_operator_and_no_foreign_domain(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=False)
    nodes = _nodes(model)
    assert len(nodes) > 100
    assert not [
        node.op_type for node in nodes if "Random" in node.op_type or node.op_type in ("Multinomial", "Bernoulli")
    ]
    assert {node.domain for node in nodes} <= {"", "murho"}
    assert {(opset.domain, opset.version) for opset in model.opset_import} == {("", 18), ("murho", 1)}
    assert {function.domain for function in model.functions} == {"murho"}
    called = {node.op_type for node in nodes if node.domain == "murho"}
    assert called == {function.name for function in model.functions}


def test_functions_are_named_as_in_blitz(exported) -> None:
    names = [node.op_type for node in onnx.load(exported("zoo").onnx).graph.node if node.domain == "murho"]
    frozen = "BayesianLSTM", "BayesianGRU", "BayesianLinear"  # with a single draw, of the means
    drawn = sum(name == "BayesianWeights" for name in names)
    assert names[:4] == ["BayesianWeights"] * 4  # before all else, so that a host can keep what was drawn
    assert drawn == 4 + len(frozen)
    assert [name for name in names if name != "BayesianWeights"] == [
        "BayesianLSTM", *frozen[:2], "BayesianGRULast", frozen[2], "BayesianLinear", "BayesianLinear",
        "Summary", "Stretch",
    ]  # fmt: skip


def test_named_axes(exported) -> None:
    def shapes(infos: Any) -> dict[str, list[Any]]:
        return {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in infos}

    graph = onnx.load(exported("demo").onnx).graph
    assert shapes(graph.input) == {"x": ["B", "T", 1], "draws": ["S"], "seed": [], "levels": ["K"]}
    assert [output.name for output in graph.output] == ["samples", "mean", "std", "lower", "upper"]
    assert [node.type.tensor_type.elem_type for node in graph.input] == [1, 7, 7, 1]
    every = shapes(onnx.load(exported("every_step").onnx).graph.output)
    assert every["samples"] == ["S", "B", "T", 3]
    assert shapes(onnx.load(exported("mlp").onnx).graph.input)["x"] == ["B", 3]


@pytest.mark.parametrize("name", ["demo", "zoo", "gru_linear"])
def test_mu_and_sigma_are_the_samplers(exported, name: str) -> None:
    case = exported(name)
    tensors = {t.name: to_array(t) for t in onnx.load(case.onnx).graph.initializer}
    for site in {site.layer: site for site in read(case.onnx).card.sites}.values():
        layer = case.network.get_submodule(site.layer)
        mu, rho = [], []
        for tensor in site.shapes:
            sampler = getattr(layer, f"{tensor}_sampler")
            hidden = layer.out_features
            columns = slice(None)
            if site.kind == "BayesianGRU" and tensor != "bias":
                # BLiTZ's GRU never reads these columns (its forward: weight_ih[:, 3H:], weight_hh[:, 2H:3H]).
                dead = range(3 * hidden, 4 * hidden) if tensor == "weight_ih" else range(2 * hidden, 3 * hidden)
                columns = [c for c in range(4 * hidden) if c not in dead]
            mu.append(sampler.mu.detach().numpy()[..., columns].ravel())
            rho.append(sampler.rho.detach().numpy()[..., columns].ravel())
        np.testing.assert_array_equal(tensors[f"network.{site.layer}.mu"], np.concatenate(mu))
        # softplus in float64, rounded once
        want = np.logaddexp(0, np.concatenate(rho).astype(np.float64)).astype(np.float32)
        np.testing.assert_array_equal(tensors[f"network.{site.layer}.sigma"], want)


def test_no_noise_is_stored(exported) -> None:
    """Every stored float tensor is a posterior, a deterministic weight, or a scaling; no other is of their length."""
    for name in ("demo", "mlp", "bare"):
        case = exported(name)
        model = onnx.load(case.onnx)
        known = set(case.network.state_dict()) | {"input_mean", "input_scale", "output_mean", "output_scale"}
        known |= {"noise_on", "calibration_levels", "calibration_factors"}  # of which an export knows nothing yet
        known |= {f"{layer}.{part}" for layer in case.posteriors for part in ("mu", "sigma")}
        stored = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
        assert {t.name.removeprefix("network.") for t in stored} <= known
        attributes = [a for node in _nodes(model) for a in node.attribute if a.HasField("t")]
        assert all(np.prod(a.t.dims) <= 8 for a in attributes)


def test_no_pickle(exported) -> None:
    """The ONNX file holds no pickle; unpickling any place of it fails before the end."""
    content = exported("mlp").onnx.read_bytes()
    assert not zipfile.is_zipfile(io.BytesIO(content))
    for start in [
        i for i in range(len(content)) if content[i] == 0x80 and content[i + 1 : i + 2] in b"\x02\x03\x04\x05"
    ]:
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever a text that is no pickle makes it raise
            list(pickletools.genops(content[start:]))


def test_no_source_and_no_paths_are_inside(exported, format: str) -> None:
    """Tracers note where each node comes from: paths of the exporting machine and lines of the user's code."""
    content = exported("zoo").path(format).read_bytes()
    if format == "torchscript":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    for path in (Path(murho.__file__).parent, Path(torch.__file__).parent.parent):
        assert str(path).encode() not in content
    assert b"blitz.modules" not in content
    assert b"self.convolution(x" not in content
