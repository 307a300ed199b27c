"""The commands of `murho` and their options. What they do stands in other modules, imported when asked for."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from .entry import extra


class _Commands(typer.core.TyperGroup):
    """Says that it was interrupted, which typer leaves out or words as it likes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    help="Fast, seeded prediction intervals from Bayesian networks trained with BLiTZ.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Values(StrEnum):
    """What the network reads and predicts; undone in the artifact."""

    LEVELS = "levels"
    DIFFERENCES = "differences"
    RETURNS = "returns"


class NoiseKind(StrEnum):
    """Observation noise in the intervals."""

    LEARNED = "learned"
    CONSTANT = "constant"
    NONE = "none"


class Rows(StrEnum):
    """Which rows of a file to take."""

    AUTO = "auto"
    ALL = "all"
    CALIBRATION = "calibration"
    TEST = "test"


class Task(StrEnum):
    """What the demo can show; each has a module of its own."""

    FORECAST = "forecast"
    REGRESSION = "regression"
    DIGITS = "digits"


Csv = Annotated[Path, typer.Option("--csv", help="A CSV file (also .csv.gz), oldest row first or with a date column.")]
Artifact = Annotated[
    Path, typer.Argument(help="An artifact: .onnx, .pt for TorchScript, or .pt2 for torch.export.", show_default=False)
]
Trusted = Annotated[
    bool, typer.Option("--trusted", help="Open a .pt or .pt2 file, which is a program that can do anything.")
]
NETWORK_HELP = "The checkpoint, or module:factory, a function that returns the trained network,"
CheckpointFile = Annotated[Path, typer.Argument(help="A checkpoint written by murho train.", show_default=False)]
Features = Annotated[
    list[str], typer.Option("--feature", help="A further column that the network sees; may be repeated.")
]
Epochs = Annotated[int, typer.Option(min=1, help="Most passes over the training part.")]
Seed = Annotated[int, typer.Option(help="Equal seeds give equal results.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result to this file too.")]
Date = Annotated[str | None, typer.Option(help="The date column, if murho should not look for it.")]
Data = Annotated[
    Path, typer.Argument(help="A CSV file with the columns that the network was trained on.", show_default=False)
]
Column = Annotated[
    list[str],
    typer.Option("--column", help="A column that the network reads, in its order; may be repeated. Else the card's."),
]
Target = Annotated[
    list[str],
    typer.Option("--target", help="The column that it predicts; of a table may be repeated. Else the card's."),
]
Window = Annotated[
    int | None, typer.Option("--window", min=1, help="Rows of a window.", show_default="as the artifact's card says")
]
ROWS_HELP = "auto: of the file that the network was trained on the {} part, of any other file all rows."


def _asked(date: str | None, columns: list[str], targets: list[str], window: int | None) -> Any:
    return extra(".examples", "cli").Asked(date, tuple(columns), tuple(targets), window)


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """`--version` is here for the help alone: `main` answers it, without typer."""


@app.command()
def demo(
    task: Annotated[
        Task, typer.Option(help="forecast: a series; regression: a table of patients; digits: small images.")
    ] = Task.FORECAST,
    csv: Annotated[
        Path | None, typer.Option(help="A CSV file of your own, in place of the built-in IBM prices.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict; needed with --csv.")] = None,
    feature: Features = [],  # noqa: B006 - typer copies it
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for everything that the demo writes.",
            show_default="demo-output, in it a folder per other task",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Most passes over the training part.", show_default="40, of digits 20"),
    ] = None,
    draws: Annotated[int, typer.Option(min=16, help="Weight draws per interval.")] = 256,
    values: Annotated[
        Values | None,
        typer.Option(help="What a forecast reads, see murho train.", show_default="returns; differences with --csv"),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Do the whole job: train, export, verify, predict, and show the result. A minute or two on 2 cores."""
    if task is Task.FORECAST:
        if (csv is None) != (target is None):
            raise typer.BadParameter("--csv and --target go together.")
        folder = out or Path("demo-output")
        extra(".demo_forecast", "train").run(csv, target, feature, folder, epochs, draws, values and values.value, seed)
        return
    own = {"--csv": csv, "--target": target, "--feature": feature or None, "--values": values}
    if given := [name for name, value in own.items() if value is not None]:
        raise typer.BadParameter(f"{', '.join(given)}: only for --task forecast; {task} brings its own data.")
    extra(f".demo_{task}", "train").run(out or Path("demo-output", task), epochs, draws, seed)


@app.command()
def train(
    csv: Csv,
    target: Annotated[str, typer.Option(help="The column to predict.")],
    feature: Features = [],  # noqa: B006 - typer copies it
    date: Date = None,
    out: Annotated[Path, typer.Option(help="The checkpoint to write.")] = Path("checkpoint.pt"),
    window: Annotated[int, typer.Option(min=1, help="Rows that the network reads.")] = 21,
    horizon: Annotated[int, typer.Option(min=1, help="Rows that it predicts at once.")] = 1,
    cell: Annotated[str, typer.Option(help="lstm or gru.")] = "lstm",
    hidden: Annotated[int, typer.Option(min=1, help="Hidden units of a layer.")] = 10,
    layers: Annotated[int, typer.Option(min=1, help="Stacked recurrent layers.")] = 1,
    values: Annotated[
        Values,
        typer.Option(
            help="What the network reads: levels, as in the BLiTZ tutorial; or differences or returns from the "
            "window's last value, which follow a series that drifts."
        ),
    ] = Values.LEVELS,
    noise: Annotated[
        NoiseKind,
        typer.Option(
            help="Observation noise. learned: the network says its scale for each window; constant: from the residuals "
            "of held-out rows; none: the interval shows the weights' doubt alone, as in BLiTZ."
        ),
    ] = NoiseKind.LEARNED,
    degrees: Annotated[
        int, typer.Option(min=0, help="Degrees of freedom of Student-t noise, 3 or more; 0 for Gaussian noise.")
    ] = 0,
    epochs: Epochs = 120,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows in a training step.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Weight samples in a training step.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Adam's step size.")] = 0.01,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better validation loss before it stops.")] = 40,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint, to the same result as in one go.")] = False,
) -> None:
    """Train a Bayesian LSTM or GRU on a series and keep its best weights as a checkpoint."""
    extra(".tasks", "train").train(
        csv=csv,
        target=target,
        features=feature,
        date=date,
        out=out,
        window=window,
        horizon=horizon,
        values=values.value,
        noise=noise.value,
        degrees=degrees,
        network={"cell": cell, "hidden": hidden, "layers": layers},
        settings={
            "epochs": epochs,
            "batch_size": batch_size,
            "samples": samples,
            "learning_rate": learning_rate,
            "patience": patience,
            "seed": seed,
            "resume": resume,
        },
    )


@app.command()
def check(
    network: Annotated[
        str,
        typer.Argument(
            help="A checkpoint, or module:factory, a function that returns the trained network, (network, example), or "
            "(network, example, options of to_onnx).",
            show_default=False,
        ),
    ],
    example: Annotated[
        Path | None,
        typer.Option(
            help="Typical inputs in raw units: .npy, .npz by the names of forward's arguments, or a CSV file.",
            show_default="what the function returns",
        ),
    ] = None,
    column: Annotated[
        list[str],
        typer.Option("--column", help="Of a CSV file, a column that the network reads, in its order; may be repeated."),
    ] = [],  # noqa: B006 - typer copies it
    window: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of a CSV file, rows of a window, for a network that reads windows.", show_default=False
        ),
    ] = None,
    date: Date = None,
    task: Annotated[str | None, typer.Option(help="regression, forecast or classification.")] = None,
    sampling: Annotated[str | None, typer.Option(help="weights or local, see murho export.")] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Steps of whole paths, see murho export.")] = None,
    storage: Annotated[str | None, typer.Option(help="float32 or half, see murho export.")] = None,
    streaming: Annotated[bool, typer.Option(help="Carry the recurrent layers' states, see murho export.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say whether a network exports: all that stands in its way, which axes are free, what it costs. Writes nothing.

    The exit code is 0 if one format exports at least.
    """
    given = {"task": task, "sampling": sampling, "horizon": horizon, "storage": storage, "streaming": streaming or None}
    options = {name: value for name, value in given.items() if value is not None}
    extra(".check", "train").run(network, example, _asked(date, column, [], window), options, json)


@app.command()
def export(
    checkpoint: CheckpointFile,
    out: Annotated[list[Path], typer.Argument(help="Files to write: .onnx, .pt and .pt2 choose the format.")],
    sampling: Annotated[
        str,
        typer.Option(
            help="weights, as BLiTZ draws; or local: a linear layer's outputs in their place. Each row has the same "
            "law and is far faster, but draws are no longer comparable across rows."
        ),
    ] = "weights",
    horizon: Annotated[
        int,
        typer.Option(
            min=1,
            help="Steps of whole paths: each draw's prediction, with its noise, becomes its next value. For a "
            "checkpoint that predicts one row from one column.",
        ),
    ] = 1,
    storage: Annotated[
        str,
        typer.Option(
            help="float32; or half: μ in float16 and log σ in 8 bits, for a file of less than half the size. The proof "
            "says by how much the intervals change."
        ),
    ] = "float32",
    streaming: Annotated[
        bool, typer.Option(help="Carry the recurrent layers' states, so that a new row costs one step.")
    ] = False,
) -> None:
    """Export a checkpoint to artifacts, and prove each against BLiTZ before it is put in place."""
    options = {"sampling": sampling, "horizon": horizon, "storage": storage, "streaming": streaming}
    extra(".tasks", "train").export(checkpoint, out, options)


@app.command()
def minimal(
    artifact: Annotated[Path, typer.Argument(help="An ONNX artifact, calibrated if it is to be.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the two files.", show_default="beside the artifact")
    ] = None,
) -> None:
    """For a small build of ONNX Runtime: the list of operators to build, and the artifact in the .ort format."""
    extra(".tasks", "train").minimal(artifact, out)


@app.command()
def calibrate(
    artifact: Artifact,
    data: Data,
    target: Target = [],  # noqa: B006 - typer copies it
    column: Column = [],  # noqa: B006
    window: Window = None,
    date: Date = None,
    out: Annotated[
        Path | None, typer.Option(help="The calibrated artifact to write.", show_default="in place of the old one")
    ] = None,
    level: Annotated[
        list[float], typer.Option(help="A level to calibrate; may be repeated.", show_default="50 to 99 %")
    ] = [],  # noqa: B006
    half_life: Annotated[
        float | None, typer.Option(min=1, help="Rows after which a row counts half, for a world that drifts.")
    ] = None,
    rows: Annotated[Rows, typer.Option(help=ROWS_HELP.format("calibration"))] = Rows.AUTO,
    trusted: Trusted = False,
) -> None:
    """Stretch an artifact's intervals so that they cover what they say, on rows that training did not see."""
    asked = _asked(date, column, target, window)
    extra(".calibration", "cli").calibrate(
        artifact, data, asked=asked, out=out, levels=level, half_life=half_life, rows=rows, trusted=trusted
    )


@app.command()
def evaluate(
    artifact: Artifact,
    data: Data,
    target: Target = [],  # noqa: B006 - typer copies it
    column: Column = [],  # noqa: B006
    window: Window = None,
    date: Date = None,
    rows: Annotated[Rows, typer.Option(help=ROWS_HELP.format("test"))] = Rows.AUTO,
    baselines: Annotated[
        bool, typer.Option(help="Forecast the same windows by other methods too: some minutes.")
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder for the report and the pictures.")] = Path("evaluation-output"),
    draws: Annotated[int, typer.Option(min=16, help="Weight draws per interval.")] = 256,
    seed: Seed = 0,
    trusted: Trusted = False,
) -> None:
    """Score an artifact's intervals on data, beside other methods: coverage, width, interval score, CRPS, pictures."""
    asked = _asked(date, column, target, window)
    extra(".evaluation", "train").evaluate(
        artifact, data, asked=asked, rows=rows, baselines=baselines, out=out, draws=draws, seed=seed, trusted=trusted
    )


@app.command()
def predict(
    artifact: Artifact,
    csv: Csv,
    column: Column = [],  # noqa: B006 - typer copies it
    window: Window = None,
    date: Date = None,
    latest: Annotated[bool, typer.Option("--latest", help="Of the latest window, or row, alone.")] = False,
    out: Annotated[Path | None, typer.Option(help="CSV to write; without it the rows are printed.")] = None,
    draws: Annotated[
        int | None, typer.Option(min=2, help="Weight draws; the artifact's own default if not given.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Draw until every end is sure to this share of its interval's width, such as 0.02."),
    ] = None,
    level: Annotated[list[float], typer.Option(help="Nominal coverage, such as 0.95; may be repeated.")] = [],  # noqa: B006
    seed: Annotated[int | None, typer.Option(help="Equal seeds give equal results.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    trusted: Trusted = False,
) -> None:
    """Prediction intervals for every window of a CSV file, or its latest one, without torch."""
    extra(".tables", "cli").predict(
        artifact,
        csv,
        asked=_asked(date, column, [], window),
        latest=latest,
        out=out,
        draws=draws,
        tolerance=tolerance,
        levels=level,
        seed=seed,
        device=device,
        trusted=trusted,
    )


@app.command()
def page(
    artifact: Annotated[Path, typer.Argument(help="An ONNX artifact that forecasts a series.", show_default=False)],
    data: Annotated[Path, typer.Argument(help="A CSV file with the series.", show_default=False)],
    target: Target = [],  # noqa: B006 - typer copies it
    column: Column = [],  # noqa: B006
    window: Window = None,
    date: Date = None,
    out: Annotated[Path, typer.Option(help="The folder to write; an earlier page in it is replaced.")] = Path("page"),
    packages: Annotated[
        Path | None,
        typer.Option(
            help="A node_modules folder with onnxruntime-web and uplot.",
            show_default="a cache, which npm is asked to fill the first time",
        ),
    ] = None,
) -> None:
    """Write a page that forecasts the series in any browser: one folder, to open, to send, or to put on a server."""
    extra(".page", "cli").page(artifact, data, _asked(date, column, target, window), out, packages)


@app.command()
def verify(
    artifact: Artifact,
    network: Annotated[str, typer.Argument(help=f"{NETWORK_HELP} it was made from.", show_default=False)],
    example: Annotated[
        Path | None,
        typer.Option(
            help="Inputs for the proof, in raw units: .npy, .npz by the inputs' names, or a CSV file.",
            show_default="drawn around the artifact's input mean",
        ),
    ] = None,
    json: Json = None,
    trusted: Trusted = False,
) -> None:
    """Repeat an artifact's proof against the BLiTZ network that it was made from, and print the report."""
    extra(".tasks", "train").verify(artifact, network, example, json, trusted)


@app.command()
def info(
    artifact: Artifact, json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False
) -> None:
    """Show what an artifact says of itself: inputs, outputs, layers, training and proof."""
    extra(".tables", "cli").info(artifact, as_json=json)


@app.command()
def bench(
    artifact: Annotated[list[Path], typer.Argument(help="Artifacts of one network.", show_default=False)],
    against: Annotated[
        str | None, typer.Option(help=f"{NETWORK_HELP} they were made from: times BLiTZ's own loop too.")
    ] = None,
    batch: Annotated[list[int], typer.Option(min=1, help="Rows in a call; may be repeated.")] = [1, 64],  # noqa: B006
    draws: Annotated[list[int], typer.Option(min=16, help="Weight draws; may be repeated.")] = [100, 1000],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=1, help="Timed calls of each system; BLiTZ's loop gets a third.")] = 15,
    json: Json = None,
    trusted: Trusted = False,
) -> None:
    """Time artifacts against each other and against BLiTZ's own loop, side by side, and check every result."""
    module: Any = extra(".bench", "cli" if against is None else "train")
    module.run(
        artifact, against=against, batches=batch, draw_counts=draws, rounds=rounds, json_path=json, trusted=trusted
    )
