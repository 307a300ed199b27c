"""Programs of torch.export: the numbers of BLiTZ and of the other formats, read by torch alone."""

import functools
import io
import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from blitz.modules import BayesianLinear
from cases import CASES
from parity import TOLERANCE, blitz_samples, first_rows, largest_error
from torch import Tensor, nn

import murho
from murho import ExportError, InputError, Noise
from murho.export import proof, pt2_file, to_onnx, to_pt2, verify
from murho.models import Forecaster, Regressor
from murho.runtime.artifact import DIGEST_LENGTH, read, zip_digest

SEED = -(2**40) + 77  # not the proof's
DRAWS = np.random.default_rng(5).integers(0, 2**32, 33)
LEVELS = (0.5, 0.9)
DAMAGED = r"net\.pt2 (is damaged or cut short|is not a murho artifact|was changed or damaged)"


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """A short test in law: the other formats have the long one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "law", functools.partial(proof.law, draws=50))
        yield


@pytest.fixture(scope="module")
def demo(exported, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The demo's forecaster, an LSTM, as a program, beside its other formats."""
    case = exported("demo")
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    card = to_pt2(case.network, path, case.example, scaling=case.scaling)
    return SimpleNamespace(case=case, path=path, card=card)


@pytest.fixture
def small(demo, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copy(demo.path, tmp_path / "net.pt2"))


# The numbers


@pytest.mark.parametrize("steps", [1, 2, 21])
def test_an_lstm_over_any_time_says_what_blitz_and_onnx_say(demo, steps: int) -> None:
    model, onnx = murho.load(demo.path, trusted=True), murho.load(demo.case.onnx)
    assert model.engine == "torch.export"
    for rows, draws in ((1, DRAWS[:2]), (3, DRAWS)):
        x = np.resize(demo.case.example, (rows, steps, 1))
        samples, want = model.samples(x, draws, SEED), demo.case.blitz(x, draws, SEED)
        spacing = np.spacing(np.abs(samples).max()) / demo.case.scaling.output_scale[0]
        error = np.abs(demo.case.in_network_units(samples) - want).max() / np.abs(want).max()
        assert error <= TOLERANCE + spacing / np.abs(want).max()
        np.testing.assert_allclose(samples, onnx.samples(x, draws, SEED), rtol=3e-7)


def test_one_call_gives_what_numpy_makes_of_the_samples(demo) -> None:
    program = torch.export.load(demo.path).module()
    x = demo.case.example[:2]
    results = program(torch.tensor(x), torch.arange(50), torch.tensor(SEED), torch.tensor(LEVELS))
    samples, mean, std, lower, upper = (part.numpy() for part in results)
    np.testing.assert_allclose(samples, murho.load(demo.case.onnx).samples(x, 50, SEED), rtol=3e-7)
    alone = program(torch.tensor(x), torch.arange(1), torch.tensor(SEED), torch.tensor(LEVELS))[0]
    np.testing.assert_allclose(alone.numpy(), samples[:1], rtol=3e-7)
    exact = samples.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, exact.std(axis=0, ddof=1), rtol=1e-3)
    for ends, sign in ((lower, -1), (upper, 1)):
        np.testing.assert_allclose(ends, np.quantile(exact, [(1 + sign * k) / 2 for k in LEVELS], axis=0), rtol=1e-6)


# One for each way through torch.export; `python benchmarks/parity.py` goes through them all.
NETWORKS = (
    "Linear, local sampling", 'Conv1d, padding "same"', "Conv2d, all options", "Conv3d, groups",
    "Embedding, every option", "LSTM, peephole", "GRU, states passed in and returned", "LSTM frozen between two",
    "a residual branch around", "Sequential of layers of every kind", "a layer of the user's own", "scaled",
    "two inputs, a dict of values and tokens", "three outputs, a tuple", "classification, logits",
)  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_says_what_blitz_says(tmp_path: Path, name: str) -> None:
    case, path = CASES[name], tmp_path / "net.pt2"
    with case.network() as network, quiet():
        to_pt2(network, path, case.example, **case.options)
        inputs, want = blitz_samples(case, network, 3, DRAWS, SEED)
    model = murho.load(path, trusted=True)
    for rows in (1, 3):
        got = model.predict_all(first_rows(inputs, rows), DRAWS, seed=SEED)
        assert largest_error(got, {key: y[:, :rows] for key, y in want.items()}) <= TOLERANCE
    # The comparison can fail: another seed's noise moves the outputs by far more.
    assert largest_error(model.predict_all(inputs, DRAWS, seed=SEED + 1), want) > 100 * TOLERANCE


@pytest.mark.parametrize("options", [{}, {"bias": False, "bidirectional": True, "num_layers": 2, "batch_first": True}])
@pytest.mark.parametrize(
    ("cls", "more"), [(nn.LSTM, {}), (nn.GRU, {}), (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"})]
)
def test_torchs_recurrent_layers_by_scans(cls: Any, more: dict[str, str], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = cls(2, 3, **more, **options)
    x = torch.randn(4, 5, 2)
    with torch.no_grad():
        want, after = layer(x)
        again, last = layer(x, after)
        scanned, state = pt2_file.recurrent(layer, x)
        torch.testing.assert_close(scanned, want, rtol=0, atol=1e-6)
        torch.testing.assert_close(pt2_file.recurrent(layer, x, state), (again, last), rtol=0, atol=1e-6)


def test_torchs_layers_in_a_network_over_any_time(exported, tmp_path: Path) -> None:
    """nn.LSTM of two layers, nn.GRU in both directions, frozen layers, one called twice, states handed on."""
    case = exported("zoo")
    to_pt2(case.network, tmp_path / "net.pt2", case.example)
    x = np.random.default_rng(3).standard_normal((3, 9, 2), dtype=np.float32)
    got, want = murho.load(tmp_path / "net.pt2", trusted=True).samples(x, DRAWS, SEED), case.blitz(x, DRAWS, SEED)
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * np.abs(want).max())


# Noise, paths, calibration, streams, storage


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A network that says its noise and goes three steps, as a program and in ONNX, and data to calibrate it on."""
    folder = tmp_path_factory.mktemp("path")
    torch.manual_seed(3)
    network = Forecaster(hidden=4, learned_noise=True)
    random = np.random.default_rng(5)
    x = random.normal(20, 3, (60, 6, 1)).astype(np.float32)
    about: dict[str, Any] = {"noise": Noise("student-t", 4), "horizon": 3}
    about["scaling"] = murho.Scaling((20.0,), (3.0,), (20.0,), (3.0,))
    with quiet():
        to_pt2(network, folder / "net.pt2", x, **about)
        to_onnx(network, folder / "net.onnx", x, **about)
    y = x[:, -1] + random.normal(0, 9, (60, 3))
    return SimpleNamespace(network=network, pt2=folder / "net.pt2", onnx=folder / "net.onnx", x=x, y=y)


def test_noise_and_paths(path) -> None:
    program, onnx = murho.load(path.pt2, trusted=True), murho.load(path.onnx)
    for observed in (True, False):
        ours, theirs = (model.samples(path.x[:4], DRAWS, SEED, noise=observed) for model in (program, onnx))
        assert ours.shape == (len(DRAWS), 4, 3)
        np.testing.assert_allclose(ours, theirs, rtol=2e-6)
    assert verify(path.pt2, path.network, path.x, trusted=True)["passed"]


def test_calibrated_ends_are_in_the_file(path, tmp_path: Path) -> None:
    """And again, by numpy in float64: the sides of the interval from the median on, times the factors."""
    model = murho.load(path.pt2, trusted=True)
    found = model.calibrate(path.x, path.y, LEVELS, draws=64)
    model.save(tmp_path / "net.pt2")
    assert murho.load(tmp_path / "net.pt2", trusted=True).card.calibration == found
    onnx = murho.load(path.onnx)
    np.testing.assert_allclose(onnx.calibrate(path.x, path.y, LEVELS, draws=64).factors, found.factors, rtol=1e-4)
    program = torch.export.load(tmp_path / "net.pt2").module()
    for on in (1.0, 0.0):
        arguments = (torch.tensor(path.x[:5]), torch.arange(64), torch.tensor(SEED), torch.tensor(LEVELS))
        samples, _, _, lower, upper = (part.numpy() for part in program(*arguments, torch.tensor(on)))
        exact = samples.astype(np.float64)
        factors = np.where(on, np.array(found.factors), 1.0)[:, None]
        median = np.median(exact, axis=0)
        for ends, sign in ((lower, -1), (upper, 1)):
            plain = np.quantile(exact, [(1 + sign * level) / 2 for level in LEVELS], axis=0)
            np.testing.assert_allclose(ends, median + factors * (plain - median), rtol=1e-5)
        if on:
            answer = murho.load(tmp_path / "net.pt2", trusted=True).predict(path.x[:5], 64, LEVELS, SEED)
            np.testing.assert_allclose(answer.lower, lower, rtol=1e-5)


@pytest.mark.parametrize("storage", ["float32", "half"])
def test_a_stream(tmp_path: Path, storage: str) -> None:
    """Row by row what it says of the whole, by torch alone too; its posterior kept in three bytes a weight or eight."""
    torch.manual_seed(0)
    case = CASES["GRU"]
    with case.network() as network, quiet():
        card = to_pt2(network, tmp_path / "net.pt2", case.example, streaming=True, storage=storage)
    assert card.verification["streamed"]["largest_error"] <= TOLERANCE
    width = card.states[0].shape[2]
    program = torch.export.load(tmp_path / "net.pt2").module()
    draws, levels = torch.arange(8), torch.tensor(LEVELS)
    states, x = torch.zeros(8, 2, width), torch.randn(2, 4, case.example.shape[2])
    whole = program(x, draws, torch.tensor(SEED), levels, states)
    for step in range(4):
        *results, states = program(x[:, step : step + 1], draws, torch.tensor(SEED), levels, states)
    torch.testing.assert_close(results, list(whole[:-1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(states, whole[-1], rtol=0, atol=1e-5)


def test_half_the_size_is_in_the_file(tmp_path: Path) -> None:
    network, x = Regressor(50, (100,), 1), np.ones((4, 50), np.float32)
    with quiet():
        for storage in ("float32", "half"):
            to_pt2(network, tmp_path / f"{storage}.pt2", x + np.arange(4)[:, None], storage=storage)
    sizes = {name: weight_bytes(tmp_path / f"{name}.pt2") for name in ("float32", "half")}
    sampled = 50 * 100 + 100 + 100 + 1
    assert sizes["float32"] - sizes["half"] == sampled * (8 - 3)


def weight_bytes(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist() if "/data/weights/weight_" in entry.filename)


# The file


ALONE = """
import json, sys
sys.modules["murho"] = sys.modules["blitz"] = None
import numpy, torch
extra = {"murho.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra)
x = torch.from_numpy(numpy.load(sys.argv[2]))
results = program.module()(x, torch.arange(20), torch.tensor(7), torch.tensor([0.5, 0.9]))
numpy.savez(sys.argv[3], *(part.numpy() for part in results))
graphs = (part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule))
targets = (node.target for graph in graphs for node in graph.nodes)
domains = {target.namespace for target in targets if isinstance(target, torch._ops.OperatorBase)}
name = json.loads(extra["murho.json"])["name"]
print(json.dumps([name, sorted(domains), sorted(program.graph_signature.user_inputs)]))
"""


def test_torch_alone_reads_it(demo, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", demo.case.example[:3])
    command = [sys.executable, "-c", ALONE, demo.path, tmp_path / "x.npy", tmp_path / "results.npz"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, cwd=tmp_path)
    name, domains, inputs = json.loads(done.stdout.splitlines()[-1])
    assert (name, domains, inputs) == ("net", ["aten", "higher_order"], ["draws", "levels", "seed", "x"])
    answer = murho.load(demo.case.onnx).predict(demo.case.example[:3], 20, list(LEVELS), 7)
    results = np.load(tmp_path / "results.npz").values()
    for part, values in zip(("samples", "mean", "std", "lower", "upper"), results, strict=True):
        np.testing.assert_allclose(values, getattr(answer, part), rtol=1e-3 if part == "std" else 1e-6, err_msg=part)


def test_a_card_is_read_and_a_missing_torch_named(demo) -> None:
    code = """
import sys
sys.modules["torch"] = None
import murho
from murho.runtime.artifact import read
print(read(sys.argv[1]).card.name, read(sys.argv[1]).format)
try:
    murho.load(sys.argv[1], trusted=True)
except murho.MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(demo.path)], capture_output=True, text=True, check=True)
    message = f'{demo.path} is a program of torch.export and needs torch: pip install "murho[torchscript]"'
    assert done.stdout.splitlines() == ["net pt2", message]


def test_neither_the_example_nor_paths_are_in_the_file(demo) -> None:
    content = demo.path.read_bytes()
    assert demo.case.example[0].tobytes() not in content
    for trace in (b"site-packages", str(Path(__file__).parents[1]).encode(), b"forward("):
        assert trace not in content


@pytest.mark.parametrize("suffix", [".onnx", ".pt"])
def test_the_suffix_says_what_the_content_is(small: Path, suffix: str) -> None:
    path = small.rename(small.with_suffix(suffix))
    with pytest.raises(murho.ArtifactError, match=r"is a program of torch\.export by its content, .* end in \.pt2"):
        murho.load(path, trusted=True)


@pytest.mark.parametrize("share", [0.1, 0.9, 0.9999])
def test_truncated(small: Path, share: float) -> None:
    content = small.read_bytes()
    small.write_bytes(content[: int(share * len(content))])
    with pytest.raises(murho.ArtifactError, match=DAMAGED):
        murho.load(small, trusted=True)


@pytest.mark.parametrize("what", ["a weight", "an operator", "card", "digest"])
def test_one_changed_byte(demo, small: Path, what: str) -> None:
    content = bytearray(small.read_bytes())
    mu = next(iter(demo.case.posteriors.values())).mu.numpy().tobytes()
    marks = {"a weight": mu, "an operator": b"higher_order", "card": b'"regression"', "digest": content[-64:]}
    content[content.index(marks[what]) + 3] ^= 1
    small.write_bytes(content)
    with pytest.raises(murho.ArtifactError, match=DAMAGED):
        murho.load(small, trusted=True)


def test_a_program_that_is_not_murhos(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(2, 1), (torch.ones(3, 2),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(murho.ArtifactError, match=r"net\.pt2 is not a murho artifact"):
        murho.load(tmp_path / "net.pt2", trusted=True)


def test_a_program_that_torch_cannot_read(small: Path) -> None:
    """Whole, by its checksum, and yet nothing that this torch knows."""
    content = io.BytesIO()
    with zipfile.ZipFile(small) as source, zipfile.ZipFile(content, "w") as target:
        for name in source.namelist():
            body = source.read(name)
            target.writestr(name, body.replace(b"aten.linear", b"aten.lineas") if name.endswith("model.json") else body)
        target.comment = b"0" * DIGEST_LENGTH
    body = content.getvalue()
    small.write_bytes(body[:-DIGEST_LENGTH] + zip_digest(body).encode())
    assert read(small).format == "pt2"
    with pytest.raises(murho.ArtifactError, match=r"torch .* cannot load .*net\.pt2"):
        murho.load(small, trusted=True)


# Errors


def test_another_device_and_suffix(demo, small: Path) -> None:
    with pytest.raises(
        InputError, match=r"needs a TorchScript or ONNX artifact; .*net\.pt2 is a program of torch\.export"
    ):
        murho.load(small, device="cuda", trusted=True)
    with pytest.raises(InputError, match=r"artifact is pt2, so its name must end in \.pt2, not net\.pt"):
        murho.load(small, trusted=True).save(small.with_suffix(".pt"))


def test_bad_inputs(demo) -> None:
    model = murho.load(demo.path, trusted=True)
    with pytest.raises(InputError, match="x must"):
        model.predict(np.ones((2, 9, 2)), 16)
    with pytest.raises(InputError, match="finite"):
        model.predict(np.full((2, 9, 1), np.nan), 16)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = BayesianLinear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


def test_a_network_that_cannot_be_traced_leaves_no_file(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((4, 3), dtype=np.float32)
    with quiet(), pytest.raises(ExportError, match=r"test_pt2\.py:\d+: .*branches on values"):
        to_pt2(Branching(), tmp_path / "net.pt2", x)
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_says_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof looks at the program itself: its scan is made to forget what came before."""
    scan = torch.ops.higher_order.scan

    def forgetful(step: Any, first: Any, xs: Any, constants: Any) -> Any:
        return scan(lambda h, *rest: step(torch.zeros_like(h), *rest), first, xs, constants)

    monkeypatch.setattr(pt2_file, "SCAN", forgetful)
    case = CASES["GRU"]
    with case.network() as network, quiet(), pytest.raises(ExportError, match="disagrees with BLiTZ at equal noise"):
        to_pt2(network, tmp_path / "net.pt2", case.example)
    assert list(tmp_path.iterdir()) == []


class quiet(warnings.catch_warnings):  # noqa: N801 - reads as a verb where it is used
    """A σ that never left its start is of no interest here."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
