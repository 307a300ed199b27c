"""Do mirrored draws pay? Draw 2k + 1 with the noise of draw 2k, negated: the error of means and interval ends, studied.

Run: python benchmarks/antithetic.py. Three trained networks, 256 draws, 400 seeds: the variance over seeds of the mean
and of the ends with independent draws, over that with mirrored ones. Above 1, mirrored draws are worth that many times
as many independent ones. They would also spare half of the generator's work (`python benchmarks/profile_nodes.py`), but
nothing where the draws are kept.
"""

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn

from murho.export.generator import torch_normals
from murho.export.montecarlo import PLAIN, MonteCarloNetwork, Plan
from murho.export.subject import examine
from murho.models import Classifier, Forecaster, Regressor
from murho.train import Dataset, builtin_series, fit, prepare, prepare_rows

DRAWS, SEEDS, ROWS = 256, 400, 8
LEVELS = (0.5, 0.8, 0.95)


def mirrored(draws: Tensor, seed: Tensor, mu: Tensor, sigma: Tensor, site: int) -> Tensor:
    sign = (1 - 2 * (draws % 2)).unsqueeze(1)
    return mu + sigma * sign * torch_normals(draws // 2, seed, site, mu.size(0))


def main() -> None:
    warnings.simplefilter("ignore", UserWarning)
    table = Table(title=f"variance of independent over mirrored draws, {DRAWS} draws, {SEEDS} seeds")
    for column in ("network", "mean", *(f"ends of {level:.0%}" for level in LEVELS)):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, (data, build, task) in SUBJECTS.items():
        gains = study(data(), build, task)
        table.add_row(name, *(f"{gain:.2f}" for gain in gains))
    # A ratio of two variances of n = 400 has a relative standard error of √(4 / n).
    Console().print(table, f"one standard error of a ratio: {np.sqrt(4 / SEEDS):.0%}, less where rows agree")


def study(data: Dataset, build: Callable[[], nn.Module], task: str) -> list[float]:
    """Gains of the mean and of the ends, each a mean over rows."""
    torch.manual_seed(0)
    network = build()
    fit(network, data, epochs=15, learning_rate=0.01, samples=1, progress=False)
    x = torch.from_numpy(data.test.x[:ROWS])
    subject = examine(network, data.test.x[:ROWS], Plan(data.scaling), task)
    statistics = []
    for kernels in (PLAIN, dataclasses.replace(PLAIN, sample_weights=mirrored)):
        folded = MonteCarloNetwork(subject.network, subject.posteriors, subject.plan, kernels)
        with torch.no_grad():
            found = [
                summary(folded.samples(x, torch.arange(DRAWS), torch.tensor(seed)).numpy()) for seed in range(SEEDS)
            ]
        statistics.append(np.stack(found).var(axis=0))  # [1 + 2 K, values]
    ratio = (statistics[0] / statistics[1]).mean(axis=1)
    return [float(ratio[0]), *(float(ratio[1 + 2 * k : 3 + 2 * k].mean()) for k in range(len(LEVELS)))]


def summary(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean, and lower and upper end of each level, [1 + 2 K, values], of samples [S, B, …]."""
    flat = samples.reshape(len(samples), -1).astype(np.float64)
    tails = [tail for level in LEVELS for tail in ((1 - level) / 2, (1 + level) / 2)]
    return np.concatenate([flat.mean(axis=0, keepdims=True), np.quantile(flat, tails, axis=0)])


def diabetes() -> Dataset:
    x, y = load_diabetes(return_X_y=True)
    return prepare_rows(x, y, name="diabetes")


def digits() -> Dataset:
    x, y = load_digits(return_X_y=True)
    return prepare_rows(x.reshape(-1, 1, 8, 8) / 16, y, name="digits", classes=[str(digit) for digit in range(10)])


SUBJECTS: dict[str, tuple[Callable[[], Dataset], Callable[[], nn.Module], str]] = {
    "tutorial's LSTM": (lambda: prepare(builtin_series()), Forecaster, "forecast"),
    "3 × 64 regressor": (diabetes, lambda: Regressor(10, (64, 64, 64)), "regression"),
    "LeNet on digits": (digits, lambda: Classifier(size=8, kernel=3, padding=1), "classification"),
}


if __name__ == "__main__":
    main()
