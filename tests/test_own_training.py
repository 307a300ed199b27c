"""A network from BLiTZ's own loop: every snippet of the guide runs, and what its commands need is what they say."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from blitz.modules import BayesianLinear
from torch import nn

import murho
from murho import InputError, Noise, Scaling
from murho.cli.page_packages import VERSIONS
from murho.evaluation import LEVELS, evaluate, score
from murho.evaluation.evaluate import forecasts_of
from murho.export import to_onnx
from murho.train import residual_noise

GUIDE = Path(__file__).parents[1] / "docs" / "own-training.md"
ROWS, WINDOW = 800, 21

RUN = """
import contextlib, io, json, os, re, shlex, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
python, shell = json.loads(Path("snippets.json").read_text())
space = {"__name__": "__main__"}
for block in python:
    exec(compile(block, "snippet", "exec"), space)
scores = space["evaluate"](space["model"], space["x"][600:], space["y"][600:])
assert {k: s.as_json() for k, s in scores.items()} == {k: s.as_json() for k, s in space["scores"].items()}
import numpy as np
np.save("answer.npy", space["answer"].to_numpy())
from murho.cli.entry import main
said = {}
for line in shell:
    name, *arguments = shlex.split(line)
    sys.argv = ["murho", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, (line, stop.code)
    said[arguments[0]] = out.getvalue()
Path("said.json").write_text(json.dumps(said))
"""


def snippets(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    price = np.full(ROWS, 100.0)
    for row in range(1, ROWS):  # it returns to 100, so that a network that reads levels can follow
        price[row] = 100 + 0.8 * (price[row - 1] - 100) + random.standard_normal()
    dates = pd.bdate_range("2020-01-01", periods=ROWS, name="date")
    return pd.DataFrame({"price": price, "volume": random.uniform(1000, 2000, ROWS)}, index=dates)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame) -> Path:
    """The folder in which the guide was followed."""
    folder = tmp_path_factory.mktemp("own")
    module, *python = snippets("python")
    (folder / "network.py").write_text(module)
    shell = [line for block in snippets("sh") for line in block.splitlines()]
    shell = [f"{line} --packages node_modules" if " page " in line else line for line in shell]
    (folder / "snippets.json").write_text(json.dumps([python, shell]))
    frame.to_csv(folder / "prices.csv")
    frame[400:600][::-1].to_csv(folder / "later.csv")
    frame[600:].to_csv(folder / "latest.csv")
    for name, files in {
        "onnxruntime-web": ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"),
        "uplot": ("LICENSE", "dist/uPlot.iife.min.js", "dist/uPlot.min.css"),
    }.items():
        (folder / "node_modules" / name / "dist").mkdir(parents=True)
        (folder / "node_modules" / name / "package.json").write_text(json.dumps({"version": VERSIONS[name]}))
        for file in files:
            (folder / "node_modules" / name / file).write_text("text")
    command = [sys.executable, "-W", "ignore::UserWarning", "-c", RUN]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "Repaired: The rows were not in date order: sorted by date." in outcome.stderr
    return folder


def test_every_snippet_of_the_guide_runs(done: Path) -> None:
    said = json.loads((done / "said.json").read_text())
    assert list(said) == ["verify", "bench", "calibrate", "evaluate", "predict", "page"]
    assert "says what BLiTZ says" in said["verify"]
    assert "BLiTZ loop" in said["bench"]
    assert "179 rows: all of later.csv" in " ".join(said["calibrate"].split())
    report = json.loads((done / "evaluation" / "evaluation.json").read_text())
    assert list(report["methods"]) == ["murho", "murho, online"]
    assert len(said["predict"].splitlines()) == 3  # of the latest window alone: titles and one row
    assert np.isfinite(np.load(done / "answer.npy")).all()


def test_the_page_shows_a_target_that_is_not_the_first_column(done: Path, frame: pd.DataFrame) -> None:
    text = next((done / "page").rglob("data.js")).read_text(encoding="utf-8")
    series = json.loads(text[text.index("{") : text.rindex("}") + 1])["series"]
    assert (series["target"], series["reads"], series["window"]) == ("price", ["volume", "price"], WINDOW)
    assert series["columns"] == ["volume", "price"]
    np.testing.assert_allclose(series["rows"], frame[600:][["volume", "price"]], rtol=1e-6)


def test_the_noise_makes_the_intervals_honest(done: Path, frame: pd.DataFrame) -> None:
    """Calibrated on 179 rows: the 90 % interval covers 90 % within four standard errors of both parts."""
    model = murho.load(done / "model.onnx")
    found = evaluate(model, frame[600:], "price")["murho"]
    error = np.sqrt(0.9 * 0.1 * (1 / 179 + 1 / 179))
    assert found.coverage["0.9"] == pytest.approx(0.9, abs=4 * error)
    assert model.card.noise is not None


# Without torch

BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split()))
from murho.cli.entry import main
arguments = sys.argv[2:]
while arguments:
    end = arguments.index("+") if "+" in arguments else len(arguments)
    sys.argv[1:], arguments = arguments[:end], arguments[end + 1:]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
"""
TRAIN_EXTRA = "torch blitz scipy sklearn onnx onnxscript scoringrules"


def test_calibrate_page_and_predict_need_the_cli_extra_alone(done: Path) -> None:
    commands = [
        *("calibrate", "model.onnx", "later.csv", "--out", "again.onnx"), "+",
        *("page", "again.onnx", "latest.csv", "--out", "again", "--packages", "node_modules"), "+",
        *("predict", "again.onnx", "--csv", "latest.csv", "--latest", "--out", "again.csv"), "+",
        *("bench", "again.onnx", "--batch", "1", "--draws", "16", "--rounds", "1"),
    ]  # fmt: skip
    command = [sys.executable, "-c", BLOCKED, TRAIN_EXTRA, *commands]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=done, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert murho.load(done / "again.onnx").card.calibration is not None
    assert len(pd.read_csv(done / "again.csv")) == 1
    assert (done / "again" / "index.html").is_file()


# Arrays and DataFrames


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A network of rows [B, 3] -> [B, 2] with noise, its data as arrays and as a DataFrame."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    x = random.standard_normal((300, 3)).astype(np.float32)
    y = x[:, :2] + 0.5 * random.standard_normal((300, 2)).astype(np.float32)
    network = nn.Sequential(BayesianLinear(3, 2, posterior_rho_init=-3.0))
    path = tmp_path_factory.mktemp("rows") / "rows.onnx"
    names = {"input_names": ("a", "b", "c"), "output_names": ("p", "q")}
    to_onnx(network, path, x[:16], noise=Noise(scale=(0.5, 0.5)), **names)
    frame = pd.DataFrame(np.concatenate([y, x], axis=1), columns=["p", "q", "a", "b", "c"])
    return {"path": path, "x": x, "y": y, "frame": frame, "network": network}


def test_calibrate_and_evaluate_take_arrays_and_frames_alike(rows: dict[str, Any]) -> None:
    frame, x, y = rows["frame"], rows["x"], rows["y"]
    factors, scores = [], []
    for given, truth in ((x, y), (frame, ["p", "q"]), (frame, frame[["p", "q"]]), (frame, y)):
        model = murho.load(rows["path"])
        factors.append(model.calibrate(given, truth).factors)
        scores.append({name: found.as_json() for name, found in evaluate(model, given, truth).items()})
    assert factors[1:] == factors[:-1]
    assert scores[1:] == scores[:-1]
    assert list(scores[0]) == ["murho"]  # no forecast: nothing follows in time
    found = score(forecasts_of(model, x, y.astype(np.float64))["murho"], y)
    assert scores[0]["murho"] == found.as_json()
    assert set(scores[0]["murho"]["coverage"]) == {f"{level:g}" for level in LEVELS}


def test_what_fits_no_rows_says_why(rows: dict[str, Any], done: Path, frame: pd.DataFrame) -> None:
    table, x, y = rows["frame"], rows["x"], rows["y"]
    model, windows = murho.load(rows["path"]), murho.load(done / "model.onnx")
    for one, given, truth, said in (
        (model, table, "r", r"lacks the column\(s\) r of the truth; it has p, q, a"),
        (model, table, "p", "y must be .rows = 300, output = 2."),
        (model, table, table[["p", "q"]][::-1], "y has another index than the answer to x"),
        (model, x, y[:5], "y must be .rows = 300"),
        (windows, frame, ["price", "volume"], "its task is no forecast of one column"),
        (windows, frame[:21], "price", "need at least 22 rows; the DataFrame has 21"),
        (windows, frame[::-1], "price", "must rise in time"),
    ):
        for call in (one.calibrate, lambda x, y, one=one: evaluate(one, x, y)):
            with pytest.raises(InputError, match=said):
                call(given, truth)


class Known(nn.Module):
    """Predicts x exactly, but for the weights' doubt σ x, σ = 0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = BayesianLinear(1, 1)
        with torch.no_grad():
            for sampler, mu, sigma in ((self.layer.weight_sampler, 1.0, 0.1), (self.layer.bias_sampler, 0.0, 1e-6)):
                sampler.mu.fill_(mu)
                sampler.rho.fill_(float(np.log(np.expm1(sigma))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.parametrize("double", [False, True])
def test_residual_noise_from_arrays_is_the_noise(double: bool) -> None:
    """Truth x + 0.7 ε: the noise's scale is 0.7, here within four standard errors, 0.7 / √(2 · 2000) each."""
    random = np.random.default_rng(1)
    x = random.standard_normal((2000, 1))
    y = x + 0.7 * random.standard_normal((2000, 1))
    network = Known().double() if double else Known()
    network.train()
    scaling = Scaling((3.0,), (2.0,), (-5.0,), (4.0,))
    raw = 2 * x + 3, 4 * y - 5
    frames = pd.DataFrame(raw[0]), pd.DataFrame(raw[1])
    for data, given in (((x, y[:, 0]), None), (raw, scaling), (frames, scaling)):
        found = residual_noise(network, data, scaling=given)
        assert found.scale[0] == pytest.approx(0.7, abs=4 * 0.7 / np.sqrt(4000))
    assert network.training
    with pytest.raises(InputError, match=r"y \[rows, values\], of the same 2 rows"):
        residual_noise(network, (x, y[:-1]))
    with pytest.raises(InputError, match="y must hold finite numbers"):
        residual_noise(network, (x, np.full((2000, 1), np.nan)))
    with pytest.raises(InputError, match=r"gives shape \(2000, 1\) for truth of \(2000, 2\)"):
        residual_noise(network, (x, np.concatenate([y, y], axis=1)))
    with pytest.raises(InputError, match=r"cannot take an input of shape \[2000, 2\]"):
        residual_noise(network, (np.concatenate([x, x], axis=1), y))
    with pytest.raises(InputError, match=r"a tuple \(x, y\) of rows that training did not see"):
        residual_noise(network, [x, y])


# module:factory

FACTORIES = {
    "there is no module": ("nowhere:network", r"there is no module 'nowhere' here\. Run the command beside nowhere"),
    "its import fails": ("broken:network", r"importing 'broken' fails \(ZeroDivisionError"),
    "it needs a package": ("needy:network", "the module 'needy' needs 'absent', which is not installed"),
    "there is no such name": ("own:nothing", "there is no 'nothing' in 'own'"),
    "it fails": ("own:fails", r"own:fails fails \(RuntimeError: no weights\)"),
    "it gives something else": ("own:number", "own:number gives int; it must be the trained network"),
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "needy.py").write_text("import absent")
    (tmp_path / "own.py").write_text(
        "from torch import nn\nnumber = lambda: 3\nready = nn.Linear(2, 3)\n"
        "def fails():\n    raise RuntimeError('no weights')\nclass Nets:\n    make = staticmethod(lambda: ready)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("broken", "needy", "own"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("case", FACTORIES)
def test_a_factory_that_gives_no_network_says_why(modules: None, case: str) -> None:
    from murho.cli.networks import network_of

    name, said = FACTORIES[case]
    with pytest.raises(InputError, match=said):
        network_of(name)


def test_a_factory_may_be_a_network_or_an_attribute(modules: None) -> None:
    from murho.cli.networks import network_of

    assert network_of("own:ready") is network_of("own:Nets.make")


def test_examples_for_a_proof_from_files(rows: dict[str, Any], tmp_path: Path) -> None:
    from murho.cli.networks import example_of

    card, x = murho.load(rows["path"]).card, rows["x"]
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", anything=x)
    rows["frame"].to_csv(tmp_path / "x.csv", index=False)
    assert np.array_equal(example_of(card, tmp_path / "x.npy"), x)
    assert np.array_equal(example_of(card, tmp_path / "x.npz"), x)
    assert example_of(card, tmp_path / "x.csv").shape == (32, 3)
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("text")
    for name in ("objects.npy", "text.npy"):
        with pytest.raises(InputError, match=f"{name} cannot be read as numpy's arrays"):
            example_of(card, tmp_path / name)
    with pytest.raises(InputError, match="There is no file"):
        example_of(card, tmp_path / "nowhere.npy")
