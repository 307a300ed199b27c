"""An exported Bayesian LeNet on 5000 MNIST digits, beside BLiTZ's own sampling of the same network.

Run: python benchmarks/mnist.py [--data ../shared/data/images/mnist_5k.csv.gz] [--write docs/studies.md]. Takes some
three minutes of one core. Exits with 1 where an artifact and BLiTZ differ by more than Monte-Carlo error.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress, track
from studies import MOST_ERRORS, apart, write_section

import murho
from murho.cli.tables import write_json
from murho.data import with_validation
from murho.export import to_onnx
from murho.export.montecarlo import Plan
from murho.export.subject import examine
from murho.models import Classifier
from murho.train import Dataset, fit, prepare_rows

DRAWS, BINS = 1000, 15
RESAMPLES = 500


def digits(path: Path) -> Dataset:
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    order = np.random.default_rng(0).permutation(len(table))
    x, y = table[:, :-1].reshape(-1, 1, 28, 28) / 255, table[:, -1].astype(int)
    return prepare_rows(
        x, y, name="mnist_5k", target="digit", classes=[str(digit) for digit in range(10)],
        parts=(order[:4000], [], order[4000:]),
    )  # fmt: skip


def accuracy(mean: NDArray[Any], y: NDArray[Any]) -> float:
    """Of class probabilities [rows, classes], mean over the draws, and labels [rows]."""
    return float(np.mean(mean.argmax(axis=-1) == y))


def negative_log_likelihood(mean: NDArray[Any], y: NDArray[Any]) -> float:
    return float(-np.log(np.maximum(mean[np.arange(len(y)), y], 1e-12)).mean())


def calibration_error(mean: NDArray[Any], y: NDArray[Any]) -> float:
    """Expected calibration error of the top class in 15 bins of equal width (Guo et al. 2017, equation 3)."""
    confidence, right = mean.max(axis=-1), mean.argmax(axis=-1) == y
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(
        sum(abs(right[place == k].sum() - confidence[place == k].sum()) for k in range(BINS) if (place == k).any())
        / len(y)
    )


SCORES = {
    "accuracy": accuracy,
    "negative log likelihood, nats": negative_log_likelihood,
    "expected calibration error": calibration_error,
}


def bootstrap(samples: NDArray[Any], y: NDArray[Any]) -> dict[str, tuple[float, float]]:
    """(value, Monte-Carlo standard error) of each score of samples [S, rows, classes], drawing the draws again.

    A jackknife would not do: accuracy and calibration error jump where a row changes its class or bin.
    """
    draws, rows, classes = samples.shape
    flat = samples.reshape(draws, -1).astype(np.float64)
    shares = np.random.default_rng(0).multinomial(draws, np.full(draws, 1 / draws), RESAMPLES) / draws
    again = (shares @ flat).reshape(RESAMPLES, rows, classes)
    mean = flat.mean(axis=0).reshape(rows, classes)
    return {
        name: (score(mean, y), float(np.std([score(resampled, y) for resampled in again], ddof=1)))
        for name, score in SCORES.items()
    }


def study(data: Dataset) -> dict[str, Any]:
    torch.manual_seed(0)
    network = Classifier()
    rows = len(with_validation(data)[0])
    fit(
        network, data, epochs=12, batch_size=64, learning_rate=0.003, samples=1, patience=12,
        complexity_weight=0.1 / rows,
    )  # fmt: skip
    x, y = data.test.x, data.test.y
    samples, doubts = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for sampling in ("weights", "local"):
            path = Path(folder) / f"{sampling}.onnx"
            with Progress(transient=True) as progress:
                progress.add_task(f"Exporting and running {path.name}", total=None)
                to_onnx(
                    network, path, data.train.x[:32], scaling=data.scaling, task="classification", sampling=sampling
                )
                answer = murho.load(path, threads=1).predict(x, DRAWS)
            name = f"artifact, {sampling}"
            samples[name] = answer.samples
            doubts[name] = answer.entropy(), answer.mutual_information()
    plan = Plan(data.scaling)
    reference = examine(network, data.train.x[:32], plan, "classification").reference
    parts = [
        reference.free([torch.from_numpy(x)], DRAWS // 20, seed)["output"]
        for seed in track(range(20), "Running BLiTZ's loop", transient=True)
    ]
    samples["BLiTZ"] = np.concatenate(parts)
    for name, part in samples.items():
        if part.shape != (DRAWS, len(y), 10) or not np.allclose(part.sum(axis=-1), 1, rtol=0, atol=1e-4):
            raise SystemExit(f"{name} gives no class probabilities: shape {part.shape}.")
    scored = {name: bootstrap(part, y) for name, part in samples.items()}
    results: dict[str, Any] = {"trained on": rows}
    for score in SCORES:
        values = {name: scores[score] for name, scores in scored.items()}
        smallest = 1 / len(y) if score == "accuracy" else 1e-12  # accuracy moves by whole rows
        most = max(apart(value, values["BLiTZ"], smallest) for value in values.values())
        results[score] = {"values": values, "apart": most}
    right = samples["artifact, weights"].mean(axis=0).argmax(axis=-1) == y
    entropy, information = doubts["artifact, weights"]
    results["doubt"] = {
        name: [float(entropy[which].mean()), float(information[which].mean()), int(which.sum())]
        for name, which in (("right", right), ("wrong", ~right))
    }
    return results


def table(results: dict[str, Any]) -> str:
    names = list(results["accuracy"]["values"])
    lines = [
        f"`python benchmarks/mnist.py --write docs/studies.md`: LeNet, 4000 digits to train ({results['trained on']} "
        f"of them after those kept to stop the training), 1000 to test; {DRAWS} draws each of artifacts and BLiTZ's "
        f"loop. Calibration error: {BINS} bins of the top class's probability. Monte-Carlo standard errors: "
        f"{RESAMPLES} bootstrap samples of the draws.",
        "",
        f"| | {' | '.join(names)} | most apart, in Monte-Carlo errors |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for score in SCORES:
        cells = [f"{value:.4f} ± {error:.4f}" for value, error in results[score]["values"].values()]
        lines.append(f"| {score} | {' | '.join(cells)} | {results[score]['apart']:.1f} |")
    right, wrong = results["doubt"]["right"], results["doubt"]["wrong"]
    lines += [
        "",
        f"Predictive entropy of the {right[2]} right answers: {right[0]:.3f} nats, {right[1]:.3f} of it from the "
        f"weights; of the {wrong[2]} wrong ones {wrong[0]:.3f} and {wrong[1]:.3f}.",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/images/mnist_5k.csv.gz")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--write", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    if not arguments.data.is_file():
        sys.exit(f"{arguments.data} is not there: give the file of digits with --data.")
    torch.set_num_threads(1)
    results = study(digits(arguments.data))
    if arguments.json:
        write_json(arguments.json, results)
    write_section(arguments.write, "MNIST digits", table(results))
    return int(any(results[score]["apart"] > MOST_ERRORS for score in SCORES))


if __name__ == "__main__":
    sys.exit(main())
