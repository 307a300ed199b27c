"""Networks as people write them, tests/zoo: each does in every format what its file says, and the page says it too."""

import pytest
import zoo
from zoo_page import checked

LENGTH = "a window whose length is fixed is taken for one of any length"
CONSTANT = "an argument that is no tensor"
SHARED = "an input that all rows share"
IDS = "ids or values of shape [B]"
COLUMNS = "columns of whole numbers are taken for tokens"
KNOWN = {
    "continual": CONSTANT,
    "conv_lstm": LENGTH,
    "entity_embeddings": COLUMNS,
    "filled_columns": LENGTH,
    "graph_edges": SHARED,
    "lag": LENGTH,
    "lstm_in_a_loop": LENGTH,
    "multi_task_flag": CONSTANT,
    "neural_recommender": COLUMNS,
    "one_column": IDS,
    "question_answering_lengths": "only sequences as long as the first are of any length",
    "recommender": IDS,
    "rounding_limit": "float32's own distance from float64 counts as a difference",
    "shared_mask": SHARED,
    "shared_positions": SHARED,
    "steps_concatenated": LENGTH,
    "unrolled": LENGTH,
}
"""What does not do yet what its file says, and why: a list that only shrinks."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xfail(strict=True, reason=KNOWN[name])] if name in KNOWN else [])
        for name in zoo.names()
    ],
)
def test_a_network_does_what_its_file_says(name: str) -> None:
    checked(zoo.pattern(name))
