"""What a network reads together with what came of it, from arrays or from a DataFrame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from .contract import Card
from .errors import InputError
from .inputs import Arrays, Input, as_inputs, from_frame, is_forecast

if TYPE_CHECKING:
    import pandas as pd

Truth = ArrayLike | str | Sequence[str]


def as_examples(card: Card, x: "Input | pd.DataFrame", y: Truth) -> tuple[Arrays, ArrayLike]:
    """The inputs, and the truth of each row of them, not checked yet.

    Of a DataFrame `x`, `y` may name its columns of truth. Where the network reads windows, that is the one column whose
    values in the rows after each window the network forecasts; the last windows, after which too few rows follow, are
    left out. Or `y` is an array, Series or DataFrame with a row for each row of the answer to `x`.

    Raises InputError for columns that are not there, an index that is another than the answer's, and a name where the
    artifact does not say that it forecasts.
    """
    if type(x).__module__.partition(".")[0] != "pandas":
        return as_inputs(card, cast(Input, x)), y
    table: Any = x
    inputs, index = from_frame(card, table)
    frame: pd.DataFrame = table if table.ndim == 2 else table.to_frame()
    if names := _names(y):
        if missing := [name for name in names if name not in frame.columns]:
            raise InputError(
                f"The DataFrame lacks the column(s) {', '.join(missing)} of the truth; it has "
                f"{', '.join(map(str, frame.columns))}."
            )
        values = frame[names].to_numpy()
        return (inputs, values) if len(card.input.shape) == 2 else _forecasts(card, inputs, values, names)
    if hasattr(y, "index") and hasattr(y, "to_numpy"):
        theirs: Any = y
        if not theirs.index.equals(index):
            raise InputError(
                f"y has another index than the answer to x, which has {len(index)} rows from {index[0]} to "
                f"{index[-1]}. Align it first, or name a column of x."
            )
        return inputs, cast(ArrayLike, theirs)  # with its columns' names
    return inputs, y


def _names(y: Truth) -> list[str]:
    """The columns that are named, or none."""
    if isinstance(y, str):
        return [y]
    return list(cast(Sequence[str], y)) if isinstance(y, list | tuple) and all(isinstance(v, str) for v in y) else []


def _forecasts(card: Card, inputs: Arrays, values: Any, names: list[str]) -> tuple[Arrays, ArrayLike]:
    horizon = card.output.shape[1] if len(card.output.shape) == 2 else None
    if not is_forecast(card) or horizon is None or len(names) > 1:
        raise InputError(
            f"Whether {', '.join(names)} stands in a window's last row or in those after it, the artifact does not "
            'say: its task is no forecast of one column. Export it with task="forecast", or pass an array with a row '
            "for each window."
        )
    window = inputs[0].shape[1]
    if len(values) < window + horizon:
        raise InputError(
            f"Windows of {window} rows and the {horizon} after them need at least {window + horizon} rows; the "
            f"DataFrame has {len(values)}."
        )
    truth = np.lib.stride_tricks.sliding_window_view(values[window:, 0], horizon)
    return (inputs[0][: len(truth)],), truth
