"""Networks with several inputs and outputs, tokens, and class probabilities, as a user of the runtime meets them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from blitz.modules import BayesianEmbedding, BayesianLinear
from scipy.stats import entropy
from torch import Tensor, nn
from typer.testing import CliRunner

import murho
from murho.cli.app import app
from murho.export import to_onnx, to_torchscript
from murho.runtime.intervals import summarise

RHO = {"posterior_rho_init": -2.0}


class Listing(nn.Module):
    """Numbers [B, 3] and words [B, T] -> a price [B, 1] and the chances of three kinds [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = BayesianEmbedding(7, 4, **RHO)
        self.body, self.price, self.kind = nn.Linear(7, 6), BayesianLinear(6, 1, **RHO), BayesianLinear(6, 3, **RHO)

    def forward(self, numbers: Tensor, words: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(self.body(torch.cat([numbers, self.words(words).mean(1)], dim=1)))
        return {"price": self.price(h), "kind": torch.softmax(self.kind(h), dim=-1)}


@pytest.fixture(scope="module")
def example() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {"numbers": random.standard_normal((6, 3), dtype=np.float32), "words": random.integers(0, 7, (6, 5))}


@pytest.fixture(scope="module")
def paths(example, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("listing")
    torch.manual_seed(0)
    network = Listing()
    to_onnx(network, folder / "listing.onnx", example, scaling=murho.Scaling(output_mean=(100.0,), output_scale=(9.0,)))
    to_torchscript(network, folder / "listing.pt", example)
    return {"onnx": folder / "listing.onnx", "torchscript": folder / "listing.pt"}


@pytest.fixture(scope="module")
def model(paths) -> murho.Model:
    return murho.load(paths["onnx"])


def test_a_dict_or_a_tuple(model, example) -> None:
    by_name = model.predict(example, 32)
    by_place = model.predict(tuple(example.values()), 32)
    np.testing.assert_array_equal(by_name.samples, by_place.samples)
    assert (
        repr(model) == "<murho.Model 'listing': numbers [batch, feature=3], words [batch, time], 3 sites, "
        f"{model.engine}>"
    )


def test_all_outputs_come_from_the_same_draws(model, example) -> None:
    answers = model.predict_all(example, 32)
    assert list(answers) == ["price", "kind"]
    np.testing.assert_array_equal(answers["price"].samples, model.predict(example, 32).samples)
    assert answers["kind"].samples.shape == (32, 6, 3)
    # Scaling is the first output's.
    assert abs(answers["price"].mean.mean() - 100) < 20
    np.testing.assert_allclose(answers["kind"].samples.sum(-1), 1, atol=1e-6)


def test_both_formats_agree(paths, example) -> None:
    one, other = (murho.load(path, trusted=True).predict_all(example, 32)["kind"].samples for path in paths.values())
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_time_of_tokens_is_free(model, example) -> None:
    longer = {**example, "words": np.tile(example["words"], 3)}
    # The mean over repeated words is the mean over the words, to float32 rounding.
    np.testing.assert_allclose(model.samples(longer, 16), model.samples(example, 16), atol=1e-4)


BAD: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "one array": (
        lambda e: e["numbers"],
        r"has 2 inputs: pass a dict or tuple of numbers \[batch, feature = 3\]",
    ),
    "a lacking one": (lambda e: {"numbers": e["numbers"]}, r"must have the inputs numbers, words, but has numbers"),
    "too many": (lambda e: (*e.values(), 1), r"has 2 inputs"),
    "unequal rows": (lambda e: (e["numbers"][:2], e["words"]), r"same number of rows, but they have \[2, 6\]"),
    "an unknown token": (
        lambda e: {**e, "words": e["words"] + 1},
        r"words must hold tokens from 0 to 6, .* 1 … 7",
    ),
    "a negative token": (
        lambda e: {**e, "words": e["words"] - 1},
        r"words must hold tokens from 0 to 6, .* -1 … 5",
    ),
    "fractions of tokens": (lambda e: {**e, "words": e["words"] / 2}, r"words must hold numbers that fit int64"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_inputs(model, example, change: Callable[[dict[str, np.ndarray]], object], message: str) -> None:
    with pytest.raises(murho.InputError, match=message):
        model.predict(change(example))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "rows"}, r"sampling must be one of 'weights', 'local', not 'rows'"),
        ({"task": "guess"}, r"task must be one of 'regression', 'forecast', 'classification'"),
        ({"flipout": "yes"}, r"flipout must be one of 'refuse', 'plain'"),
        ({"outputs": "price"}, r"outputs must be a sequence of different names, not 'price'"),
        ({"outputs": ("a", "a")}, r"outputs must be a sequence of different names"),
        ({"outputs": ("size",)}, r"returns no size; it returns price, kind"),
        ({"task": "classification", "outputs": ("price",)}, r"a value for each of at least two classes.*torch\.cat"),
        ({"task": "classification", "scaling": murho.Scaling(output_scale=(2.0,))}, r"probabilities cannot be scaled"),
    ],
)
def test_bad_options(example, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises((murho.InputError, murho.ExportError), match=message):
        to_onnx(Listing(), tmp_path / "a.onnx", example, **options)
    assert list(tmp_path.iterdir()) == []


def test_tokens_are_not_scaled(tmp_path: Path) -> None:
    network = nn.Sequential(BayesianEmbedding(7, 4, **RHO), nn.Flatten(), BayesianLinear(8, 1, **RHO))
    with pytest.raises(murho.InputError, match="cannot be scaled"):
        to_onnx(network, tmp_path / "a.onnx", np.zeros((3, 2), int), scaling=murho.Scaling((1.0,), (2.0,)))


def test_local_sampling_needs_a_layer_for_it(tmp_path: Path) -> None:
    network = nn.Sequential(BayesianLinear(3, 2, **RHO))
    with pytest.raises(murho.ExportError, match=r'sampling="local" needs a BayesianLinear whose input is \[rows, feat'):
        to_onnx(network, tmp_path / "a.onnx", np.random.default_rng(0).random((4, 5, 3)), sampling="local")


def test_rows_do_not_depend_on_their_batch_with_local_sampling(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(BayesianLinear(3, 8, **RHO), nn.Tanh(), BayesianLinear(8, 1, **RHO))
    x = np.random.default_rng(0).standard_normal((6, 3), dtype=np.float32)
    card = to_onnx(network, tmp_path / "a.onnx", x, sampling="local")
    assert [(site.sampling, site.n) for site in card.sites] == [("local", 8), ("local", 1)]
    model = murho.load(tmp_path / "a.onnx")
    np.testing.assert_allclose(model.samples(x[2:4], 64), model.samples(x, 64)[:, 2:4], atol=1e-6)


# Entropy


def test_entropy_and_mutual_information() -> None:
    """Against scipy, in float64."""
    p = np.random.default_rng(0).dirichlet([0.3, 1, 2], (50, 4)).astype(np.float32)
    answer = summarise(p, 0.9, np.arange(50), 0)
    wide = p.astype(np.float64)
    total = entropy(wide.mean(0), axis=-1)
    np.testing.assert_allclose(answer.entropy(), total, atol=1e-6)
    np.testing.assert_allclose(answer.mutual_information(), total - entropy(wide, axis=-1).mean(0), atol=1e-6)


def test_certain_and_undecided_classes() -> None:
    certain = np.zeros((10, 2, 4), np.float32)
    certain[:, :, 1] = 1
    answer = summarise(certain, 0.9, np.arange(10), 0)
    assert (answer.entropy() == 0).all()
    assert (answer.mutual_information() == 0).all()
    # Each draw is certain, of another class: all doubt comes from the weights.
    torn = np.eye(4, dtype=np.float32)[np.arange(12) % 4][:, np.newaxis]
    answer = summarise(torn, 0.9, np.arange(12), 0)
    np.testing.assert_allclose(answer.entropy(), np.log(4), atol=1e-6)
    np.testing.assert_allclose(answer.mutual_information(), np.log(4), atol=1e-6)


def test_entropy_needs_probabilities(model, example) -> None:
    with pytest.raises(murho.InputError, match=r'Entropy needs class probabilities.*task="classification"'):
        model.predict(example, 16).entropy()


def test_columns_are_named_by_class() -> None:
    p = np.random.default_rng(0).dirichlet([1, 1], (20, 3)).astype(np.float32)
    frame = summarise(p, 0.9, np.arange(20), 0, ("cat", "dog")).to_frame()
    parts = ("mean", "std", "lower 90%", "upper 90%")
    assert list(frame.columns) == [f"{part} {name}" for name in ("cat", "dog") for part in parts]


# murho info


def test_info_warns_of_a_posterior_that_never_left_its_start(paths) -> None:
    out = CliRunner().invoke(app, ["info", str(paths["onnx"])]).output
    for words in ("input numbers", "input words", "output price", "output kind", "Warning: in body", "never left"):
        assert words.replace("body", "kind, price, words") in " ".join(out.split()), words
    assert " !" in out


class MeanAndScale(nn.Module):
    """[B, 3] -> two values for each row, in a form that is given."""

    def __init__(self, form: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.one, self.two, self.form = BayesianLinear(3, 1, **RHO), BayesianLinear(3, 1, **RHO), form

    def forward(self, x: Tensor) -> object:
        return self.form(self.one(x), self.two(x))


@pytest.mark.parametrize(
    ("form", "options"),
    [(lambda mean, std: {"mean": mean, "std": std}, {}), (lambda *pair: pair, {"outputs": ("loc", "mean")})],
)
def test_an_output_called_as_the_artifacts_own_is_refused_at_once(form, options, tmp_path: Path) -> None:
    with pytest.raises(murho.InputError, match=r"An output cannot be called 'mean'.*outputs=\('mu', 'sigma'\)"):
        to_torchscript(MeanAndScale(form), tmp_path / "x.pt", torch.randn(4, 3), **options)
    advised = {"outputs": ("mu", "sigma")} if options else {}
    network = MeanAndScale(form if options else lambda mu, sigma: {"mu": mu, "sigma": sigma})
    to_torchscript(network, tmp_path / "x.pt", torch.randn(4, 3), **advised)
    answers = murho.load(tmp_path / "x.pt", trusted=True).predict_all(np.ones((2, 3), np.float32), 16)
    assert list(answers) == ["mu", "sigma"]


class Twice(nn.Module):
    """One value under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = BayesianLinear(3, 2, **RHO)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.layer(x)
        return {"first": y, "again": y}


def test_one_value_under_two_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    to_onnx(Twice(), tmp_path / "twice.onnx", torch.randn(4, 3))
    answers = murho.load(tmp_path / "twice.onnx").predict_all(np.ones((2, 3), np.float32), 32)
    np.testing.assert_array_equal(answers["first"].samples, answers["again"].samples)
