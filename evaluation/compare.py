"""The same windows forecast by every method that a user might take instead, each as good as it can be made."""

from collections.abc import Iterator

from ..train import Dataset, Series
from .baselines import quantile_regression, random_walk, seasonal_naive, tutorial
from .forecasts import Forecasts, followed, split_conformal

TUTORIAL = "BLiTZ's tutorial"


def compare(series: Series, data: Dataset, seed: int = 0, quick: bool = False) -> Iterator[tuple[str, Forecasts]]:
    """Forecasts of the test part of a forecasting dataset, by the name of the method.

    Random walk, season and quantile regression are calibrated on the calibration part, and then followed online.
    `quick` leaves out what must be trained: the quantile regression and BLiTZ's tutorial.
    """
    season, naive = seasonal_naive(data)
    pairs = {"random walk": random_walk(data), f"season of {season} rows": naive}
    if not quick:
        pairs["quantile regression"] = quantile_regression(data)
    for name, (before, after) in pairs.items():
        split = split_conformal(before, data.calibration.y, after)
        yield f"{name}, split", split
        yield f"{name}, online", followed(split, data.test.y)
    if not quick:
        yield TUTORIAL, tutorial(series, data, seed)[1]
