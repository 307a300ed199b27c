"""Weights drawn by compiled code are those that the file's own nodes draw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import murho
from murho.export import to_onnx
from murho.models import Forecaster, Regressor
from murho.runtime import drawing
from murho.runtime.artifact import read
from murho.runtime.split import split

DRAWS = np.array([0, 1, 2, 17, 10**9, 2**32 - 1])
SEED = -(2**40) + 5
# The two forms of a normal differ by at most 5e-6 (derived in test_generator.py); a weight by σ times that.
NOISE_TOLERANCE = 5e-6

compiled_only = pytest.mark.skipif(drawing._compiled is None, reason="the C code was not compiled")


@pytest.fixture
def path(exported, tmp_path) -> Callable[[str], Path]:
    def made(name: str) -> Path:
        if name not in ("noise", "half size"):
            return exported(name).onnx
        torch.manual_seed(0)
        random = np.random.default_rng(0)
        if name == "noise":
            x = random.standard_normal((9, 5, 1), dtype=np.float32)
            to_onnx(Forecaster(hidden=3, learned_noise=True), tmp_path / "a.onnx", x, noise=murho.Noise("gaussian"))
        else:
            x = random.standard_normal((9, 3), dtype=np.float32)
            to_onnx(Regressor(3, (8, 8)), tmp_path / "a.onnx", x, storage="half")
        return tmp_path / "a.onnx"

    return made


@compiled_only
@pytest.mark.parametrize("name", ["demo", "gru_linear", "zoo", "bare", "double", "noise", "half size"])
def test_compiled_code_draws_what_the_nodes_draw(path, opened, name: str) -> None:
    halves = split(read(path(name)).content)
    compiled = drawing.compiled(halves.sampler, halves.drawn, opened, {})
    assert compiled is not None
    got, want = compiled(DRAWS, SEED), drawing.by_nodes(halves.sampler, halves.drawn, opened)(DRAWS, SEED)
    assert len(got) == len(want) == len(halves.drawn)
    for ours, theirs in zip(got, want, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
        spread = np.abs(theirs - theirs.mean(axis=0)).max()  # above σ
        rounding = 2 * np.finfo(np.float32).eps * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=NOISE_TOLERANCE * spread + rounding)


@compiled_only
def test_views_have_no_memory_of_their_own(path, opened) -> None:
    halves = split(read(path("demo")).content)
    plain, viewing = (
        drawing.compiled(halves.sampler, halves.drawn, opened, views) for views in ({}, {"drawn.0": (12, 40)})
    )
    assert plain is not None
    assert viewing is not None
    (want,), (got,) = plain(DRAWS, SEED), viewing(DRAWS, SEED)
    assert got.base is not None
    assert got.transpose(0, 2, 1).flags.c_contiguous
    np.testing.assert_array_equal(got, want)


@compiled_only
def test_a_draw_is_the_same_to_the_bit_in_any_company(path, opened) -> None:
    halves = split(read(path("demo")).content)
    compiled: Any = drawing.compiled(halves.sampler, halves.drawn, opened, {})
    (together,) = compiled(DRAWS, SEED)
    for k, draw in enumerate(DRAWS):
        np.testing.assert_array_equal(compiled(np.array([draw]), SEED)[0][0], together[k])


def test_without_compiled_code_the_nodes_draw(exported, monkeypatch) -> None:
    case = exported("demo")
    usual = murho.load(case.onnx).samples(case.example, 40, SEED)
    monkeypatch.setattr(drawing, "_compiled", None)
    plain = murho.load(case.onnx).samples(case.example, 40, SEED)
    np.testing.assert_allclose(plain, usual, rtol=0, atol=1e-5 * np.abs(plain).max())


@compiled_only
@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (1, 5)])
def test_arrays_that_do_not_fit_are_refused(shape: tuple[int, int]) -> None:
    mu = np.zeros(5, np.float32)
    with pytest.raises(ValueError, match=r"expected draws int64"):
        drawing._compiled.draw(np.arange(2), 0, 0, mu, mu, np.zeros(shape, np.float32))
