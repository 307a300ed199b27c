"""Artifacts of half the size: μ in float16 and log σ in 8 bits, coded and decoded here by numpy alone."""

import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from blitz.modules import BayesianGRU, BayesianLinear, BayesianLSTM
from blitz.modules.base_bayesian_module import BayesianModule
from cases import CASES
from onnx.numpy_helper import to_array
from parity import TOLERANCE, blitz_samples, largest_error
from torch import nn

import murho
from murho.export import proof, to_onnx, to_torchscript, verify
from murho.export.coding import coded
from murho.export.montecarlo import Plan
from murho.export.subject import examine
from murho.models import Forecaster, Regressor
from murho.runtime.artifact import read

WRITE = {"onnx": to_onnx, "torchscript": to_torchscript}
SUFFIX = {"onnx": ".onnx", "torchscript": ".pt"}
SEED = 2**40 + 77  # not the proof's
DRAWS = np.random.default_rng(5).integers(0, 2**32, 33)
RHO = {"posterior_rho_init": -2.0}
CODE = 3500  # bytes of what expands a posterior, and of the report
EPS = np.finfo(np.float32).eps

# One of each kind of layer; biases left out, layers frozen and called twice; a registered layer; float64.
NETWORKS = (
    "Linear",
    "Linear, no bias, local sampling",
    "Linear behind an LSTM, local sampling",
    "Conv2d, all options",
    "Embedding, max_norm",
    "LSTM, no bias",
    "GRU frozen between two",
    "a layer called twice",
    "MOPED_",
    "double precision",
    "Flipout(Linear)",
    "a layer of the user's own",
    "three outputs, a dict",
)


@pytest.fixture(autouse=True)
def _calm() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Layer ")
        yield


@pytest.fixture
def path(tmp_path: Path, format: str) -> Path:
    return tmp_path / f"half{SUFFIX[format]}"


def rows(*sizes: int, batch: int = 16) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, *sizes)).astype(np.float32)


# Numpy's own coding


def rounded(mu: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A layer's μ and σ as the file gives them back, float64."""
    largest = np.abs(mu).max()
    unit = 2.0 ** (np.floor(np.log2(largest)) - 14) if largest else 1.0
    mu = (mu / unit).astype(np.float16).astype(np.float64) * unit
    if not (sigma > 0).any():
        return mu, sigma
    logs = np.log(sigma, where=sigma > 0, out=np.full_like(sigma, np.nan))
    low, high = np.nanmin(logs), np.nanmax(logs)
    if low < high:
        logs = low + (high - low) * np.rint((logs - low) / (high - low) * 254) / 254
    return mu, np.where(sigma > 0, np.exp(logs), 0.0)


def read_parts(layer: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor, Any]]:
    """μ and ρ of each tensor that the layer's forward reads, and which columns of it."""
    parts = {}
    for name, sampler in layer.named_children():
        tensor = name.removesuffix("_sampler")
        recurrent = isinstance(layer, BayesianLSTM | BayesianGRU)
        absent = tensor == "bias" and not (layer.use_bias if recurrent else getattr(layer, "bias", True))
        if not name.endswith("_sampler") or absent:
            continue
        columns: Any = slice(None)
        if isinstance(layer, BayesianGRU) and tensor != "bias":  # its forward never reads the others
            hidden = layer.out_features
            dead = range(3 * hidden, 4 * hidden) if tensor == "weight_ih" else range(2 * hidden, 3 * hidden)
            columns = [c for c in range(4 * hidden) if c not in dead]
        parts[tensor] = sampler.mu, sampler.rho, columns
    return parts


def posterior(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """μ and σ of a layer, flat, float64 numbers that are float32's."""
    parts = read_parts(layer).values()
    mu = np.concatenate([m.detach().float().numpy()[..., c].ravel() for m, _, c in parts])
    rho = np.concatenate([r.detach().double().numpy()[..., c].ravel() for _, r, c in parts])
    return mu.astype(np.float64), np.logaddexp(0, rho).astype(np.float32).astype(np.float64)


def halve(network: nn.Module) -> None:
    """Put the rounded posterior into BLiTZ's layers, but for frozen ones."""
    for layer in network.modules():
        if not isinstance(layer, BayesianModule) or layer.freeze:
            continue
        mu, sigma = rounded(*posterior(layer))
        rho = np.where(sigma > 0, sigma + np.log(-np.expm1(-np.where(sigma > 0, sigma, 1.0))), -np.inf)
        start = 0
        for old_mu, old_rho, columns in read_parts(layer).values():
            for old, values in ((old_mu, mu), (old_rho, rho)):
                shape = old.data[..., columns].shape
                old.data[..., columns] = torch.from_numpy(values[start : start + shape.numel()]).reshape(shape).to(old)
            start += shape.numel()


# What the file says


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_to_blitz_with_the_rounded_posterior(path: Path, format: str, name: str) -> None:
    case = CASES[name]
    with case.network() as network:
        before = {key: value.clone() for key, value in network.state_dict().items() if "eps_w" not in key}
        WRITE[format](network, path, case.example, **case.options, storage="half")
        after = network.state_dict()
        assert all(torch.equal(after[key], value) for key, value in before.items()), "the user's network changed"
        _, trained = blitz_samples(case, network, 3, DRAWS, SEED)
    with case.network() as network:
        halve(network)
        inputs, want = blitz_samples(case, network, 3, DRAWS, SEED)
    got = murho.load(path, trusted=True).predict_all(inputs, DRAWS, seed=SEED)
    assert largest_error(got, want) <= TOLERANCE
    # The comparison can fail: the trained posterior is another.
    assert largest_error(got, trained) > 4 * TOLERANCE


@pytest.fixture
def layer(tmp_path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """An LSTM of 2 · 10⁴ weights with σ over two orders of magnitude, and the initializers of its file."""
    torch.manual_seed(0)
    network = nn.Sequential(BayesianLSTM(4, 64), Last(), nn.Linear(64, 1))
    for _, rho, _ in read_parts(network[0]).values():
        nn.init.uniform_(rho, -6.0, -1.5)
    to_onnx(network, tmp_path / "model.onnx", rows(3, 4), storage="half")
    tensors = {t.name: to_array(t) for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    return network[0], {name.removeprefix("network.0."): values for name, values in tensors.items()}


class Last(nn.Module):
    def forward(self, pair: Any) -> torch.Tensor:
        return pair[0][:, -1]


def test_errors_of_mu_and_sigma(layer: tuple[Any, dict[str, np.ndarray]]) -> None:
    """μ by half a float16 ULP at most, σ by half a step; and that is what the stored numbers say."""
    (mu, sigma), stored = posterior(layer[0]), layer[1]
    assert {name: stored[name].dtype for name in ("mu.halves", "sigma.codes")} == {
        "mu.halves": np.float16,
        "sigma.codes": np.uint8,
    }
    assert (stored["sigma.codes"].min(), stored["sigma.codes"].max()) == (1, 255)
    step = stored["sigma.step"]
    assert step == pytest.approx(np.log(sigma.max() / sigma.min()) / 254)
    decoded = np.exp(stored["sigma.base"] + step * stored["sigma.codes"])
    off = np.abs(np.log(decoded / sigma))
    assert 0.49 * step < off.max() <= 0.5 * step + 1e-9
    means = stored["mu.halves"].astype(np.float64) * stored["mu.unit"]
    ulp = np.spacing(np.abs(stored["mu.halves"])).astype(np.float64) * stored["mu.unit"]
    assert 0.49 < (np.abs(means - mu) / ulp).max() <= 0.5
    want_mu, want_sigma = rounded(mu, sigma)
    np.testing.assert_array_equal(means, want_mu)
    np.testing.assert_allclose(decoded, want_sigma, rtol=1e-12)


@pytest.mark.parametrize("build", [lambda: BayesianLSTM(4, 64, **RHO), lambda: BayesianGRU(4, 64, **RHO)])
def test_size(path: Path, format: str, tmp_path: Path, build: Callable[[], nn.Module]) -> None:
    """Three bytes for eight; what comes on top is code of a fixed length. Torch's own layers and frozen ones stay."""
    network = nn.Sequential(build(), Last(), nn.Linear(64, 64), BayesianLinear(64, 64))
    network[3].freeze = True
    whole = path.with_stem("whole")
    WRITE[format](network, whole, rows(3, 4))
    card = WRITE[format](network, path, rows(3, 4), storage="half")
    (site,) = card.sites
    saved = whole.stat().st_size - path.stat().st_size
    assert 5 * site.n - CODE < saved < 5 * site.n


def test_onnx_runtime_expands_it_once(tmp_path: Path) -> None:
    """After loading there are as many nodes as without, and μ and σ are float32 constants."""
    torch.manual_seed(0)
    network = nn.Sequential(BayesianLinear(3, 8, **RHO), nn.ReLU(), BayesianLinear(8, 1, **RHO))
    loaded = {}
    for storage in ("float32", "half"):
        path = tmp_path / f"{storage}.onnx"
        to_onnx(network, path, rows(3), storage=storage)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        loaded[storage] = onnx.load(tmp_path / "loaded.onnx").graph
    kinds = {storage: sorted(node.op_type for node in graph.node) for storage, graph in loaded.items()}
    assert kinds["half"] == kinds["float32"]
    tensors = [to_array(t) for t in loaded["half"].initializer]
    for layer in (network[0], network[2]):
        for values in rounded(*posterior(layer)):
            found = [t for t in tensors if t.shape == values.shape and t.dtype == np.float32]
            assert any(np.array_equal(t, values.astype(np.float32)) for t in found)


def test_torchscript_expands_it_when_loaded(tmp_path: Path) -> None:
    """The file holds codes, the module whole buffers, which a host may move to another device."""
    torch.manual_seed(0)
    network, path = nn.Sequential(BayesianLinear(3, 64, **RHO), nn.ReLU(), nn.Linear(64, 1)), tmp_path / "half.pt"
    to_torchscript(network, path, rows(3), storage="half")
    with zipfile.ZipFile(path) as archive:
        sizes = [info.file_size for info in archive.infolist() if "/data/" in info.filename]
    n = 4 * 64
    assert {n, 2 * n} <= set(sizes)
    assert 4 * n not in [size for size in sizes if size != 256]
    buffers = {name.rpartition(".")[2]: values.numpy() for name, values in torch.jit.load(path).named_buffers()}
    mu, sigma = (values.astype(np.float32) for values in rounded(*posterior(network[0])))
    np.testing.assert_array_equal(buffers["mu"], mu)
    np.testing.assert_array_equal(buffers["sigma"], sigma)


def test_a_path_with_noise_keeps_the_posterior_once(path: Path, format: str) -> None:
    """Each of the steps calls the layer; the two formats agree draw by draw, which the proof compares with BLiTZ."""
    torch.manual_seed(0)
    network, noise = Forecaster(hidden=48, posterior_rho_init=-3.0), murho.Noise("student-t", 5, (0.1,))
    about, whole = {"task": "forecast", "horizon": 3, "noise": noise}, path.with_stem("whole")
    card = WRITE[format](network, path, rows(5, 1), storage="half", **about)
    assert card.verification["exact"]["largest_error"] <= 1.1 * TOLERANCE
    WRITE[format](network, whole, rows(5, 1), **about)
    assert whole.stat().st_size - path.stat().st_size > 5 * card.sites[0].n - CODE
    if format == "onnx":
        nodes = [node.op_type for node in onnx.load(path).graph.node]
        assert (nodes.count("CodedMu"), nodes.count("CodedSigma"), nodes.count("BayesianLSTMLast")) == (1, 1, 3)


def test_calibrate_and_save(path: Path, format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, noise = Regressor(3, (32,), 2, learned_noise=True, posterior_rho_init=-2.0), murho.Noise()
    WRITE[format](network, path, rows(3), noise=noise, storage="half")
    model, x = murho.load(path, trusted=True), rows(3, batch=60)
    y = 4 * np.random.default_rng(1).standard_normal((60, 2))
    before = model.samples(x, 32, SEED)
    model.calibrate(x, y, (0.8,), draws=64)
    calibrated = path.with_stem("calibrated")
    model.save(calibrated)
    again = murho.load(calibrated, trusted=True)
    assert again.card.storage == "half"
    assert calibrated.stat().st_size < path.stat().st_size + 2000
    np.testing.assert_array_equal(again.samples(x, 32, SEED), before)
    one, other = (m.predict(x, 64, 0.8, SEED) for m in (model, again))
    np.testing.assert_array_equal(one.upper, other.upper)
    assert not np.array_equal(one.upper, murho.load(path, trusted=True).predict(x, 64, 0.8, SEED).upper)


# What is said of it


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A network, and its artifacts by format and storage."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("both")
    network = Regressor(3, (32, 32), 2, posterior_rho_init=-3.0)
    paths = {}
    for format, write in WRITE.items():
        for storage in ("float32", "half"):
            paths[format, storage] = folder / f"{storage}{SUFFIX[format]}"
            write(network, paths[format, storage], rows(3), storage=storage)
    return network, paths


def test_the_digest(both: Any) -> None:
    """Both formats hold one posterior; the rounded one is another than the trained one."""
    digests = {key: read(path).card.posterior_sha256 for key, path in both[1].items()}
    assert digests["onnx", "half"] == digests["torchscript", "half"] != digests["onnx", "float32"]


def test_the_report(both: Any, format: str) -> None:
    """The same numbers from the two files, by what `predict` answers."""
    network, paths = both
    report = read(paths[format, "half"]).card.verification["storage"]
    subject = examine(network, rows(3), Plan(murho.Scaling()))
    x = subject.inputs(report["rows"])[0].numpy()
    whole, half = (
        murho.load(paths[format, storage], trusted=True).predict(x, report["draws"], report["level"], proof.SEED)
        for storage in ("float32", "half")
    )
    assert report["draws"] >= 200
    assert report["rows"] == 16
    largest = np.abs(half.samples - whole.samples).max() / np.abs(whole.samples).max()
    assert report["samples"] == pytest.approx(largest, rel=0.01)
    moved = np.maximum(np.abs(half.lower - whole.lower), np.abs(half.upper - whole.upper)) / (whole.upper - whole.lower)
    assert report["ends"] == pytest.approx(np.median(moved), rel=0.05)
    assert report["largest_end"] == pytest.approx(moved.max(), rel=0.05)
    assert 0 < report["ends"] < report["largest_end"] < 0.01
    assert "storage" not in read(paths[format, "float32"]).card.verification


def test_verify(both: Any, format: str) -> None:
    network, paths = both
    path = paths[format, "half"]
    assert verify(path, network, rows(3), trusted=True) == read(path).card.verification
    weight = next(network.parameters())
    with torch.no_grad():
        weight.mul_(1.01)
    try:
        with pytest.raises(murho.ExportError, match="was made from another posterior"):
            verify(path, network, rows(3), trusted=True)
    finally:
        with torch.no_grad():
            weight.div_(1.01)


def test_a_wrong_expansion_fails_the_proof(path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A σ one step too large, in the file alone, is seen: one code of 255 over a range of 4 changes σ by 1.6 %."""
    torch.manual_seed(0)
    network = nn.Sequential(BayesianLinear(3, 64, **RHO), nn.Tanh(), nn.Linear(64, 1))
    nn.init.uniform_(network[0].weight_sampler.rho, -5.0, -1.0)
    module = "onnx_file.keep_coded" if format == "onnx" else "torchscript_file.CodedPosterior"
    target = f"murho.export.{module}"
    if format == "onnx":
        from murho.export.onnx_coded import keep_coded

        def off(model: onnx.ModelProto, posteriors: Any) -> None:
            keep_coded(model, posteriors)
            base = next(t for t in model.graph.initializer if t.name.endswith("base"))
            step = next(t for t in model.graph.initializer if t.name.endswith("step"))
            base.raw_data = (to_array(base) + to_array(step)).tobytes()

        monkeypatch.setattr(target, off)
    else:
        from murho.export.coding import CodedPosterior

        def shifted(form: Any) -> nn.Module:
            made = CodedPosterior(form)
            made.base += made.step
            return made

        monkeypatch.setattr(target, shifted)
    with pytest.raises(murho.ExportError, match="The file holds another weight than the network: σ"):
        WRITE[format](network, path, rows(3), storage="half")
    assert not path.exists()


def test_one_changed_byte(both: Any, format: str, tmp_path: Path) -> None:
    source = both[1][format, "half"]
    path = Path(shutil.copy(source, tmp_path / source.name))
    form = coded("", *(torch.from_numpy(v.astype(np.float32)) for v in posterior(both[0].layers[0])))
    content = bytearray(path.read_bytes())
    codes = form.codes.numpy().tobytes()
    content[content.index(codes) + len(codes) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(murho.ArtifactError, match="changed or damaged"):
        murho.load(path, trusted=True)


# Awkward values


def expanded(mu: Any, sigma: Any) -> tuple[np.ndarray, np.ndarray]:
    """By the export's own coding."""
    form = coded("some.layer", torch.tensor(mu, dtype=torch.float32), torch.tensor(sigma, dtype=torch.float32))
    return tuple(values.numpy().astype(np.float64) for values in form.expanded())


def test_no_spread_at_all() -> None:
    mu, sigma = expanded([1.0, -2.0], [0.0, 0.0])
    assert mu.tolist() == [1.0, -2.0]
    assert sigma.tolist() == [0.0, 0.0]


def test_one_spread_for_all() -> None:
    """A range of zero is exact."""
    for value in (1e-30, 0.018149927, 1.0, 88.5):
        assert expanded([0.5] * 3, [value] * 3)[1].tolist() == [np.float32(value)] * 3


def test_weights_without_spread_among_others() -> None:
    _, sigma = expanded([0.1] * 4, [0.0, 0.01, 0.0, 0.04])
    assert sigma[[0, 2]].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(sigma[[1, 3]], [0.01, 0.04], rtol=EPS)  # the ends of the range


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e-6, 1.0, 65504.0, 65520.0, 1e6, 3.4e38])
def test_means_of_any_size(size: float) -> None:
    """Float16 alone would lose those below 6e-8 and above 65504."""
    mu = np.random.default_rng(0).uniform(-size, size, 1000).astype(np.float32)
    got = expanded(mu, np.ones(1000))[0]
    smallest = np.abs(mu).max() * 2.0**-39 + 2.0**-150  # half of float16's and of float32's smallest number
    assert (np.abs(got - mu) <= 2.0**-11 * np.abs(mu) + smallest).all()


def test_means_of_zero() -> None:
    assert expanded([0.0, -0.0], [0.1, 0.2])[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("smallest", [1e-9, 1e-20, 1e-45])
def test_a_range_too_wide(smallest: float) -> None:
    """Up to 5 % of σ for half a step: (1.05²)^254 = 5.8e10 from end to end."""
    if smallest > 1 / 5.8e10:
        off = expanded([0.0] * 500, np.geomspace(smallest, 1.0, 500))[1] / np.geomspace(smallest, 1.0, 500)
        assert np.abs(off - 1).max() < 0.05
        return
    with pytest.raises(murho.ExportError, match=r"Layer 'some.layer' has σ from 1.*e-\d\d to 1: 8 bits would change"):
        expanded([0.0, 0.0], [smallest, 1.0])


def test_a_range_too_wide_leaves_no_file(path: Path, format: str) -> None:
    network = nn.Sequential(BayesianLinear(3, 4, **RHO), nn.Sequential(BayesianLinear(4, 1, **RHO)))
    network[1][0].weight_sampler.rho.data[0, 0] = -90.0
    with pytest.raises(murho.ExportError, match=r'Layer \'1\.0\' has σ from .*Export with storage="float32"\.'):
        WRITE[format](network, path, rows(3), storage="half")
    assert not path.exists()


def test_awkward_posteriors_export(path: Path, format: str) -> None:
    """Large, tiny and zero ones in one network: the proof compares them with BLiTZ."""
    torch.manual_seed(0)
    network = nn.Sequential(BayesianLinear(3, 8, **RHO), BayesianLinear(8, 8), BayesianLinear(8, 1, **RHO))
    with torch.no_grad():
        for part, scale in ((network[0], 1e6), (network[2], 1e-6)):
            for sampler in (part.weight_sampler, part.bias_sampler):
                sampler.mu.mul_(scale)
                sampler.rho.copy_(torch.expm1(0.2 * sampler.mu.abs()).log() if scale < 1 else 0.2 * sampler.mu.abs())
        network[1].weight_sampler.rho[:, :4] = -200.0  # σ = 0
    card = WRITE[format](network, path, rows(3), storage="half")
    assert card.verification["passed"]


def test_a_spread_that_drowns_in_the_rounding_of_mu(path: Path, format: str) -> None:
    network = nn.Sequential(BayesianLinear(3, 8, posterior_rho_init=-11.0), nn.ReLU(), nn.Linear(8, 1))
    with pytest.warns(
        UserWarning, match=r"moves the ends of an interval by up to \d+% of its width: σ is small"
    ) as caught:
        WRITE[format](network, path, rows(3), storage="half")
    assert {Path(w.filename).name for w in caught if "storage" in str(w.message)} == {Path(__file__).name}


def test_an_unknown_storage(path: Path, format: str) -> None:
    with pytest.raises(murho.InputError, match="storage must be one of 'float32', 'half', not 'float16'"):
        WRITE[format](nn.Sequential(BayesianLinear(3, 1)), path, rows(3), storage="float16")


def test_a_card_that_says_nothing_of_storage(both: Any) -> None:
    """Files from before the option are float32."""
    import json

    data = json.loads(read(both[1]["onnx", "float32"]).card.to_json())
    del data["storage"]
    assert murho.Card.from_json(json.dumps(data)).storage == "float32"
