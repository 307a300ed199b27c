"""Is the Monte-Carlo error of interval ends what it says? Estimated error over the ends' true spread, by simulation.

Run: python benchmarks/mc_error.py. Beside murho's half distance between the order statistics one standard error of the
rank away: the same two standard errors away, and the estimator of Maritz & Jarrett (1978). 1 is right. Every figure is
a mean over both ends of 1000 answers for each of four laws; the range is over ends and laws.
"""

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from murho.runtime.intervals import FEWEST_BEYOND, Quantiles

LAWS = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "Student-t 5": lambda random, shape: random.standard_t(5, shape),
    "exponential": lambda random, shape: random.exponential(size=shape),
    "two peaks": lambda random, shape: random.standard_normal(shape) + 4 * (random.random(shape) < 0.5),
}
DRAWS, LEVELS, ANSWERS = (50, 100, 250, 1000, 4000), (0.5, 0.8, 0.95, 0.99), 1000


def main() -> None:
    table = Table(title="estimated error of an end over its true standard deviation")
    for column in ("draws", "level", "beyond an end", "murho", "two errors away", "Maritz & Jarrett"):
        table.add_column(column, justify="right")
    random = np.random.default_rng(0)
    for draws in DRAWS:
        ratios = [study(law(random, (draws, ANSWERS)).astype(np.float32)) for law in LAWS.values()]
        for k, level in enumerate(LEVELS):
            beyond = draws * (1 - level) / 2
            shown = []
            for name in ("murho", "two", "maritz"):
                values = np.concatenate([ratio[name][:, k] for ratio in ratios])
                low, high = values.min(), values.max()
                shown.append("unknown" if np.isinf(high) else f"{np.mean(values):.2f} [{low:.2f}–{high:.2f}]")
            table.add_row(str(draws), f"{level:.0%}", f"{beyond:.3g}", *shown)
    Console().print(table, f"Not estimated where less than {FEWEST_BEYOND:g} draw lies beyond an end on average.")


def study(samples: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Ratios [2, levels] of the lower and the upper ends, by estimator, for samples [S, answers]."""
    levels, quantiles = np.array(LEVELS), Quantiles(samples)
    lower, upper, errors = quantiles.ends(levels)
    true = np.stack([end.std(axis=1, ddof=1) for end in (lower, upper)])
    ordered = np.sort(samples, axis=0).astype(np.float64)
    tails = np.stack([(1 - levels) / 2, (1 + levels) / 2])
    others = {
        name: np.array([[estimate(ordered, p).mean() for p in end] for end in tails])
        for name, estimate in (("two", two_away), ("maritz", maritz_jarrett))
    }
    estimates = {"murho": errors.mean(axis=2), **others}
    return {name: values / true for name, values in estimates.items()}


def two_away(ordered: NDArray[np.float64], p: float) -> NDArray[np.float64]:
    spread = np.sqrt(p * (1 - p) / len(ordered))
    low, high = max(p - 2 * spread, 0.0), min(p + 2 * spread, 1.0)
    distance: NDArray[np.float64] = np.subtract(*np.quantile(ordered, [high, low], axis=0))
    return distance * spread / (high - low)


def maritz_jarrett(ordered: NDArray[np.float64], p: float) -> NDArray[np.float64]:
    """The variance of order statistic m = [pS + 1/2] under the empirical law, its weights from a beta law."""
    count = len(ordered)
    m = min(max(int(p * count + 0.5), 2), count - 1)
    weights = np.diff(stats.beta.cdf(np.arange(count + 1) / count, m - 1, count - m))
    variance = weights @ ordered**2 - (weights @ ordered) ** 2
    root: NDArray[np.float64] = np.sqrt(np.maximum(variance, 0))
    return root


if __name__ == "__main__":
    main()
