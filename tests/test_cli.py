"""The command `murho` from outside: what it prints, what it writes, and how it ends when something is wrong."""

import contextlib
import dataclasses
import gzip
import importlib.metadata
import io
import json
import re
import subprocess
import sys
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch

import murho
from murho.cli import bench
from murho.cli.entry import main
from murho.cli.loop import BlitzLoop
from murho.export import report as export_report
from murho.export import to_onnx
from murho.runtime.typical import typical_inputs
from murho.train import load_checkpoint

COMMANDS = (
    "demo",
    "train",
    "export",
    "minimal",
    "calibrate",
    "evaluate",
    "predict",
    "verify",
    "info",
    "bench",
    "check",
)
LEVELS = (0.6, 0.8, 0.95)
FORECASTS = (
    "murho, next row",
    "murho, 7 rows ahead",
    "murho online, 7 rows ahead",
    "BLiTZ's tutorial, 7 rows ahead",
)
DRAWS, WINDOW = 32, 21
FILES = {"checkpoint.pt", "model.onnx", "model.pt", "intervals.csv", "series.png", "forecast.png", "report.json"}


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """What was printed to stdout, without the breaks that fit it into 80 columns."""
        return " ".join(self.out.split())


def command(*args: Any) -> Outcome:
    """`murho args…` through its entry point, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["murho", *map(str, args)])
        patch.setattr(sys.modules["__main__"], "__package__", None)  # python -m pytest would give its name to the help
        with pytest.raises(SystemExit) as stop:
            main()
    return Outcome(int(stop.value.code or 0), out.getvalue(), err.getvalue())


def python(code: str, *args: Any) -> subprocess.CompletedProcess[str]:
    """Code in a new process, after which `main()` with sys.argv set is at hand."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=120, check=False
    )


def fails(outcome: Outcome, text: str) -> None:
    """Exit code 1, and one line on stderr that matches `text`."""
    assert outcome.code == 1, outcome
    assert re.fullmatch(r"Error: [^\n]+\n", outcome.err), outcome.err
    assert re.search(text, outcome.err), outcome.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds prices.csv, the first 400 rows of the built-in series, and what does not fit anything."""
    folder = tmp_path_factory.mktemp("cli")
    source = resources.files("murho.train") / "series" / "IBM_2000-03-01_to_2013-03-01.csv.gz"
    lines = gzip.decompress(source.read_bytes()).decode().splitlines(keepends=True)
    (folder / "prices.csv").write_text("".join(lines[:401]))
    (folder / "short.csv").write_text("".join(lines[:11]))
    (folder / "ragged.csv").write_text("".join(lines[:4]) + "1,2,3,4,5,6,7,8,9\n")
    (folder / "cut.csv.gz").write_bytes(gzip.compress("".join(lines[:401]).encode())[:-500])
    (folder / "foreign.onnx").write_bytes(b"not a model")
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def demo(folder: Path) -> Outcome:
    """The demo on prices.csv; its files are in demo/."""
    with contextlib.chdir(folder):
        outcome = command(
            *("demo", "--csv", "prices.csv", "--target", "Close"),
            *("--epochs", 2, "--draws", DRAWS, "--out", "demo"),
        )
    assert outcome.code == 0, outcome
    return outcome


@pytest.fixture(scope="module")
def chain(folder: Path) -> dict[str, Outcome]:
    """Another network, of two columns, from a table with a gap: other.pt, exported as other.torchscript.pt."""
    with contextlib.chdir(folder):
        table = pd.read_csv("prices.csv")
        table.loc[30, "Open"] = np.nan
        table.to_csv("gap.csv", index=False)
        outcomes = {
            "train": command(
                *("train", "--csv", "gap.csv", "--target", "Close", "--feature", "Open", "--window", 5, "--cell"),
                *("gru", "--hidden", 3, "--epochs", 2, "--seed", 7, "--out", "other.pt"),
            ),
            "export": command("export", "other.pt", "other.torchscript.pt"),
            "verify": command("verify", "other.torchscript.pt", "other.pt", "--trusted", "--json", "proof.json"),
        }
    return outcomes


@pytest.fixture
def report(demo: Outcome) -> dict[str, Any]:
    return json.loads(Path("demo/report.json").read_text())


@pytest.fixture
def table(demo: Outcome) -> pd.DataFrame:
    """intervals.csv; its numbers are the shortest text of float32 values, so reading them back is exact."""
    return pd.read_csv("demo/intervals.csv", index_col="date").astype(np.float32)


@pytest.fixture(scope="module")
def close(folder: Path) -> np.ndarray:
    return pd.read_csv(folder / "prices.csv")["Close"].to_numpy(np.float32)


# Help and usage


def test_help_names_every_command() -> None:
    outcome = command("--help")
    assert outcome.code == 0
    assert all(re.search(rf"^\W*{name} ", outcome.out, re.MULTILINE) for name in COMMANDS)
    assert command("-h").out == outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str) -> None:
    outcome = command(name, "--help")
    assert outcome.code == 0
    assert f"Usage: murho {name}" in outcome.text
    assert outcome.err == ""


def test_version() -> None:
    assert command("--version") == Outcome(0, f"murho {murho.__version__}\n", "")
    assert murho.__version__ == importlib.metadata.version("murho")


def test_no_command_prints_the_usage() -> None:
    outcome = command()
    assert outcome.code == 2
    assert "Usage: murho [OPTIONS] COMMAND" in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("info", "--bogus"), "No such option"),
        (("info",), "Missing argument"),
        (("export", "checkpoint.pt"), "Missing argument"),
        (("train", "--csv", "prices.csv"), "Missing option"),
        (("train", "--csv", "prices.csv", "--target", "Close", "--epochs", "0"), "Invalid value"),
        (("demo", "--csv", "prices.csv"), "--csv and --target go together"),
        (("demo", "--target", "Close"), "--csv and --target go together"),
    ],
)
def test_wrong_usage(args: tuple[str, ...], text: str) -> None:
    outcome = command(*args)
    assert outcome.code == 2
    assert text in outcome.err
    assert outcome.out == ""


# The demo


def test_demo_writes_seven_files_and_nothing_else(demo: Outcome) -> None:
    assert {path.name for path in Path("demo").iterdir()} == FILES
    assert "Written to demo: " in demo.text
    assert all(name in demo.text for name in FILES)


@pytest.mark.parametrize("name", ["series.png", "forecast.png"])
def test_demo_pictures(demo: Outcome, name: str) -> None:
    image = matplotlib.image.imread(f"demo/{name}")[..., :3]
    height, width, _ = image.shape
    assert width > 1000
    assert height > 400
    pixels = (255 * image).round().astype(int).reshape(-1, 3)
    assert np.mean((pixels != 255).any(1)) > 0.04, "the picture is nearly blank"
    for part, colour in {"truth": (0x22, 0x22, 0x22), "forecast": (0xC2, 0x41, 0x0C)}.items():
        assert np.sum((pixels == colour).all(1)) > 200, f"the {part} is not drawn"


def test_demo_table(table: pd.DataFrame, report: dict[str, Any]) -> None:
    prices = pd.read_csv("prices.csv", index_col="Date")["Close"]
    # a quarter of the rows, the last ones; every window but the last six has seven rows after it
    assert report["windows"]["test"] == 94
    assert len(table) == 13 * 7
    assert table.index.tolist() == prices.index[300 : 300 + 91].tolist()
    np.testing.assert_array_equal(table["Close"], prices[300 : 300 + 91].astype(np.float32))
    ends = [f"{end} {level}%" for level in ("60", "80", "95") for end in ("lower", "upper")]
    assert list(table.columns) == [
        "Close",
        "step of the forecast",
        *(f"{forecast}: {name}" for forecast in FORECASTS for name in ("mean", *ends)),
    ]
    assert table["step of the forecast"].tolist() == [row % 7 + 1 for row in range(91)]


@pytest.mark.parametrize("forecast", FORECASTS)
def test_demo_intervals_are_nested(table: pd.DataFrame, forecast: str) -> None:
    ends = table[[f"{forecast}: {end}" for end in (
        "lower 95%", "lower 80%", "lower 60%", "upper 60%", "upper 80%", "upper 95%",
    )]].to_numpy()  # fmt: skip
    assert (np.diff(ends, axis=1) > 0).mean() > 0.95  # each level is stretched by a factor of its own


@pytest.mark.parametrize("forecast", FORECASTS[1:])
def test_demo_scores_follow_from_the_table(table: pd.DataFrame, report: dict[str, Any], forecast: str) -> None:
    scores, truth = report["test"][forecast], table["Close"]
    for level in LEVELS:
        lower, upper = (table[f"{forecast}: {end} {100 * level:g}%"] for end in ("lower", "upper"))
        assert scores["coverage"][f"{level:g}"] == np.mean((lower <= truth) & (truth <= upper))
        assert scores["mean_width"][f"{level:g}"] == pytest.approx(np.mean(upper - lower), rel=1e-5)
    error = (table[f"{forecast}: mean"] - truth).astype(np.float64)
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)


def test_demo_forecasts_are_what_the_artifact_says(table: pd.DataFrame, close: np.ndarray) -> None:
    model = murho.load("demo/model.onnx")
    x = np.stack([close[row - WINDOW : row] for row in range(300, 391)])[..., None]
    answer = model.predict(x, DRAWS, LEVELS, 0)
    np.testing.assert_array_equal(table["murho, next row: mean"], answer.mean[:, 0])
    np.testing.assert_array_equal(table["murho, 7 rows ahead: mean"], answer.mean[::7].reshape(-1))
    for k, level in enumerate(LEVELS):
        for name in ("lower", "upper"):
            ends = getattr(answer, name)[k]
            np.testing.assert_array_equal(table[f"murho, next row: {name} {100 * level:g}%"], ends[:, 0])
            np.testing.assert_array_equal(table[f"murho, 7 rows ahead: {name} {100 * level:g}%"], ends[::7].reshape(-1))
    assert model.card.calibration.rows == 54
    assert murho.load("demo/model.pt", trusted=True).card.calibration.rows == 54


def test_demo_online_forecasts_are_those_of_observe(table: pd.DataFrame, close: np.ndarray) -> None:
    model, found = murho.load("demo/model.onnx"), []
    for row in range(300, 300 + 85):
        found.append(model.predict(close[row - WINDOW : row].reshape(1, -1, 1), DRAWS, 0.6, 0).upper[0])
        model.observe(close[row : row + 1])
    want = table["murho online, 7 rows ahead: upper 60%"].to_numpy()
    np.testing.assert_allclose(np.concatenate(found[::7]), want, rtol=1e-5)


def test_demo_report(demo: Outcome, report: dict[str, Any], close: np.ndarray) -> None:
    assert report["series"] == "prices"
    assert (report["target"], report["draws"], report["seed"]) == ("Close", DRAWS, 0)
    assert report["values"] == "differences"
    # 400 rows in 60 %, 15 % and 25 %; the first window's 21 rows are not predicted, the last six rows start no week
    assert report["windows"] == {"training": 240 - 21 - 6, "calibration": 54, "test": 94}
    assert report["training"]["epochs"] == 2
    last = np.square(np.diff(close[299:394].astype(float)))
    assert report["last_value_rmse"] == pytest.approx(np.sqrt(np.mean(last)), 1e-5)
    assert set(report["proof"]) == {"model.onnx", "model.pt"}
    for proof in report["proof"].values():
        assert proof["passed"] is True
        assert proof["exact"]["largest_error"] < 1e-5
    assert set(report["machine"]) == {"processor", "cores", "versions"}
    assert report["machine"]["versions"]["torch"] == importlib.metadata.version("torch")


def test_demo_prints_times_and_how_much_faster(demo: Outcome, report: dict[str, Any]) -> None:
    seconds = report["seconds"]
    assert set(seconds) == {"BLiTZ loop", "murho onnxruntime", "murho torchscript"}
    assert all(value > 0 for value in seconds.values())
    assert f"Intervals of 94 rows from {DRAWS} draws" in demo.text
    for name, value in seconds.items():
        ratio = seconds["BLiTZ loop"] / value
        assert re.search(rf"{name}\W+{1000 * value:.0f} ms\W+{ratio:.0f} ×", demo.text), name
    assert "Calibrated on 54 rows that training did not see." in demo.text


def test_demo_artifacts_agree(demo: Outcome, close: np.ndarray) -> None:
    x = close[:WINDOW][None, :, None]
    onnx, script = (
        murho.load(f"demo/{name}", trusted=True).predict(x, 64).samples for name in ("model.onnx", "model.pt")
    )
    np.testing.assert_allclose(onnx, script, rtol=1e-5)


# Noise and paths


@pytest.mark.parametrize(("noise", "degrees"), [("constant", 0), ("constant", 4), ("none", 0)])
def test_noise_and_a_path_from_the_shell(folder: Path, tmp_path: Path, noise: str, degrees: int) -> None:
    checkpoint, artifact = tmp_path / "c.pt", tmp_path / "path.onnx"
    outcome = command(
        *("train", "--csv", "prices.csv", "--target", "Close", "--window", 5, "--hidden", 3, "--epochs", 1),
        *("--values", "returns", "--noise", noise, "--degrees", degrees, "--out", checkpoint),
    )
    assert outcome.code == 0, outcome
    found = load_checkpoint(checkpoint).noise
    if noise == "none":
        assert found is None
    else:
        assert found.degrees == degrees
        assert 0 < found.scale[0] < 3  # standardised: the returns have a root mean square of 1
    assert command("export", checkpoint, artifact, "--horizon", 3).code == 0
    model = murho.load(artifact)
    assert (model.card.horizon, model.card.noise) == (3, found)
    assert model.card.output.names == ("Close + 1", "Close + 2", "Close + 3")
    answer = predicted("--draws", 16, artifact=str(artifact))
    assert {"mean Close + 1", "upper 95% Close + 3"} <= set(answer.columns)
    assert "3 steps, each draw fed back" in command("info", artifact).text


def test_wrong_degrees(folder: Path, tmp_path: Path) -> None:
    outcome = command("train", "--csv", "prices.csv", "--target", "Close", "--degrees", 2, "--out", tmp_path / "c.pt")
    fails(outcome, "degrees must be a whole number of at least 3, not 2")


def test_the_example_of_embedding(demo: Outcome) -> None:
    script = Path(__file__).parents[1] / "examples" / "embed.py"
    done = subprocess.run([sys.executable, script, "demo/model.onnx"], capture_output=True, text=True, check=True)
    answers = [eval(line) for line in done.stdout.splitlines()]
    assert len(answers) == 8
    assert all(answer["lower"] < answer["mean"] < answer["upper"] for answer in answers)


# Calibrate and evaluate


def test_calibrate_takes_the_part_that_training_kept(demo: Outcome, tmp_path: Path) -> None:
    out = tmp_path / "calibrated.onnx"
    outcome = command("calibrate", "demo/model.onnx", "prices.csv", "--out", out, "--level", 0.5, "--level", 0.9)
    assert outcome.code == 0, outcome
    assert "54 rows: the calibration part of prices.csv" in outcome.text
    found = murho.load(out).card.calibration
    assert (found.levels, found.rows) == ((0.5, 0.9), 54)
    assert all(f"{factor:.3g}" in outcome.text for factor in found.factors[1])


def test_calibrate_takes_all_of_another_file(demo: Outcome, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    table = pd.read_csv("prices.csv")
    table["Close"] = table["Close"].to_numpy()[::-1]
    table.to_csv(other, index=False)
    out = tmp_path / "calibrated.onnx"
    assert command("calibrate", "demo/model.onnx", other, "--out", out, "--half-life", 100).code == 0
    found = murho.load(out).card.calibration
    assert (found.rows, found.half_life) == (400 - 21 - 6, 100)


def test_calibrate_on_what_training_saw(demo: Outcome, tmp_path: Path) -> None:
    before = Path("demo/model.onnx").read_bytes()
    outcome = command("calibrate", "demo/model.onnx", "prices.csv", "--rows", "all")
    fails(outcome, "holds rows that the network was trained on")
    assert Path("demo/model.onnx").read_bytes() == before


def test_evaluate(demo: Outcome, tmp_path: Path) -> None:
    outcome = command(
        "evaluate", "demo/model.onnx", "prices.csv", "--out", tmp_path, "--no-baselines", "--draws", DRAWS
    )
    assert outcome.code == 0, outcome
    assert {path.name for path in tmp_path.iterdir()} == {"evaluation.json", "calibration.png", "coverage.png"}
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["rows"] == "the test part of prices.csv"
    assert list(report["methods"]) == ["murho", "murho, online"]
    model, prices = murho.load("demo/model.onnx"), pd.read_csv("prices.csv")["Close"].to_numpy(np.float32)
    x = np.stack([prices[row - WINDOW : row] for row in range(300, 394)])[..., None]
    y = np.stack([prices[row : row + 7] for row in range(300, 394)])
    for level in (0.8, 0.95):
        answer = model.predict(x, DRAWS, level)
        assert report["methods"]["murho"]["coverage"][f"{level:g}"] == pytest.approx(answer.coverage(y))
    for name in ("calibration.png", "coverage.png"):
        image = matplotlib.image.imread(tmp_path / name)[..., :3]
        assert np.mean((image < 0.99).any(axis=2)) > 0.02, f"{name} is nearly blank"


def test_evaluate_beside_other_methods(demo: Outcome, tmp_path: Path) -> None:
    outcome = command("evaluate", "demo/model.onnx", "prices.csv", "--out", tmp_path, "--draws", DRAWS)
    assert outcome.code == 0, outcome
    methods = json.loads((tmp_path / "evaluation.json").read_text())["methods"]
    assert {"random walk, split", "quantile regression, online", "BLiTZ's tutorial"} <= set(methods)
    scores = {method: found["interval_score"]["0.8"] for method, found in methods.items()}
    assert scores["murho, online"] < scores["BLiTZ's tutorial"]


def test_a_card_that_does_not_know_its_columns(demo: Outcome, tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    to_onnx(load_checkpoint("demo/checkpoint.pt").network(), path, np.ones((4, WINDOW, 1)), task="forecast")
    for name in ("calibrate", "evaluate"):
        fails(command(name, path, "prices.csv"), "does not say which column it predicts")


# From a table to a proven artifact


def test_train(chain: dict[str, Outcome]) -> None:
    outcome = chain["train"]
    assert outcome.code == 0, outcome
    assert "Repaired: Open: 1 missing value(s) filled with the last value before" in outcome.err
    assert "Trained 2 epochs" in outcome.text
    assert "Next: murho export other.pt model.onnx" in outcome.text
    checkpoint = load_checkpoint("other.pt")
    assert checkpoint.target == "Close"
    assert checkpoint.features == ("Open",)
    assert (checkpoint.window, checkpoint.horizon, checkpoint.scaling.values) == (5, 1, "levels")
    assert checkpoint.noise == murho.Noise()
    asked = {"cell": "gru", "hidden": 3, "layers": 1, "features": 2}
    assert asked.items() <= checkpoint.config.items()
    assert checkpoint.settings["seed"] == 7


def test_train_gives_the_same_weights_for_the_same_seed(chain: dict[str, Outcome], tmp_path: Path) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        path = tmp_path / "again.pt"
        outcome = command(
            *("train", "--csv", "gap.csv", "--target", "Close", "--feature", "Open", "--window", 5, "--cell", "gru"),
            *("--hidden", 3, "--epochs", 2, "--seed", seed, "--out", path),
        )
        assert outcome.code == 0
        return load_checkpoint(path).state

    first = load_checkpoint("other.pt").state
    torch.testing.assert_close(weights(7), first, rtol=0, atol=0)
    assert any(not torch.equal(value, first[key]) for key, value in weights(8).items())


def test_train_resumes(chain: dict[str, Outcome], tmp_path: Path) -> None:
    path = tmp_path / "halves.pt"
    args = ("train", "--csv", "prices.csv", "--target", "Close", "--window", 5, "--hidden", 3, "--out", path)
    assert command(*args, "--epochs", 1).code == 0
    assert "Trained 2 epochs" in command(*args, "--epochs", 2, "--resume").text
    halves = load_checkpoint(path).current
    assert command(*args, "--epochs", 2).code == 0
    torch.testing.assert_close(halves, load_checkpoint(path).current, rtol=0, atol=0)


def test_export(chain: dict[str, Outcome]) -> None:
    assert chain["export"].code == 0, chain["export"]
    assert re.search(r"other.torchscript.pt: \d+ kB, within \S+ of BLiTZ at equal noise", chain["export"].text)
    card = murho.load("other.torchscript.pt", trusted=True).card
    assert card.input.names == ("Close", "Open")
    assert card.output.names == ("Close + 1",)
    assert card.training["window"] == 5


def test_check_of_a_checkpoint(chain: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_report, "SUFFIXES", {"onnx": ".onnx"})
    before = sorted(Path().iterdir())
    outcome = command("check", "other.pt", "--storage", "half")
    assert outcome.code == 0, outcome
    assert outcome.out.startswith("Forecaster. Exports as ONNX.\n")
    assert re.search(r"│ ONNX +│ +\d+ kB │ +\d\.\de-\d\d │( +\S+ m?s │){2} +(\d+ MiB|not known) │", outcome.out)
    assert sorted(Path().iterdir()) == before


def test_export_in_half_the_size(chain: dict[str, Outcome], tmp_path: Path) -> None:
    """Export, verify and info say how far the stored posterior is from the trained one; bench checks against it."""
    artifact = tmp_path / "half.pt"
    said = r"samples within \S+ of the trained posterior's, ends of a 95 % interval within \S+ % of its width"
    for outcome in (
        command("export", "other.pt", artifact, "--storage", "half"),
        command("verify", artifact, "other.pt", "--trusted"),
        command("info", artifact),
    ):
        assert outcome.code == 0, outcome
        assert re.search(said, " ".join(outcome.text.replace("│", " ").split())), outcome.text
    assert "half: μ in float16, log σ in 8 bits" in outcome.text
    shapes = "--batch", 1, "--draws", 64, "--rounds", 2
    assert command("bench", artifact, "--against", "other.pt", "--trusted", *shapes).code == 0
    both = command("bench", artifact, "other.torchscript.pt", "--trusted", *shapes)
    fails(both, "different networks, or store one differently")
    fails(command("export", "other.pt", artifact, "--storage", "float16"), "storage must be one of")


def test_export_of_a_stream(tmp_path: Path) -> None:
    checkpoint, artifact = tmp_path / "levels.pt", tmp_path / "levels.onnx"
    train = "train", "--csv", "prices.csv", "--target", "Close", "--window", 5, "--hidden", 3, "--epochs", 1
    assert command(*train, "--values", "levels", "--out", checkpoint).code == 0
    assert command("export", checkpoint, artifact, "--streaming").code == 0
    assert "carries 2 states from row to row" in command("info", artifact).text
    assert murho.load(artifact).stream(16).step([[100.0]]).samples.shape == (16, 1, 1)


def test_predict_to_a_tolerance(tmp_path: Path) -> None:
    coarse, fine = (
        command(
            "predict", "demo/model.onnx", "--csv", "prices.csv", "--tolerance", tolerance, "--out", tmp_path / "a.csv"
        )
        for tolerance in ("nonsense", 0.2)
    )
    assert coarse.code != 0
    assert fine.code == 0, fine
    assert len(pd.read_csv(tmp_path / "a.csv"))
    fails(
        command("predict", "demo/model.onnx", "--csv", "prices.csv", "--tolerance", -1),
        "tolerance must be a number above 0",
    )


def test_export_of_columns_of_different_size(tmp_path: Path) -> None:
    """Volumes of millions beside prices of a hundred: the proof must test the network where it was trained."""
    checkpoint, artifact = tmp_path / "volume.pt", tmp_path / "volume.torchscript.pt"
    outcome = command(
        *("train", "--csv", "prices.csv", "--target", "Close", "--feature", "Volume", "--window", 5, "--hidden", 3),
        *("--epochs", 2, "--out", checkpoint),
    )
    assert outcome.code == 0, outcome
    outcome = command("export", checkpoint, artifact)
    assert (outcome.code, outcome.err) == (0, "")


def test_verify(chain: dict[str, Outcome]) -> None:
    assert chain["verify"].code == 0, chain["verify"]
    assert "other.torchscript.pt says what BLiTZ says" in chain["verify"].text
    assert "Kolmogorov-Smirnov" in chain["verify"].text
    proof = json.loads(Path("proof.json").read_text())
    assert proof["passed"] is True
    assert 0 < proof["exact"]["largest_error"] < 1e-5
    assert len({(case["draws"], case["batch"], case["steps"]) for case in proof["exact"]["cases"]}) >= 3


def test_verify_with_another_checkpoint(demo: Outcome, chain: dict[str, Outcome]) -> None:
    fails(command("verify", "demo/model.onnx", "other.pt"), "demo/model.onnx")
    fails(command("verify", "other.torchscript.pt", "demo/checkpoint.pt", "--trusted"), "other.torchscript.pt")


# Info


def test_info(demo: Outcome) -> None:
    outcome = command("info", "demo/model.onnx")
    assert outcome.code == 0
    described = "float32 [batch, time, feature 1]: Close"
    for text in ("forecast", described, "256 draws, level 0.95, seed 0", "BayesianLSTM", "weight_ih 1×40"):
        assert text in outcome.text
    assert f"│ {4 * 10 * (1 + 10 + 1)} │" in outcome.text  # four gates of 10 units, each with x, h and a bias
    assert murho.load("demo/model.onnx").engine in outcome.text
    assert "Student-t, 5 degrees of freedom" in outcome.text
    assert "split conformal on 54 rows" in outcome.text
    assert "fingerprint" not in outcome.text
    # Nothing that a reader may want to copy is cut off.
    assert "…" not in outcome.out


def test_info_as_json(demo: Outcome) -> None:
    outcome = command("info", "demo/model.onnx", "--json")
    assert outcome.code == 0
    card = json.loads(outcome.out)
    assert card["training"]["window"] == WINDOW
    assert card["posterior_sha256"] == murho.load("demo/model.pt", trusted=True).card.posterior_sha256


# Predict


def predicted(*args: Any, artifact: str = "demo/model.onnx", csv: str = "prices.csv") -> pd.DataFrame:
    outcome = command("predict", artifact, "--csv", csv, "--out", "answer.csv", *args)
    assert outcome.code == 0, outcome
    answer = pd.read_csv("answer.csv", index_col=0)
    assert outcome.text == f"{len(answer)} rows written to answer.csv."
    return answer


def test_predict_is_the_python_call(demo: Outcome, close: np.ndarray) -> None:
    answer = predicted("--draws", 50, "--level", 0.8, "--level", 0.95, "--seed", 3)
    x = np.stack([close[row - WINDOW : row] for row in range(WINDOW, 401)])[..., None]
    ours = murho.load("demo/model.onnx").predict(x, 50, (0.8, 0.95), 3)
    columns = ["mean", "std", "lower 80%", "upper 80%", "lower 95%", "upper 95%"]
    assert list(answer.columns) == [f"{name} Close + {step}" for step in range(1, 8) for name in columns]
    dates = pd.read_csv("prices.csv")["Date"]
    assert answer.index.tolist() == dates[WINDOW - 1 :].tolist()  # a window's answer stands at its last row
    expected = [ours.mean, ours.std, ours.lower[0], ours.upper[0], ours.lower[1], ours.upper[1]]
    for name, values in zip(columns, expected, strict=True):
        for step in range(7):
            column = answer[f"{name} Close + {step + 1}"].to_numpy(np.float32)
            np.testing.assert_array_equal(column, values[:, step], err_msg=name)


def test_predict_defaults_come_from_the_card(demo: Outcome) -> None:
    pd.testing.assert_frame_equal(predicted(), predicted("--draws", 256, "--level", 0.95, "--seed", 0))


def test_predict_seed(demo: Outcome) -> None:
    one, again, other = (predicted("--draws", 16, "--seed", seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert (one["mean Close + 1"] != other["mean Close + 1"]).all()


def test_predict_sorts_by_date(demo: Outcome, tmp_path: Path) -> None:
    prices = pd.read_csv("prices.csv")
    prices[::-1].to_csv(tmp_path / "newest_first.csv", index=False)
    for named in ((), ("--date", "Date")):
        outcome = command(
            *("predict", "demo/model.onnx", "--csv", tmp_path / "newest_first.csv", *named, "--draws", 16),
            *("--out", "answer.csv"),
        )
        assert outcome.err == "Repaired: The rows were not in date order: sorted by Date.\n"
    answer = pd.read_csv("answer.csv", index_col=0)
    assert answer.index.name == "Date"
    assert answer.index.tolist() == prices["Date"][WINDOW - 1 :].tolist()
    in_order = predicted("--draws", 16)
    np.testing.assert_array_equal(answer.to_numpy(), in_order.to_numpy())


def test_predict_of_two_columns_with_torchscript(chain: dict[str, Outcome]) -> None:
    answer = predicted("--draws", 16, "--seed", 1, "--trusted", artifact="other.torchscript.pt")
    values = pd.read_csv("prices.csv")[["Close", "Open"]].to_numpy(np.float32)
    x = np.stack([values[row - 5 : row] for row in range(5, 401)])
    ours = murho.load("other.torchscript.pt", trusted=True).predict(x, 16, 0.95, 1)
    np.testing.assert_array_equal(answer["mean"].to_numpy(np.float32), ours.mean[:, 0])
    np.testing.assert_array_equal(answer["upper 95%"].to_numpy(np.float32), ours.upper[:, 0])


def test_predict_prints_a_row_in_a_line(demo: Outcome) -> None:
    outcome = command(
        "predict", "demo/model.onnx", "--csv", "prices.csv", "--draws", 16, *(f"--level={level}" for level in LEVELS)
    )
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert len(lines) == 2 + 380  # the columns' names, the index's name, and the rows
    answer = predicted("--draws", 16, *(f"--level={level}" for level in LEVELS))
    cells = [line.split() for line in lines if re.match(r"2\d{3}-", line)]
    assert [row[0] for row in cells] == answer.index.tolist()
    np.testing.assert_allclose(
        np.array([row[1:] for row in cells], np.float64), answer.to_numpy(), atol=1e-6, rtol=1e-6
    )


def test_names_with_square_brackets_are_printed_as_they_are(demo: Outcome) -> None:
    outcome = command("predict", "demo/model.onnx", "--csv", "prices.csv", "--draws", 4, "--out", "speed [m s].csv")
    assert outcome.text == "380 rows written to speed [m s].csv."
    assert Path("speed [m s].csv").is_file()


# Bench


def test_bench(demo: Outcome) -> None:
    outcome = command(
        *("bench", "demo/model.onnx", "demo/model.pt", "--against", "demo/checkpoint.pt"),
        *("--batch", 1, "--draws", 50, "--rounds", 2, "--trusted", "--json", "bench.json"),
    )
    assert outcome.code == 0, outcome
    result = json.loads(Path("bench.json").read_text())
    assert result["network"] == "prices"
    assert set(result["machine"]) == {"processor", "cores", "versions"}
    rows = {row["system"]: row for row in result["results"]}
    assert set(rows) == {"murho onnxruntime", "murho torchscript", "BLiTZ loop"}
    assert len(result["results"]) == 3
    loop = rows["BLiTZ loop"]["median_ms"]
    for name, row in rows.items():
        assert (row["rows"], row["draws"], row["rounds"]) == (1, 50, 1 if name == "BLiTZ loop" else 2)
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["times_faster_than_blitz"] == pytest.approx(loop / row["median_ms"])
        assert re.search(rf"{name}\W+{row['median_ms']:.1f} ms\W+{row['p95_ms']:.1f} ms", outcome.text)


def test_bench_without_the_loop(demo: Outcome) -> None:
    outcome = command(
        *("bench", "demo/model.onnx", "--batch", 1, "--batch", 3, "--draws", 16, "--draws", 32, "--rounds", 1),
        *("--json", "bench.json"),
    )
    assert outcome.code == 0, outcome
    results = json.loads(Path("bench.json").read_text())["results"]
    assert [(row["rows"], row["draws"]) for row in results] == [(1, 16), (1, 32), (3, 16), (3, 32)]
    assert {row["system"] for row in results} == {"murho onnxruntime"}
    assert all(row["times_faster_than_blitz"] is None for row in results)


def test_bench_statistics() -> None:
    times = {"murho onnxruntime": [1.0, 4.0, 2.0], bench.LOOP: [10.0, 30.0, 20.0]}
    ours, loop = bench.rows(times, 64, 100, baseline=20.0)
    assert (ours["median_ms"], ours["times_faster_than_blitz"]) == (2, 10)
    assert (ours["q25_ms"], ours["q75_ms"]) == (1.5, 3)  # half and one and a half steps up the sorted times
    assert ours["p95_ms"] == pytest.approx(2 + 0.9 * (4 - 2))  # 0.95 · 2 steps up the sorted times
    assert (loop["median_ms"], loop["times_faster_than_blitz"]) == (20, 1)


def test_bench_of_different_networks(demo: Outcome, chain: dict[str, Outcome]) -> None:
    fails(command("bench", "demo/model.onnx", "other.torchscript.pt", "--trusted"), "made from different networks")


def test_bench_against_another_checkpoint(demo: Outcome, chain: dict[str, Outcome]) -> None:
    outcome = command("bench", "demo/model.onnx", "--against", "other.pt")
    fails(outcome, "other.pt is not the network that the artifacts were made from")


def test_bench_command_fails_on_a_wrong_answer(demo: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = bench.timed

    def doctored(*args: Any, **options: Any) -> Any:
        times, answers = timed(*args, **options)
        right = answers["murho torchscript"]
        answers["murho torchscript"] = dataclasses.replace(right, samples=right.samples * np.float32(1 + 1e-3))
        return times, answers

    args = ("bench", "demo/model.onnx", "demo/model.pt", "--trusted", "--batch", 1, "--draws", 16, "--rounds", 1)
    assert command(*args).code == 0
    monkeypatch.setattr(bench, "timed", doctored)
    Path("bench.json").unlink(missing_ok=True)
    fails(
        command(*args, "--json", "bench.json"),
        r"murho torchscript differs from the other artifact by 0\.\d+ of the largest",
    )
    assert not Path("bench.json").exists()


@pytest.fixture(scope="module")
def answers(folder: Path, demo: Outcome) -> tuple[dict[str, murho.Intervals], BlitzLoop, np.ndarray]:
    with contextlib.chdir(folder):
        opened = [murho.load(path, trusted=True) for path in ("demo/model.onnx", "demo/model.pt")]
        models = {bench.system_name(model): model for model in opened}
        card = models["murho onnxruntime"].card
        loop = BlitzLoop(load_checkpoint("demo/checkpoint.pt").network(), card)
    x = typical_inputs(card, 3)[0]
    assert x.shape == (3, WINDOW, 1)
    torch.manual_seed(0)
    found = {name: model.predict(x, 64, 0.95, 0) for name, model in models.items()}
    return {**found, bench.LOOP: loop(x, 64)}, loop, x


def test_check_passes_right_answers(answers: Any) -> None:
    found, loop, x = answers
    bench.check(loop.card, found, loop, x)


def test_check_finds_an_artifact_that_differs_from_another(answers: Any) -> None:
    found, loop, x = answers
    samples = found["murho torchscript"].samples.copy()
    samples[5, 1] *= 1 + 1e-3
    wrong = {**found, "murho torchscript": dataclasses.replace(found["murho torchscript"], samples=samples)}
    with pytest.raises(murho.MurhoError, match="murho torchscript differs from the other artifact"):
        bench.check(loop.card, wrong, loop, x)
    samples[5, 1] = np.nan
    with pytest.raises(murho.MurhoError, match="murho torchscript differs from the other artifact by inf"):
        bench.check(loop.card, wrong, loop, x)


def test_check_finds_artifacts_that_differ_from_blitz_at_equal_noise(answers: Any) -> None:
    found, loop, x = answers

    def off(intervals: murho.Intervals) -> murho.Intervals:
        return dataclasses.replace(intervals, samples=intervals.samples * np.float32(1 + 1e-3))

    wrong = {name: answer if name == bench.LOOP else off(answer) for name, answer in found.items()}
    with pytest.raises(murho.MurhoError, match="differs from BLiTZ at equal noise"):
        bench.check(loop.card, wrong, loop, x)


@pytest.mark.parametrize("sign", [-1, 1])
def test_check_finds_a_loop_with_another_mean(answers: Any, sign: int) -> None:
    found, loop, x = answers
    ours, free = found["murho onnxruntime"], found[bench.LOOP]
    error = np.sqrt((ours.std**2 + free.std**2) / 64)  # standard error of the difference of two means of 64 draws
    for off, passes in ((4, True), (10, False)):
        wrong = {**found, bench.LOOP: dataclasses.replace(free, mean=ours.mean + sign * off * error)}
        if passes:
            bench.check(loop.card, wrong, loop, x)
        else:
            with pytest.raises(murho.MurhoError, match="differs from the mean of BLiTZ's loop"):
                bench.check(loop.card, wrong, loop, x)


def test_bench_of_two_draws_does_not_cry_wolf(demo: Outcome) -> None:
    """Two draws know their own spread badly: the bound must be wide enough for them too, or they must be refused."""
    args = ("bench", "demo/model.onnx", "--against", "demo/checkpoint.pt", "--batch", 64, "--draws", 2, "--rounds", 1)
    assert {command(*args).code for _ in range(20)} <= {0, 2}


# Errors


ERRORS: dict[str, tuple[tuple[Any, ...], str]] = {
    "info: missing": (("info", "nowhere.onnx"), r"nowhere\.onnx"),
    "info: foreign": (("info", "foreign.onnx"), r"foreign\.onnx is not a murho artifact"),
    "info: checkpoint": (("info", "demo/checkpoint.pt"), "is not a murho artifact"),
    "info: folder": (("info", "demo"), "Cannot read the artifact demo"),
    "predict: missing artifact": (("predict", "nowhere.onnx", "--csv", "prices.csv"), r"nowhere\.onnx"),
    "predict: missing table": (("predict", "demo/model.onnx", "--csv", "nowhere.csv"), r"nowhere\.csv"),
    "predict: foreign artifact": (("predict", "prices.csv", "--csv", "prices.csv"), "is not a murho artifact"),
    "predict: ragged table": (
        ("predict", "demo/model.onnx", "--csv", "ragged.csv"),
        r"'ragged\.csv' cannot be read as CSV",
    ),
    "predict: cut table": (
        ("predict", "demo/model.onnx", "--csv", "cut.csv.gz"),
        r"'cut\.csv\.gz' cannot be read as CSV",
    ),
    "predict: no column": (
        ("predict", "demo/model.onnx", "--csv", "no_close.csv"),
        r"no column 'Close'. The columns are: Date, Open",
    ),
    "predict: few rows": (("predict", "demo/model.onnx", "--csv", "short.csv"), "of 21 rows, but 'short' has 10"),
    "predict: a program": (("predict", "demo/model.pt", "--csv", "prices.csv"), "are programs: .*--trusted"),
    "predict: no date": (
        ("predict", "demo/model.onnx", "--csv", "prices.csv", "--date", "Day"),
        "There is no single column 'Day' for the dates. The columns are: Date",
    ),
    "predict: not a date": (
        ("predict", "demo/model.onnx", "--csv", "prices.csv", "--date", "Name"),
        "Column 'Name' does not parse as dates in one format",
    ),
    "predict: level": (
        ("predict", "demo/model.onnx", "--csv", "prices.csv", "--level", "1.5"),
        r"level must lie between 0 and 1.*got 1\.5",
    ),
    "predict: device": (
        ("predict", "demo/model.onnx", "--csv", "prices.csv", "--device", "cuda"),
        "device='cuda' needs a CUDA build of ONNX Runtime",
    ),
    "predict: out in no folder": (
        ("predict", "demo/model.onnx", "--csv", "prices.csv", "--draws", 4, "--out", "nowhere/a.csv"),
        r"Cannot write nowhere/a\.csv",
    ),
    "predict: out in a file": (
        ("predict", "demo/model.onnx", "--csv", "prices.csv", "--draws", 4, "--out", "prices.csv/a.csv"),
        r"Cannot write prices\.csv/a\.csv",
    ),
    "predict: out is a folder": (
        ("predict", "demo/model.onnx", "--csv", "prices.csv", "--draws", 4, "--out", "demo"),
        "Cannot write demo: it is a folder",
    ),
    "train: missing table": (("train", "--csv", "nowhere.csv", "--target", "Close"), r"no file 'nowhere\.csv'"),
    "train: no column": (
        ("train", "--csv", "prices.csv", "--target", "Price"),
        "no column 'Price'. The columns are: Date, Open",
    ),
    "train: ragged table": (("train", "--csv", "ragged.csv", "--target", "Close"), "cannot be read as CSV"),
    "train: cell": (("train", "--csv", "prices.csv", "--target", "Close", "--cell", "rnn"), "'lstm', 'gru', got 'rnn'"),
    "train: few rows": (("train", "--csv", "short.csv", "--target", "Close"), "has 10 rows"),
    "train: out in no folder": (
        ("train", "--csv", "prices.csv", "--target", "Close", "--out", "nowhere/c.pt"),
        "no folder 'nowhere'",
    ),
    "train: out is a folder": (("train", "--csv", "prices.csv", "--target", "Close", "--out", "demo"), "is a folder"),
    "demo: no column": (("demo", "--csv", "prices.csv", "--target", "Price", "--out", "new"), "no column 'Price'"),
    "demo: out is a file": (
        ("demo", "--csv", "prices.csv", "--target", "Close", "--out", "prices.csv"),
        r"Cannot make the folder prices\.csv",
    ),
    "export: missing checkpoint": (("export", "nowhere.pt", "new.onnx"), r"no checkpoint 'nowhere\.pt'"),
    "export: foreign checkpoint": (("export", "prices.csv", "new.onnx"), "is not a checkpoint"),
    "export: an artifact": (("export", "demo/model.pt", "new.onnx"), "is not a checkpoint"),
    "export: suffix": (("export", "demo/checkpoint.pt", "new.txt"), r"\.onnx or \.pt or \.pt2, not \.txt"),
    "export: no suffix": (("export", "demo/checkpoint.pt", "new"), r"\.onnx or \.pt or \.pt2, not nothing"),
    "export: second suffix": (("export", "demo/checkpoint.pt", "new.onnx", "new.txt"), r"not \.txt"),
    "export: no folder": (("export", "demo/checkpoint.pt", "nowhere/new.pt"), "there is no folder .*nowhere"),
    "verify: missing checkpoint": (("verify", "demo/model.onnx", "nowhere.pt"), r"no checkpoint 'nowhere\.pt'"),
    "verify: missing artifact": (("verify", "nowhere.onnx", "demo/checkpoint.pt"), r"nowhere\.onnx"),
    "bench: missing artifact": (("bench", "nowhere.onnx"), r"nowhere\.onnx"),
    "bench: missing checkpoint": (
        ("bench", "demo/model.onnx", "--against", "nowhere.pt"),
        r"no checkpoint 'nowhere\.pt'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line_and_leave_no_file(demo: Outcome, chain: dict[str, Outcome], name: str) -> None:
    args, text = ERRORS[name]
    Path("no_close.csv").write_text(Path("prices.csv").read_text().replace("Close", "Last", 1))
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    fails(command(*args), text)
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()} == before
    assert not Path("new").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_where_there_is_none(demo: Outcome) -> None:
    fails(
        command("predict", "demo/model.pt", "--csv", "prices.csv", "--device", "cuda", "--trusted"),
        "device='cuda' needs an NVIDIA GPU",
    )


def test_warnings_are_one_line(demo: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    import murho.cli.tables

    def warns(*_: Any, **__: Any) -> Any:
        warnings.warn("Mind the gap.", stacklevel=1)
        return murho.load("demo/model.onnx")

    monkeypatch.setattr(murho.cli.tables, "load", warns)
    outcome = command("predict", "demo/model.onnx", "--csv", "prices.csv", "--draws", 4, "--out", "answer.csv")
    assert outcome.code == 0
    assert outcome.err == "Warning: Mind the gap.\n"


# Interrupts


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_interrupt(demo: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("murho.cli.tables.read", interrupt)
    assert command("info", "demo/model.onnx") == Outcome(130, "", "Interrupted.\n")


def test_interrupted_training_keeps_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The package's name for the module is taken by the function.
    monkeypatch.setattr(sys.modules["murho.train.fit"].EpochBar, "show", interrupt)
    path = tmp_path / "c.pt"
    outcome = command("train", "--csv", "prices.csv", "--target", "Close", "--epochs", 5, "--out", path)
    assert outcome.code == 130
    assert "Interrupted after 1 epochs; the best weights so far are in" in outcome.text
    assert "Trained" not in outcome.text
    assert outcome.err.endswith("Interrupted.\n")
    assert list(tmp_path.iterdir()) == [path]
    history = load_checkpoint(path).history
    assert (history.epochs, history.best_epoch, history.interrupted) == (1, 1, True)


def test_training_interrupted_in_its_first_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["murho.train.fit"], "_epoch", interrupt)
    outcome = command("train", "--csv", "prices.csv", "--target", "Close", "--out", tmp_path / "c.pt")
    assert outcome.code == 130
    assert outcome.out == ""
    assert outcome.err.endswith("Interrupted.\n")
    assert list(tmp_path.iterdir()) == []


# What has to be installed

RUN = """
import sys
from murho.cli import main
names, blocked = sys.argv.pop(1).split(), sys.argv.pop(1).split()
sys.modules.update(dict.fromkeys(blocked))
code = None
arguments = sys.argv[1:]
while arguments:  # commands, separated by a plus
    end = arguments.index("+") if "+" in arguments else len(arguments)
    sys.argv[1:], arguments = arguments[:end], arguments[end + 1:]
    try:
        main()
    except SystemExit as stop:
        code = code or stop.code
print("imported:", *(name for name in names if sys.modules.get(name)))
sys.exit(code)
"""
HEAVY = "torch blitz scipy sklearn onnx onnxscript matplotlib"


def test_commands_without_torch(demo: Outcome) -> None:
    done = python(
        RUN, HEAVY, "",
        *("predict", "demo/model.onnx", "--csv", "prices.csv", "--draws", 8), "+",
        *("info", "demo/model.onnx"), "+",
        *("bench", "demo/model.onnx", "--batch", 1, "--draws", 16, "--rounds", 1), "+",
        "train", "--help",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].split() == ["imported:"]


def test_commands_without_torch_would_be_noticed(demo: Outcome) -> None:
    done = python(RUN, HEAVY, "", "predict", "demo/model.pt", "--csv", "prices.csv", "--draws", 8, "--trusted")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["imported:", "torch"]


@pytest.mark.parametrize(
    ("blocked", "args", "extra"),
    [
        ("blitz", ("train", "--csv", "prices.csv", "--target", "Close", "--out", "new.pt"), "train"),
        ("torch", ("verify", "demo/model.onnx", "demo/checkpoint.pt"), "train"),
        ("torch", ("bench", "demo/model.onnx", "--against", "demo/checkpoint.pt"), "train"),
        ("torch", ("predict", "demo/model.pt", "--csv", "prices.csv", "--trusted"), "torchscript"),
        ("pandas", ("predict", "demo/model.onnx", "--csv", "prices.csv"), "cli"),
        ("typer", ("info", "demo/model.onnx"), "cli"),
        ("typer", ("--help",), "cli"),
    ],
)
def test_missing_extra(demo: Outcome, blocked: str, args: tuple[str, ...], extra: str) -> None:
    done = python(RUN, "", blocked, *args)
    fails(Outcome(done.returncode, done.stdout, done.stderr), re.escape(f'pip install "murho[{extra}]"'))
    assert blocked in done.stderr


def test_the_version_needs_no_extra() -> None:
    """The base install has numpy and onnxruntime."""
    done = python(RUN, "", "typer click rich pandas matplotlib torch", "--version")
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, f"murho {murho.__version__}", "")


def test_the_package_is_the_command_too() -> None:
    for args, code, text in ((["--version"], 0, murho.__version__), (["info", "foreign.onnx"], 1, "not a murho")):
        command = [sys.executable, "-m", "murho", *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert text in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_the_installed_command() -> None:
    script = Path(sys.executable).with_name("murho")
    assert subprocess.check_output([script, "--version"], text=True) == f"murho {murho.__version__}\n"
    done = subprocess.run([script, "info", "foreign.onnx"], capture_output=True, text=True, check=False)
    fails(Outcome(done.returncode, done.stdout, done.stderr), r"foreign\.onnx is not a murho artifact")
