"""Commands on artifacts whose cards say little: what they were not told they ask for, by option or error."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from blitz.modules import BayesianLinear, BayesianLSTM
from torch import nn
from typer.testing import CliRunner

import murho
from murho import InputError
from murho.cli import bench
from murho.cli.app import app
from murho.cli.loop import BlitzLoop
from murho.export import to_onnx

ROWS, WINDOW = 60, 5
RHO = {"posterior_rho_init": -2.0}


class Windows(nn.Module):
    """[B, T, 2] -> [B, 2]: the next two prices, from volume and price."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = BayesianLSTM(2, 4, **RHO), BayesianLinear(4, 2, **RHO)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Two(nn.Module):
    """Two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = BayesianLinear(3, 2, **RHO), BayesianLinear(2, 2, **RHO)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.one(left) + self.other(right)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bare.onnx, which knows neither columns nor window nor target, one.onnx of one column, and prices.csv."""
    folder = tmp_path_factory.mktemp("strange")
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    x = random.standard_normal((8, WINDOW, 2)).astype(np.float32)
    to_onnx(Windows(), folder / "bare.onnx", x)
    dates = pd.date_range("2020-01-01", periods=ROWS)
    frame = pd.DataFrame(random.standard_normal((ROWS, 3)), columns=["price", "volume", "other"])
    frame.insert(0, "day", dates)
    frame.to_csv(folder / "prices.csv", index=False)
    frame[["day", "volume", "price"]][::-1].to_csv(folder / "two.csv", index=False)
    return folder


def run(folder: Path, *arguments: Any) -> Any:
    outcome = CliRunner().invoke(
        app, [str(folder / a) if str(a).endswith((".onnx", ".csv")) else str(a) for a in arguments]
    )
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome


def windows(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    values = pd.read_csv(folder / "prices.csv")[["volume", "price"]].to_numpy(np.float32)
    x = np.stack([values[row - WINDOW : row] for row in range(WINDOW, ROWS + 1)])
    y = np.stack([values[row : row + 2, 1] for row in range(WINDOW, ROWS - 1)])
    return x, y


TOLD = ("--column", "volume", "--column", "price", "--window", WINDOW)


def test_predict_is_told_columns_and_window(folder: Path) -> None:
    x, _ = windows(folder)
    want = murho.load(folder / "bare.onnx").predict(x, 16)
    run(folder, "predict", "bare.onnx", "--csv", "prices.csv", *TOLD, "--draws", 16, "--out", "answer.csv")
    answer = pd.read_csv(folder / "answer.csv", index_col=0)
    np.testing.assert_allclose(answer.filter(like="mean"), want.mean, rtol=1e-5, atol=1e-6)
    assert (answer.index[0], answer.index.name) == ("2020-01-05", "day")
    # A file of just as many columns needs no names; its newest row comes first.
    run(folder, "predict", "bare.onnx", "--csv", "two.csv", "--window", WINDOW, "--draws", 16, "--out", "again.csv")
    pd.testing.assert_frame_equal(pd.read_csv(folder / "again.csv", index_col=0), answer)
    run(folder, "predict", "bare.onnx", "--csv", "prices.csv", *TOLD, "--draws", 16, "--latest", "--out", "last.csv")
    pd.testing.assert_frame_equal(pd.read_csv(folder / "last.csv", index_col=0), answer[-1:])


def test_calibrate_is_told_the_target_too(folder: Path) -> None:
    x, y = windows(folder)
    model = murho.load(folder / "bare.onnx")
    want = model.calibrate(x[: len(y)], y, [0.5, 0.8])
    run(
        *(folder, "calibrate", "bare.onnx", "prices.csv", *TOLD, "--target", "price", "--level", 0.5, "--level", 0.8),
        *("--out", "calibrated.onnx"),
    )
    assert murho.load(folder / "calibrated.onnx").card.calibration.factors == want.factors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("predict", "bare.onnx", "--csv", "prices.csv"),
            "has price, volume, other. Name them, in its order, with --col",
        ),
        (
            ("predict", "bare.onnx", "--csv", "prices.csv", *TOLD[:4]),
            "does not say how many rows it reads. Say it with --w",
        ),
        (("predict", "bare.onnx", "--csv", "prices.csv", *TOLD[:2]), r"reads 2 column\(s\), but 1 are named: volume"),
        (("predict", "bare.onnx", "--csv", "prices.csv", *TOLD[:3], "open"), "There is no column 'open'"),
        (
            ("calibrate", "bare.onnx", "prices.csv", *TOLD),
            "does not say which column it predicts. Name it with --target",
        ),
        (
            ("calibrate", "bare.onnx", "prices.csv", *TOLD, "--target", "price", "--rows", "calibration"),
            "there is no calibration part. Use --rows all",
        ),
        (("calibrate", "bare.onnx", "prices.csv", *TOLD, "--target", "a", "--target", "b"), "one target, not a, b"),
    ],
)
def test_what_nobody_said_is_asked_for(folder: Path, arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(folder, *arguments)


def test_bench_of_a_network_with_two_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, random = Two(), np.random.default_rng(0)
    example = {"right": random.standard_normal((8, 2)), "left": random.standard_normal((8, 3))}
    card = to_onnx(network, tmp_path / "two.onnx", example)
    loop, model = BlitzLoop(network, card), murho.load(tmp_path / "two.onnx")
    x = tuple(example[array.name].astype(np.float32) for array in card.inputs)
    bench.check_at_equal_noise(card, model.predict(x, 16), loop, x, local=False)
    assert loop(x, 16).mean.shape == (8, 2)
    swapped = Two()
    with pytest.raises(InputError, match="nets:other is not the network that the artifacts were made from"):
        BlitzLoop(swapped, card, "nets:other")


def test_help_names_no_torch_for_what_needs_none() -> None:
    for command in ("predict", "calibrate", "page"):
        text = " ".join(CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output.split())
        assert re.search(r"--column .*--window ", text), command
