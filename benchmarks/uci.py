"""Exported regressors on five UCI sets with their standard splits, beside BLiTZ's own sampling of the same networks.

Run: python benchmarks/uci.py [--data ../shared/data/uci] [--write docs/studies.md]. Takes some fifteen minutes of one
core. Exits with 1 where artifact and BLiTZ differ by more than Monte-Carlo error, in a split or in the mean over them.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.special import logsumexp
from studies import MOST_ERRORS, apart, jackknife, write_section

import murho
from murho.cli.tables import write_json
from murho.data import with_validation
from murho.export import to_onnx
from murho.export.montecarlo import Plan
from murho.export.subject import examine
from murho.models import Regressor
from murho.train import Dataset, fit, prepare_rows

COMPLEXITY_WEIGHTS = (0.1, 0.01)  # times 1/N; each split takes the one with the lower validation loss
# MC dropout: mean over 20 splits of RMSE and test log likelihood (yaringal/DropoutUncertaintyExps).
REFERENCE = {
    "bostonHousing": (2.90, -2.40),
    "concrete": (4.82, -2.93),
    "energy": (0.54, -1.21),
    "wine-quality-red": (0.62, -0.93),
    "yacht": (0.67, -1.25),
}
DRAWS = 1000


def split(folder: Path, number: int) -> Dataset:
    table = np.loadtxt(folder / "data.txt")
    features, target, train, test = (
        np.loadtxt(folder / f"index_{name}.txt", dtype=int, ndmin=1)
        for name in ("features", "target", f"train_{number}", f"test_{number}")
    )
    x, y = table[:, features], table[:, target[0]]
    return prepare_rows(x, y, name=folder.name, parts=(train, [], test), seed=number)


def trained(data: Dataset, seed: int, weight: float) -> tuple[float, float, Regressor]:
    """(lowest validation loss, weight, network) with a complexity weight of weight/N."""
    torch.manual_seed(seed)
    network = Regressor(data.shape[0], (50,), posterior_rho_init=-3.0)
    rows = len(with_validation(data)[0])
    history = fit(
        network, data, epochs=200, batch_size=32, learning_rate=0.01, samples=1, patience=30,
        complexity_weight=weight / rows, seed=seed, progress=False,
    )  # fmt: skip
    return min(history.validation), weight, network


def log_likelihood(samples: NDArray[Any], y: NDArray[Any], noise: float) -> float:
    """Mean over rows of log (1/S) Σ_s N(y; f_s(x), noise²), for samples [S, rows]."""
    terms = -0.5 * ((y - samples) / noise) ** 2 - np.log(noise * np.sqrt(2 * np.pi))
    return float(np.mean(logsumexp(terms, axis=0) - np.log(len(samples))))


def rmse(samples: NDArray[Any], y: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean((samples.mean(axis=0) - y) ** 2)))


def one_split(data: Dataset, number: int, folder: Path, advance: Callable[[], None]) -> dict[str, Any]:
    candidates = []
    for weight in COMPLEXITY_WEIGHTS:
        candidates.append(trained(data, number, weight))
        advance()
    _, weight, network = min(candidates, key=lambda candidate: candidate[0])
    to_onnx(network, folder / "uci.onnx", data.train.x[:32], scaling=data.scaling)
    model = murho.load(folder / "uci.onnx")
    reference = examine(network, data.train.x[:32], Plan(data.scaling)).reference
    # The noise is chosen on the rows that stopped the training, never on the test rows.
    held_out = with_validation(data)[1]
    kept = model.samples(held_out.x, DRAWS, seed=1)[:, :, 0].astype(np.float64)
    noises = np.std(data.train.y) * np.geomspace(0.01, 1, 60)
    noise = float(max(noises, key=lambda value: log_likelihood(kept, held_out.y[:, 0], value)))
    y = data.test.y[:, 0].astype(np.float64)
    ours = model.samples(data.test.x, DRAWS)[:, :, 0].astype(np.float64)
    theirs = reference.free([torch.from_numpy(data.test.x)], DRAWS, number)["output"][:, :, 0]
    size = {"rows": len(data.train) + len(data.test), "features": data.shape[0]}
    result: dict[str, Any] = {"set": data.name, "split": number, **size, "weight": weight, "noise": noise}
    for name, statistic in (("rmse", lambda s: rmse(s, y)), ("tll", lambda s: log_likelihood(s, y, noise))):
        one, other = jackknife(statistic, ours), jackknife(statistic, theirs)
        if not np.isfinite([*one, *other]).all():
            raise SystemExit(f"{data.name}, split {number}: {name} is not finite: {one} and {other}.")
        result |= {name: one, f"{name}_blitz": other, f"{name}_apart": apart(one, other)}
    return result


def most_apart(rows: list[dict[str, Any]]) -> float:
    """The largest difference of one set, in Monte-Carlo errors: in any split, and in the mean over the splits.

    The mean would show a small difference that always goes the same way.
    """
    found = []
    for key in ("rmse", "tll"):
        ours, theirs = (np.array([row[name] for row in rows]) for name in (key, f"{key}_blitz"))  # [splits, 2]
        means = [(side[:, 0].mean(), np.linalg.norm(side[:, 1]) / len(rows)) for side in (ours, theirs)]
        found += [row[f"{key}_apart"] for row in rows] + [apart(*means)]
    return float(max(found))


def table(results: list[dict[str, Any]]) -> str:
    splits = max(row["split"] for row in results) + 1
    lines = [
        "`python benchmarks/uci.py --write docs/studies.md`: one hidden layer of 50, trained by `murho.train.fit`; "
        f"mean ± standard error over the first {splits} standard splits (MC dropout: all 20), {DRAWS} draws each. In "
        "every split the rows that stop the training, 15 % of its training rows, also choose the complexity weight "
        f"({' or '.join(f'{weight:g}' for weight in COMPLEXITY_WEIGHTS)} of 1/N, by the loss) and the observation "
        "noise τ (by the artifact's log likelihood), the same for artifact and BLiTZ; the test rows choose nothing. "
        "Test log likelihood: log (1/S) Σ N(y; f(x), τ²), mean over rows. Monte-Carlo errors: jackknife over draws; "
        "most apart: in any split, or in the mean over the splits.",
        "",
        "| set | rows | features | RMSE, artifact | RMSE, BLiTZ | log likelihood, artifact | log likelihood, BLiTZ | "
        "most apart, in Monte-Carlo errors | MC dropout: RMSE, log likelihood |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (rmse_reference, tll_reference) in REFERENCE.items():
        rows = [row for row in results if row["set"] == name]
        if not rows:
            continue
        cells = []
        for key in ("rmse", "rmse_blitz", "tll", "tll_blitz"):
            values = np.array([row[key][0] for row in rows])
            spread = f" ± {values.std(ddof=1) / np.sqrt(len(values)):.2f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3f}{spread}")
        size = f"{rows[0]['rows']} | {rows[0]['features']}"
        reference = f"{rmse_reference:.2f}, {tll_reference:.2f}"
        lines.append(f"| {name} | {size} | {' | '.join(cells)} | {most_apart(rows):.1f} | {reference} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/uci")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--only", choices=REFERENCE, action="append")
    parser.add_argument("--json", type=Path, help="write every split's results to this file")
    parser.add_argument("--write", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"{arguments.data} is not there: give the folder of the UCI sets with --data.")
    torch.set_num_threads(1)
    names = arguments.only or list(REFERENCE)
    results = []
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        task = progress.add_task("", total=len(names) * arguments.splits * len(COMPLEXITY_WEIGHTS))
        for name in names:
            for number in range(arguments.splits):
                progress.update(task, description=f"{name}, split {number}")
                data = split(arguments.data / name, number)
                results.append(one_split(data, number, Path(folder), lambda: progress.advance(task)))
    if arguments.json:
        write_json(arguments.json, results)
    write_section(arguments.write, "UCI regression", table(results))
    return int(any(most_apart([row for row in results if row["set"] == name]) > MOST_ERRORS for name in names))


if __name__ == "__main__":
    sys.exit(main())
