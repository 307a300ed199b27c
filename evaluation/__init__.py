"""How good intervals are: scores, and the methods that a user might take instead."""

from ..runtime.errors import needs_extra

with needs_extra("murho.evaluation", "train"):
    from .baselines import quantile_regression, random_walk, seasonal_naive, tutorial
    from .compare import TUTORIAL, compare
    from .evaluate import evaluate
    from .forecasts import LEVELS, Forecasts, followed, of_model, split_conformal
    from .scores import Scores, score

__all__ = [
    "LEVELS",
    "TUTORIAL",
    "Forecasts",
    "Scores",
    "compare",
    "evaluate",
    "followed",
    "of_model",
    "quantile_regression",
    "random_walk",
    "score",
    "seasonal_naive",
    "split_conformal",
    "tutorial",
]
