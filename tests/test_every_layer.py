"""Every BLiTZ layer and option, and every way to build a network around them, in both formats."""

import functools
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES
from parity import TOLERANCE, blitz_samples, first_rows, largest_error

import murho
from murho.export import to_onnx, to_torchscript

EXPORTS = {"onnx": to_onnx, "torchscript": to_torchscript}
SEED = 2**40 + 77  # not the proof's
DRAWS = np.random.default_rng(5).integers(0, 2**32, 33)


@functools.cache
def blitz(name: str) -> tuple[Any, dict[str, np.ndarray]]:
    """Three rows, and BLiTZ's samples for them."""
    with CASES[name].network() as network:
        return blitz_samples(CASES[name], network, 3, DRAWS, SEED)


@pytest.mark.parametrize("name", CASES)
def test_exported_and_equal_to_blitz(tmp_path: Path, format: str, name: str) -> None:
    case, path = CASES[name], tmp_path / ("net.onnx" if format == "onnx" else "net.pt")
    with case.network() as network, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        EXPORTS[format](network, path, case.example, **case.options)
    model = murho.load(path, trusted=True)
    inputs, want = blitz(name)
    for rows in (1, 3):
        got = model.predict_all(first_rows(inputs, rows), DRAWS, seed=SEED)
        assert largest_error(got, {key: y[:, :rows] for key, y in want.items()}) <= TOLERANCE
    # The comparison can fail: another seed's noise moves the outputs by far more.
    other = model.predict_all(inputs, DRAWS, seed=SEED + 1)
    assert largest_error(other, want) > 100 * TOLERANCE


def test_the_matrix_in_the_docs_has_a_row_for_each() -> None:
    text = (Path(__file__).parents[1] / "docs" / "parity.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+ \|$", text, re.MULTILINE)
    assert rows == ["network", *CASES]
    assert "**" not in text.partition("|---|")[2], "a row says that it differs or fails"
