"""Networks as people write them, tests/zoo: each does in every format what its file says, and the page says it too."""

import pytest
import zoo
from zoo_page import checked

KNOWN = {
    "rounding_limit": "float32's own distance from float64 counts as a difference",
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
