"""Networks as people write them, tests/zoo: each does in every format what its file says, and the page says it too."""

import pytest
import zoo
from zoo_page import checked

CONSTANT = "an argument that is no tensor"
SHARED = "an input that all rows share"
IDS = "ids or values of shape [B]"
KNOWN = {
    "continual": CONSTANT,
    "graph_edges": SHARED,
    "multi_task_flag": CONSTANT,
    "one_column": IDS,
    "plain_list": "layers in a plain list are not named as such",
    "recommender": IDS,
    "rounding_limit": "float32's own distance from float64 counts as a difference",
    "shared_mask": SHARED,
    "shared_positions": SHARED,
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
