"""Rows of a table and images: their parts and scaling, and training on them."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

from murho.models import Classifier, Forecaster, Regressor
from murho.runtime.contract import Scaling
from murho.runtime.errors import InputError
from murho.train import Dataset, fit, load_checkpoint, prepare_rows, standardise
from murho.train.elbo import elbo_backward

FAST = {"epochs": 3, "batch_size": 16, "samples": 2, "learning_rate": 0.02, "progress": False}


def numbers(rows: int = 100, columns: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A table of which every value tells its own row and column, and twice the row as the target."""
    row = np.arange(rows, dtype=np.float64)
    return row[:, None] + 1000 * np.arange(columns), 2 * row


def table(**arguments: object) -> Dataset:
    x, y = numbers()
    return prepare_rows(x, y, **{"name": "numbers", "names": ("a", "b", "c"), **arguments})


def images(rows: int = 60, classes: int = 3, size: int = 8) -> Dataset:
    random = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    x = random.standard_normal((rows, 1, size, size)) + 2.0 * labels[:, None, None, None]
    return prepare_rows(x, labels, name="blobs", classes=["zero", "one", "two"][:classes], target="digit")


def small_classifier(seed: int = 0, classes: int = 3) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(size=8, classes=classes, filters=(2, 3), kernel=3, padding=1, hidden=(5,))


def small_regressor(seed: int = 0, features: int = 3, outputs: int = 1) -> Regressor:
    torch.manual_seed(seed)
    return Regressor(features, (6,), outputs)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items() if not key.endswith("eps_w")}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# Parts


@pytest.mark.parametrize("splits", [(0.7, 0.1, 0.2), (0.5, 0.25, 0.25)])
def test_every_row_is_in_one_part_with_its_target(splits: tuple) -> None:
    data = table(splits=splits)
    parts = (data.train, data.calibration, data.test)
    assert [len(part) for part in parts] == [round(100 * share) for share in splits]
    np.testing.assert_array_equal(np.sort(np.concatenate([part.dates for part in parts])), np.arange(100))
    for part in parts:
        assert part.x.dtype == part.y.dtype == np.float32
        np.testing.assert_array_equal(part.x, part.dates[:, None] + 1000 * np.arange(3))
        np.testing.assert_array_equal(part.y, 2 * part.dates[:, None])
        assert (np.diff(part.dates) < 0).any()  # shuffled


def test_what_a_dataset_says() -> None:
    data = table(target="price")
    assert (data.task, data.window, data.horizon, data.shape) == ("regression", None, 1, (3,))
    assert (data.columns, data.features, data.target) == (("a", "b", "c"), ("a", "b", "c"), "price")
    assert (data.output_names, data.repairs, data.splits) == (("price",), (), (0.7, 0.1, 0.2))
    x, y = numbers()
    both = prepare_rows(x, np.stack([y, -y], axis=1), name="two", target="price")
    assert both.output_names == ("price 1", "price 2")
    assert both.train.y.shape == (70, 2)
    assert both.columns == ()
    classes = images()
    assert (classes.task, classes.output_names, classes.shape) == ("classification", ("zero", "one", "two"), (1, 8, 8))


def test_seed_decides_the_order() -> None:
    one, same_seed, other = table(), table(seed=0), table(seed=1)
    np.testing.assert_array_equal(one.train.dates, same_seed.train.dates)
    assert not np.array_equal(one.train.dates, other.train.dates)


def test_given_parts_are_honoured() -> None:
    train, calibration, test = np.arange(40, 80), [3, 1, 2], np.array([99, 0, 98], np.uint8)
    data = table(parts=(train, calibration, test), splits=None)
    np.testing.assert_array_equal(np.sort(data.train.dates), train)
    assert not np.array_equal(data.train.dates, train)  # the last ones validate: they must not be those of one class
    assert (data.calibration.dates.tolist(), data.test.dates.tolist()) == ([3, 1, 2], [99, 0, 98])
    np.testing.assert_array_equal(data.test.y[:, 0], [198, 0, 196])
    assert data.splits == (40 / 46, 3 / 46, 3 / 46)

    none = table(parts=(train, [], test))
    assert len(none.calibration) == 0
    assert none.calibration.x.shape == (0, 3)
    assert none.scaling == data.scaling


# Scaling


def test_scaling_comes_from_the_training_rows_only() -> None:
    x, y = numbers()
    parts = (np.arange(40), np.arange(40, 50), np.arange(50, 100))
    data = prepare_rows(x, y, name="numbers", parts=parts)
    std = ((40**2 - 1) / 12) ** 0.5  # of 0 … 39
    np.testing.assert_allclose(data.scaling.input_mean, [19.5, 1019.5, 2019.5], rtol=1e-6)
    np.testing.assert_allclose(data.scaling.input_scale, [std] * 3, rtol=1e-6)
    np.testing.assert_allclose(data.scaling.output_mean, [39], rtol=1e-6)
    np.testing.assert_allclose(data.scaling.output_scale, [2 * std], rtol=1e-6)
    scaled_x, scaled_y = standardise(data.test, data.scaling)
    np.testing.assert_allclose(scaled_x, (data.test.x - [19.5, 1019.5, 2019.5]) / std, rtol=1e-5)
    np.testing.assert_allclose(scaled_y, (data.test.y - 39) / (2 * std), rtol=1e-5)
    x[40:], y[40:] = -7 * x[40:], -7 * y[40:]
    assert prepare_rows(x, y, name="numbers", parts=parts).scaling == data.scaling
    x[39] += 1
    assert prepare_rows(x, y, name="numbers", parts=parts).scaling != data.scaling


def test_images_have_one_mean_and_scale_and_labels_none() -> None:
    data = images()
    mean, scale = data.train.x.astype(np.float64).mean(), data.train.x.astype(np.float64).std()
    np.testing.assert_allclose(data.scaling.input_mean, [mean], rtol=1e-6)
    np.testing.assert_allclose(data.scaling.input_scale, [scale], rtol=1e-6)
    assert (data.scaling.output_mean, data.scaling.output_scale) == ((0,), (1,))
    x, y = standardise(data.test, data.scaling)
    np.testing.assert_allclose(x, (data.test.x - mean) / scale, rtol=1e-4, atol=1e-5)
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, data.test.dates % 3)


def test_a_constant_column_keeps_its_scale() -> None:
    x, y = numbers()
    x[:, 1] = 0.1
    data = prepare_rows(x, y, name="numbers")
    assert data.scaling.input_scale[1] == 1
    assert data.scaling.input_mean[1] == np.float32(0.1)
    assert (standardise(data.train, data.scaling)[0][:, 1] == 0).all()


def test_a_constant_target_is_an_error() -> None:
    x, y = numbers()
    y[:90] = 5
    with pytest.raises(InputError, match=r"In the training part \(90 rows\), target 'y' always holds 5.0"):
        prepare_rows(x, y, name="numbers", parts=(np.arange(90), [], np.arange(90, 100)))


X, Y = numbers(20, 2)
HOLE = X.copy()
HOLE[7, 1] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": Y}, r"x must have the shape \[rows, columns\] or .*, got \[20\]"),
        ({"x": X[:, :0]}, r"x must have the shape .*, got \[20, 0\]"),
        ({"x": X[:19]}, "x and y must have as many rows as each other, got 19 and 20"),
        ({"x": HOLE}, r"x has 1 value\(s\) that are missing, infinite or too large for float32, the first in row 7"),
        ({"y": Y * 1e38}, r"y has .* the first in row 2"),
        ({"x": X.astype(str)}, "x must hold numbers, got <U"),
        ({"x": X.astype(object)}, "x must hold numbers, got object"),
        ({"y": np.zeros((20, 1, 1))}, r"y must have the shape \[rows\] or \[rows, targets\], got \[20, 1, 1\]"),
        ({"names": ("a",)}, r"names must hold one name for each column of x, of shape \[20, 2\], got \('a',\)"),
        ({"names": ("a", "a")}, "names must be a sequence of different names"),
        ({"names": "ab"}, "names must be a sequence of different names, not 'ab'"),
        ({"x": np.zeros((20, 1, 2, 2)), "names": ("a", "b")}, r"names must hold one .* of shape \[20, 1, 2, 2\]"),
        ({"classes": ("only",)}, "classes must be at least two names"),
        (
            {"classes": ("a", "b")},
            r"With classes, y must hold whole numbers in the shape \[rows\], got float64 in \[20\]",
        ),
        ({"classes": ("a", "b"), "y": np.arange(20)}, "Labels must be from 0 to 1 for 2 classes, got 0 to 19"),
        ({"classes": ("a", "b"), "y": np.arange(20) - 1}, "Labels must be from 0 to 1 for 2 classes, got -1 to 18"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"splits": (0.7, 0.3)}, "splits must be three shares"),
        ({"splits": (0.7, 0.0, 0.3)}, "splits must be three shares"),
        ({"splits": (0.97, 0.01, 0.02)}, "20 rows are too few for splits"),
        ({"parts": ([0], [1])}, "parts must be the row numbers of training, calibration and test, got 2 lists"),
        ({"parts": ([0, 1], [], [1, 2])}, "Row 1 is in the parts more than once"),
        ({"parts": ([0, 0], [], [1, 2])}, "Row 0 is in the parts more than once"),
        ({"parts": ([0, 20], [], [1, 2])}, "The training part names rows 0 to 20; x has rows 0 to 19"),
        ({"parts": ([0, 3], [-1], [1, 2])}, "The calibration part names rows -1 to -1"),
        ({"parts": ([0, 3], [], [])}, "The test part has no rows. Only the calibration part may be empty"),
        ({"parts": (np.arange(20) < 9, [], [11])}, "The training part must be a list of row numbers, got bool in"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_rows(**{"x": X, "y": Y, "name": "numbers", **change})


# Training


def test_what_is_trained_on_and_what_validates() -> None:
    data = table()
    values = {True: set(), False: set()}  # keyed by: with gradient

    def record(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raw = y.detach().numpy() * data.scaling.output_scale[0] + data.scaling.output_mean[0]
        values[torch.is_grad_enabled()].update(np.round(raw).ravel().astype(int).tolist())
        return nn.functional.mse_loss(prediction, y)

    fit(small_regressor(), data, **{**FAST, "epochs": 1}, criterion=record)
    kept = 70 - round(0.15 * 70)
    assert values[True] == set((2 * data.train.dates[:kept]).tolist())
    assert values[False] == set((2 * data.train.dates[kept:]).tolist())


def own_cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """-mean_i log softmax(logits_i)[y_i], in double precision."""
    exponents = torch.exp(logits.double())
    return -torch.log(exponents[torch.arange(len(y)), y] / exponents.sum(1)).mean()


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_loss_on_the_sampled_network(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The likelihood of a batch against the criterion computed by hand on what the sampled network gave."""
    network, data = (small_classifier(), images()) if task == "classification" else (small_regressor(), table())
    criterion = (
        own_cross_entropy if task == "classification" else lambda p, y: (p.double() - y.double()).square().mean()
    )
    logits = []
    network.register_forward_hook(lambda *call: logits.append(call[2].detach().clone()))
    batches = []

    def record(network: nn.Module, x: torch.Tensor, y: torch.Tensor, *rest: object) -> tuple[float, float]:
        logits.clear()
        losses = elbo_backward(network, x, y, *rest)
        batches.append((losses[0], y, list(logits)))
        return losses

    monkeypatch.setattr(sys.modules["murho.train.fit"], "elbo_backward", record)
    rows = round(0.85 * len(data.train))
    history = fit(network, data, **{**FAST, "epochs": 1, "batch_size": rows})
    [(likelihood, y, outputs)] = batches
    assert y.dtype == (torch.int64 if task == "classification" else torch.float32)
    assert len(outputs) == FAST["samples"]
    expected = sum(criterion(output, y).item() for output in outputs) / len(outputs)
    assert likelihood == pytest.approx(expected, rel=1e-5)
    assert history.likelihood == (pytest.approx(expected, rel=1e-5),)


def test_validation_loss_of_a_classification() -> None:
    """The mean of the cross entropy over 8 weight samples, computed by hand on what the network gave."""
    data, network, outputs = images(), small_classifier(), []
    network.register_forward_hook(lambda *call: outputs.append(call[2]) if not torch.is_grad_enabled() else None)
    history = fit(network, data, **{**FAST, "epochs": 1})
    labels = torch.from_numpy(data.train.y[len(data.train) - round(0.15 * len(data.train)) :])
    tried, *validation = outputs  # the first is the trial on one row
    assert len(tried) == 1
    assert len(validation) == 8
    expected = np.mean([own_cross_entropy(logits, labels).item() for logits in validation])
    assert history.validation[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_resumed_equals_uninterrupted(task: str, tmp_path: Path) -> None:
    make, data = (small_classifier, images()) if task == "classification" else (small_regressor, table())
    network = make()
    whole = fit(network, data, **FAST, checkpoint=tmp_path / "whole.pt")
    fit(make(), data, **{**FAST, "epochs": 1}, checkpoint=tmp_path / "c.pt")
    resumed = make(seed=5)
    assert fit(resumed, data, **FAST, checkpoint=tmp_path / "c.pt", resume=True) == whole
    assert same(weights(resumed), weights(network))
    one, other = load_checkpoint(tmp_path / "whole.pt"), load_checkpoint(tmp_path / "c.pt")
    assert same(one.current, other.current)
    for key, state in one.optimizer["state"].items():
        assert same(state, other.optimizer["state"][key])


def test_resume_refuses_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    fit(small_regressor(), table(), **FAST, checkpoint=path)
    for other in (table(seed=1), table(names=("a", "b", "d")), table(target="z")):
        with pytest.raises(InputError, match="trained with data_sha256="):
            fit(small_regressor(), other, **FAST, checkpoint=path, resume=True)


def test_checkpoint_of_a_regression(tmp_path: Path) -> None:
    data, network = table(target="price"), small_regressor()
    fit(network, data, **FAST, checkpoint=tmp_path / "c.pt")
    checkpoint = load_checkpoint(tmp_path / "c.pt")
    assert (checkpoint.kind, checkpoint.config) == ("Regressor", network.config)
    assert (checkpoint.task, checkpoint.shape, checkpoint.window, checkpoint.horizon) == ("regression", (3,), None, 1)
    assert (checkpoint.input_names, checkpoint.output_names) == (("a", "b", "c"), ("price",))
    assert (checkpoint.target, checkpoint.features) == ("price", ("a", "b", "c"))
    assert (checkpoint.scaling, checkpoint.splits, checkpoint.repairs) == (data.scaling, data.splits, ())
    x = torch.randn(4, 3)
    rebuilt = checkpoint.network()
    torch.manual_seed(0)
    expected = network(x)
    torch.manual_seed(0)
    assert torch.equal(rebuilt(x), expected)
    summary = checkpoint.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["task"], summary["window"], summary["shape"]) == ("regression", None, [3])
    assert (summary["features"], summary["outputs"]) == (["a", "b", "c"], ["price"])


def test_checkpoint_of_a_classification(tmp_path: Path) -> None:
    data, network = images(), small_classifier()
    fit(network, data, **FAST, checkpoint=tmp_path / "c.pt")
    checkpoint = load_checkpoint(tmp_path / "c.pt")
    assert (checkpoint.kind, checkpoint.config) == ("Classifier", network.config)
    assert (checkpoint.task, checkpoint.shape, checkpoint.target) == ("classification", (1, 8, 8), "digit")
    assert (checkpoint.input_names, checkpoint.output_names) == ((), ("zero", "one", "two"))
    assert checkpoint.scaling == data.scaling
    assert same(weights(checkpoint.network()), weights(network))
    summary = checkpoint.summary()
    assert json.loads(json.dumps(summary)) == summary


def test_networks_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"cannot take an input of shape \[1, 3\] .*Build it for such rows"):
        fit(small_regressor(features=2), table(), **FAST)
    with pytest.raises(
        InputError, match=r"gives shape \[1, 2\] for one row, expected \[1, 1\]\. Build it for the data's"
    ):
        fit(small_regressor(outputs=2), table(), **FAST)
    with pytest.raises(
        InputError, match=r"gives shape \[1, 4\] for one row, expected \[1, 3\]\. Build it for the class"
    ):
        fit(small_classifier(classes=4), images(), **FAST)
    with pytest.raises(InputError, match=r"cannot take an input of shape \[1, 1, 8, 8\]"):
        fit(Classifier(size=12, classes=3, kernel=3, padding=1), images(), **FAST)
    with pytest.raises(InputError, match=r"The network (gives|cannot)"):
        fit(Forecaster(), table(), **FAST)


def test_too_few_rows_for_validation() -> None:
    with pytest.raises(InputError, match="The training part has 1 rows, too few to keep some for validation"):
        fit(small_regressor(), dataclasses.replace(table(), train=first_row(table())), **FAST)


def first_row(data: Dataset) -> object:
    part = data.train
    return dataclasses.replace(part, x=part.x[:1], y=part.y[:1], dates=part.dates[:1])


def sampled(network: nn.Module, x: np.ndarray, draws: int = 10) -> np.ndarray:
    with torch.no_grad():
        return np.stack([network(torch.from_numpy(x)).numpy() for _ in range(draws)])


def test_learns_the_diabetes_table() -> None:
    source = load_diabetes(scaled=False)
    data = prepare_rows(source.data, source.target, name="diabetes", names=source.feature_names)
    torch.manual_seed(0)
    network = Regressor(len(data.columns))
    fit(network, data, epochs=12, batch_size=32, progress=False)
    x, _ = standardise(data.test, data.scaling)
    mean = sampled(network, x).mean(0) * data.scaling.output_scale[0] + data.scaling.output_mean[0]
    # The target's standard deviation is 77; a linear regression has 53 to 60, depending on the split.
    assert np.sqrt(np.mean((mean - data.test.y) ** 2)) < 62


def test_learns_the_digits() -> None:
    source = load_digits()
    data = prepare_rows(source.images[:, None], source.target, name="digits", classes=[str(k) for k in range(10)])
    torch.manual_seed(0)
    network = Classifier(size=8, kernel=3, padding=1, hidden=(32,))
    fit(network, data, epochs=4, batch_size=64, samples=1, complexity_weight=1e-4, progress=False)
    x, labels = standardise(data.test, data.scaling)
    probabilities = torch.from_numpy(sampled(network, x)).softmax(-1).mean(0)
    assert (probabilities.argmax(1).numpy() == labels).mean() > 0.85


def test_scaling_is_plain_numbers() -> None:
    """As JSON and checkpoints hold it."""
    for data in (table(), images()):
        assert Scaling(**json.loads(json.dumps(dataclasses.asdict(data.scaling)), object_hook=_tuples)) == data.scaling


def _tuples(values: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
