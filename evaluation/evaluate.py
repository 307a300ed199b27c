"""The scores of an artifact's intervals, from arrays or a DataFrame."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..runtime import Model
from ..runtime.checks import instance
from ..runtime.errors import InputError
from ..runtime.examples import Truth, as_examples
from ..runtime.inputs import Input, as_truth
from .forecasts import Forecasts, followed, of_model
from .scores import Scores, score

if TYPE_CHECKING:
    import pandas as pd

ONLINE = "murho, online"


def evaluate(model: Model, x: "Input | pd.DataFrame", y: Truth, draws: int = 256) -> dict[str, Scores]:
    """Scores of a model's intervals on rows that training did not see, by the name of the method.

    `x` [n, …] and the truth `y` [n, O], both in raw units, are as for `Model.calibrate`: arrays, or a DataFrame and the
    names of its columns of truth. The methods are "murho", the intervals as `predict` gives them ("murho, not
    calibrated" where nothing was calibrated), and of a forecast whose rows follow each other in time "murho, online",
    the same with `observe` told each value. What the model was told before does not count, and it learns nothing.

    Raises InputError for data of the wrong shape or with NaN, and for an artifact that gives no values [batch, O].
    """
    instance("model", model, Model)
    inputs, values = as_examples(model.card, x, y)
    if len(inputs) > 1:
        raise InputError("Only an artifact with one input can be evaluated; this one has several.")
    truth = as_truth(model.card, values, len(inputs[0]))
    return {name: score(one, truth) for name, one in forecasts_of(model, inputs[0], truth, draws).items()}


def forecasts_of(
    model: Model,
    x: NDArray[np.float32],
    y: NDArray[np.float64],
    draws: int = 256,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Forecasts]:
    """The forecasts that `evaluate` scores; `advance` is told how many rows are done."""
    ours = of_model(model, x, draws, calibrated=True, advance=advance)
    found = {"murho" if model.card.calibration else "murho, not calibrated": ours}
    if model.card.task == "forecast":
        found[ONLINE] = followed(ours, y)
    return found
