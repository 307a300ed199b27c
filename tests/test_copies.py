"""Copies of a model: pickled, deep, and in processes of their own."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import murho
from murho import ArtifactError, InputError

FORMATS = ("onnx", "torchscript")


def same(one: murho.Model, other: murho.Model, x: np.ndarray) -> None:
    assert one.predict(x, 100, (0.5, 0.9), seed=3, parts=True) == other.predict(x, 100, (0.5, 0.9), seed=3, parts=True)


@pytest.fixture
def model(small: Path) -> murho.Model:
    return murho.load(small, threads=3, keep_mb=7, measure=False, trusted=True)


X = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((60, 2))


def test_a_pickle_and_a_copy_are_the_model_though_its_file_is_gone(model, small, tmp_path) -> None:
    stored = pickle.dumps(model)
    small.unlink()
    again = pickle.loads(stored)
    for other in (again, copy.deepcopy(again), copy.copy(again)):
        same(model, other, X[:3])
        assert (other._threads, other._settings, other.card) == (3, model._settings, model.card)
    again.save(tmp_path / f"again{small.suffix}")
    same(model, murho.load(tmp_path / f"again{small.suffix}", trusted=True), X[:3])


def test_what_was_calibrated_and_observed_goes_along(model) -> None:
    plain = model.predict(X[:3], 100, 0.8)
    model.calibrate(X, Y, levels=[0.5, 0.8])
    assert (model.predict(X[:3], 100, 0.8).upper != plain.upper).any()
    model.predict(X[:3], 100, 0.8)
    model.observe(np.full((3, 2), 1e3))
    model.predict(X[:3], 100, 0.8)  # whose truth is still to be told, of the copy too
    again = pickle.loads(pickle.dumps(model))
    for one in (model, again):
        one.observe(np.full((3, 2), -1e3))
    assert again.predict(X[:3], 100, 0.8) == model.predict(X[:3], 100, 0.8)
    again.calibrate(X, 2 * Y, levels=[0.5, 0.8])
    assert again.card != model.card


def test_a_pickle_that_was_changed_is_refused(model, small) -> None:
    rebuild, (path, content, *rest) = model.__reduce__()
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(ArtifactError):
        rebuild(path, bytes(damaged), *rest)


def test_a_file_that_changed_since_it_was_loaded_is_not_pickled(model, small) -> None:
    other = murho.load(small, trusted=True)
    other.calibrate(X, Y, levels=[0.5])
    other.save(small)
    with pytest.raises(ArtifactError, match="was calibrated anew since it was loaded"):
        pickle.dumps(model)
    small.unlink()
    with pytest.raises(ArtifactError, match="Cannot read the artifact"):
        copy.deepcopy(model)


def test_intervals_are_plain_data(model) -> None:
    for answer in (model.predict(X[:3], 50, (0.5, 0.9), parts=True), model.predict(X[:3], tolerance=0.2)):
        assert pickle.loads(pickle.dumps(answer)) == answer == copy.deepcopy(answer)


def test_processes_that_are_spawned(small) -> None:
    code = """
import multiprocessing, sys
import numpy as np
import murho

if __name__ == "__main__":
    model = murho.load(sys.argv[1], trusted=True)
    x = np.ones((2, 3), np.float32)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (answer,) = pool.map(model.predict, [x])  # a method takes its model along
    assert answer == model.predict(x)
    print("same")
"""
    path = small.with_name("spawning.py")
    path.write_text(code)
    done = subprocess.run([sys.executable, "-W", "ignore", str(path), str(small)], capture_output=True, text=True)
    assert done.stdout == "same\n", done.stderr


def test_joblib(exported) -> None:
    joblib = pytest.importorskip("joblib")
    model = murho.load(exported("mlp").onnx)
    (answer,) = joblib.Parallel(2)([joblib.delayed(model.predict)(X[:2])])
    assert answer == model.predict(X[:2])


def test_a_stream_says_how_it_is_taken_along(tmp_path) -> None:
    import torch

    from murho.export import to_onnx
    from murho.models import Forecaster

    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((4, 3, 1)).astype(np.float32)
    to_onnx(Forecaster(hidden=3), tmp_path / "stream.onnx", x, streaming=True)
    stream = murho.load(tmp_path / "stream.onnx").stream(32)
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(InputError, match=r"Save its states with save\(\), and load\(\) them"):
            copied(stream)
