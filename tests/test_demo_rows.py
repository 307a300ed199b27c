"""The demos of a table and of images: what they write and print, held against the artifacts, numpy and scikit-learn."""

import contextlib
import io
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import accuracy_score, log_loss

import murho
from murho.cli.demo_digits import _scores
from murho.cli.entry import main
from murho.train import load_checkpoint

LEVELS = (0.6, 0.8, 0.95)
DRAWS = 16
ARTIFACTS = {"model.onnx", "model.pt", "model-local.onnx"}
PICTURES = {"regression": {"intervals.png"}, "digits": {"unsure.png", "certainty.png"}}
TASKS = tuple(PICTURES)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return " ".join(self.out.split())


def command(*args: Any) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["murho", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
    return Outcome(int(stop.value.code or 0), out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Shown:
    """A demo that ran."""

    folder: Path
    text: str
    report: dict[str, Any]
    table: pd.DataFrame


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    demos = {}
    for task in TASKS:
        folder = tmp_path_factory.mktemp("demo") / "new" / task
        outcome = command("demo", "--task", task, "--epochs", 2, "--draws", DRAWS, "--out", folder)
        assert (outcome.code, outcome.err.count("Traceback")) == (0, 0), outcome
        report = json.loads((folder / "report.json").read_text())
        demos[task] = Shown(folder, outcome.text, report, pd.read_csv(folder / "intervals.csv"))
    return demos


@pytest.fixture(params=TASKS)
def one(request: pytest.FixtureRequest, shown: dict[str, Shown]) -> tuple[str, Shown]:
    return request.param, shown[request.param]


def test_files(one: tuple[str, Shown]) -> None:
    task, demo = one
    files = ARTIFACTS | PICTURES[task] | {"checkpoint.pt", "intervals.csv", "report.json"}
    assert {path.name for path in demo.folder.iterdir()} == files
    assert all(name in demo.text for name in files)


def test_pictures(one: tuple[str, Shown]) -> None:
    task, demo = one
    for name in PICTURES[task]:
        image = matplotlib.image.imread(demo.folder / name)[..., :3]
        assert image.shape[0] > 400
        assert image.shape[1] > 1000
        pixels = (255 * image).round().astype(int).reshape(-1, 3)
        assert np.mean((pixels != 255).any(1)) > 0.02, f"{name} is nearly blank"
        assert np.sum((pixels == (0xC2, 0x41, 0x0C)).all(1)) > 200, f"{name} shows no predictions"


def test_report(one: tuple[str, Shown]) -> None:
    task, demo = one
    report = demo.report
    rows = {"regression": 442, "digits": 1797}[task]
    cut = [round(0.7 * rows), round(0.8 * rows), rows]
    assert report["rows"] == {"training": cut[0], "calibration": cut[1] - cut[0], "test": cut[2] - cut[1]}
    assert (report["draws"], report["seed"], report["training"]["epochs"]) == (DRAWS, 0, 2)
    assert set(report["proof"]) == ARTIFACTS
    for found in report["proof"].values():
        assert found["passed"] is True
        assert found["exact"]["largest_error"] < 1e-5
        assert found["law"]["smallest_p"] >= found["law"]["threshold"]
    assert report["machine"]["cores"] >= 1


def test_times(one: tuple[str, Shown]) -> None:
    _, demo = one
    seconds = demo.report["seconds"]
    assert list(seconds) == ["BLiTZ loop", "murho onnxruntime", "murho torchscript", "murho onnxruntime, local"]
    assert f"Intervals of {len(demo.table)} rows from {DRAWS} draws" in demo.text
    for name, value in seconds.items():
        ratio = seconds["BLiTZ loop"] / value
        assert re.search(rf"{name}\W+{1000 * value:.0f} ms\W+{ratio:.0f} ×", demo.text), name


def test_settings_of_the_training(shown: dict[str, Shown]) -> None:
    settings = {task: load_checkpoint(demo.folder / "checkpoint.pt").settings for task, demo in shown.items()}
    digits = {"batch_size": 64, "samples": 1, "learning_rate": 0.005, "complexity_weight": 0.1 / 1069}  # 85 % of 1258
    assert digits.items() <= settings["digits"].items()
    assert {"batch_size": 32, "samples": 2, "learning_rate": 0.01}.items() <= settings["regression"].items()


def test_local_artifact_samples_outputs(one: tuple[str, Shown]) -> None:
    task, demo = one
    card = murho.load(demo.folder / "model-local.onnx").card
    linear = [site.sampling for site in card.sites if site.kind == "BayesianLinear"]
    assert linear == ["local"] * {"regression": 2, "digits": 3}[task]
    assert all(site.sampling == "weights" for site in murho.load(demo.folder / "model.onnx").card.sites)


# The table


@pytest.fixture
def diabetes(shown: dict[str, Shown]) -> tuple[Shown, murho.Intervals]:
    """The demo, and what its artifact says of the rows of intervals.csv."""
    demo = shown["regression"]
    x = load_diabetes(scaled=False).data[demo.table["row"]]
    return demo, murho.load(demo.folder / "model.onnx").predict(x, DRAWS, LEVELS, 0)


def test_regression_table_is_what_the_artifact_says(diabetes: tuple[Shown, murho.Intervals]) -> None:
    demo, answer = diabetes
    table = demo.table.astype(np.float32)
    assert demo.table["row"].nunique() == len(table) == 88
    np.testing.assert_array_equal(table["progression"], load_diabetes().target[demo.table["row"]])
    np.testing.assert_array_equal(table["mean"], answer.mean[:, 0])
    np.testing.assert_array_equal(table["std"], answer.std[:, 0])
    for k, level in enumerate(LEVELS):
        np.testing.assert_array_equal(table[f"lower {100 * level:g}%"], answer.lower[k, :, 0])
        np.testing.assert_array_equal(table[f"upper {100 * level:g}%"], answer.upper[k, :, 0])


def test_regression_scores_follow_from_the_table(shown: dict[str, Shown]) -> None:
    table, scores = shown["regression"].table, shown["regression"].report["test"]["murho"]
    truth = table["progression"]
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((table["mean"] - truth) ** 2)), rel=1e-5)
    for level in LEVELS:
        lower, upper = (table[f"{end} {100 * level:g}%"] for end in ("lower", "upper"))
        assert scores["coverage"][f"{level:g}"] == np.mean((lower <= truth) & (truth <= upper))
        assert scores["mean_width"][f"{level:g}"] == pytest.approx(np.mean(upper - lower), rel=1e-5)
        assert f"{scores['coverage'][f'{level:g}']:.1%}" in shown["regression"].text


def test_regression_baseline_is_the_training_part(shown: dict[str, Shown]) -> None:
    demo = shown["regression"]
    scores, y = demo.report["test"]["without a network"], load_diabetes().target
    order = np.random.default_rng(0).permutation(442)
    seen, truth = y[order[:309]], y[order[354:]]
    np.testing.assert_array_equal(demo.table["row"], order[354:])
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((seen.mean() - truth) ** 2)), rel=1e-5)
    for level in LEVELS:
        lower, upper = np.quantile(seen, [(1 - level) / 2, (1 + level) / 2])
        assert scores["coverage"][f"{level:g}"] == pytest.approx(np.mean((lower <= truth) & (truth <= upper)))
        assert scores["mean_width"][f"{level:g}"] == pytest.approx(upper - lower, rel=1e-5)


def test_regression_is_calibrated(shown: dict[str, Shown]) -> None:
    assert "Calibrated on 45 rows that training did not see." in shown["regression"].text


# The digits


@pytest.fixture
def digits(shown: dict[str, Shown]) -> tuple[Shown, np.ndarray]:
    """The demo, and its artifact's probabilities [S, B, 10] of the digits of intervals.csv, in float64."""
    demo = shown["digits"]
    x = load_digits().images[demo.table["row"], None] / 16
    return demo, murho.load(demo.folder / "model.onnx").predict(x, DRAWS, LEVELS, 0).samples.astype(np.float64)


def test_digits_table_is_what_the_artifact_says(digits: tuple[Shown, np.ndarray]) -> None:
    demo, samples = digits
    table, p = demo.table, samples.mean(0)
    assert table["row"].nunique() == len(table) == 359
    np.testing.assert_array_equal(table["digit"], load_digits().target[table["row"]])
    np.testing.assert_array_equal(table["answer"], p.argmax(1))
    entropy = -(p * np.log(p)).sum(1)
    inside = -(samples * np.log(np.where(samples > 0, samples, 1))).sum(2).mean(0)
    np.testing.assert_allclose(table["entropy"], entropy, atol=1e-6)
    np.testing.assert_allclose(table["mutual information"], entropy - inside, atol=1e-6)
    for name in range(10):
        np.testing.assert_allclose(table[f"mean {name}"], p[:, name], atol=1e-6)
        for level in LEVELS:
            ends = np.quantile(samples[..., name], [(1 - level) / 2, (1 + level) / 2], axis=0)
            columns = [f"{end} {100 * level:g}% {name}" for end in ("lower", "upper")]
            np.testing.assert_allclose(table[columns].T, ends, atol=1e-6)


def test_digits_scores_follow_from_the_table(shown: dict[str, Shown]) -> None:
    demo = shown["digits"]
    table, scores = demo.table, demo.report["test"]
    p = table[[f"mean {name}" for name in range(10)]].to_numpy(np.float64)
    assert scores["accuracy"] == accuracy_score(table["digit"], p.argmax(1))
    p /= p.sum(1, keepdims=True)
    assert scores["negative_log_likelihood"] == pytest.approx(log_loss(table["digit"], p, labels=range(10)), rel=1e-5)
    for name, own in table.groupby(np.where(table["digit"] == table["answer"], "right", "wrong")):
        assert scores[name]["rows"] == len(own)
        assert scores[name]["entropy"] == pytest.approx(own["entropy"].mean(), rel=1e-5)
        assert scores[name]["mutual_information"] == pytest.approx(own["mutual information"].mean(), rel=1e-5)
    assert scores["right"]["rows"] + scores["wrong"]["rows"] == 359
    assert f"accuracy {scores['accuracy']:.1%}" in demo.text
    assert f"expected calibration error {scores['calibration_error']:.2%}" in demo.text


def test_calibration_error_of_a_known_answer() -> None:
    """Ten answers of 80 % of which 6 are right, and ten certain ones, all right: 10/20 · |0.6 - 0.8| + 0."""
    p = np.repeat(np.array([[0.8, 0.2], [0.0, 1.0]], np.float32), 10, axis=0)
    truth = np.repeat([0, 1, 1], [6, 4, 10])
    scores = _scores(p, truth)
    assert scores["calibration_error"] == pytest.approx(0.1, abs=1e-6)
    assert scores["accuracy"] == 0.8
    assert scores["negative_log_likelihood"] == pytest.approx(-(6 * math.log(0.8) + 4 * math.log(0.2)) / 20, abs=1e-6)


def test_a_class_that_is_ruled_out_costs_much_but_not_infinity() -> None:
    scores = _scores(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert scores["negative_log_likelihood"] == pytest.approx(126 * math.log(2))  # float32's smallest normal number


# Usage


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("args", "names"),
    [
        (("--csv", "a.csv", "--target", "y"), "--csv, --target"),
        (("--feature", "y"), "--feature"),
        (("--values", "returns"), "--values"),
    ],
)
def test_options_of_a_forecast(task: str, args: tuple[str, ...], names: str, tmp_path: Path) -> None:
    outcome = command("demo", "--task", task, *args, "--out", tmp_path / "new")
    assert (outcome.code, outcome.out) == (2, "")
    message = re.sub(r"[\s│]+", " ", outcome.err)
    assert f"{names}: only for --task forecast; {task} brings its own data." in message
    assert not (tmp_path / "new").exists()


def test_unknown_task() -> None:
    outcome = command("demo", "--task", "faces")
    assert outcome.code == 2
    assert "'faces' is not one of" in outcome.err


@pytest.mark.parametrize("task", TASKS)
def test_folder_that_cannot_be_made(task: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = command("demo", "--task", task, "--out", tmp_path / "file")
    assert outcome.code == 1
    assert re.fullmatch(r"Error: Cannot make the folder [^\n]+ Choose another with --out\.\n", outcome.err)


@pytest.mark.parametrize("task", TASKS)
def test_interrupted_training_keeps_the_best_weights(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    # The package's name for the module is taken by the function.
    monkeypatch.setattr(sys.modules["murho.train.fit"].EpochBar, "show", interrupt)
    outcome = command("demo", "--task", task, "--out", tmp_path)
    assert (outcome.code, outcome.err.splitlines()[-1]) == (130, "Interrupted.")
    assert "Interrupted after 1 epochs; the best weights so far are in" in outcome.text
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert load_checkpoint(tmp_path / "checkpoint.pt").history.best_epoch == 1


def test_folders_by_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --out the demos do not write over each other."""
    import murho.cli.demo_digits
    import murho.cli.demo_forecast
    import murho.cli.demo_regression

    monkeypatch.chdir(tmp_path)
    found = {}
    for task in ("forecast", "regression", "digits"):
        module = getattr(murho.cli, f"demo_{task}")
        monkeypatch.setattr(module, "work", lambda *args, task=task: found.update({task: args}) or sys.exit(0))
        assert command("demo", "--task", task).code == 0
    folders = {task: str(args[4]) for task, args in found.items()}
    assert folders == {
        "forecast": "demo-output",
        "regression": "demo-output/regression",
        "digits": "demo-output/digits",
    }
    assert {task: args[2]["epochs"] for task, args in found.items()} == {
        "forecast": 40,
        "regression": 40,
        "digits": 20,
    }
