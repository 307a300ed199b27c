"""runtime/js against Python: the same numbers, messages and states from the same artifacts.

What needs Chromium is marked: `make test-hosts`.
"""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from blitz.modules import BayesianEmbedding, BayesianLinear, BayesianLSTM
from torch import Tensor, nn

import murho
from murho.export import to_onnx
from murho.models import Forecaster
from murho.runtime.intervals import summarise

JS = Path(__file__).parents[1] / "runtime" / "js"
CONFORMANCE = Path(__file__).parent / "conformance"
RHO = {"posterior_rho_init": -2.0}
NODE = shutil.which("node") or ""

pytestmark = pytest.mark.skipif(
    not NODE or not (JS / "node_modules").exists(),
    reason="needs Node.js, and what `npm install --ignore-scripts` in runtime/js installs",
)


class Words(nn.Module):
    """Numbers [B, 3] and words [B, T] -> [B, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = BayesianEmbedding(7, 4, **RHO), BayesianLinear(7, 2, **RHO)

    def forward(self, numbers: Tensor, words: Tensor) -> Tensor:
        return self.head(torch.cat([numbers, self.words(words).mean(1)], dim=1))


class Kinds(nn.Module):
    """Ids [B], floats [B, 3] and whole numbers [B, 2] that are categories, and what all rows share: a mask, a table."""

    def __init__(self) -> None:
        super().__init__()
        self.ids, self.kinds = BayesianEmbedding(7, 4, **RHO), nn.Embedding(5, 4)
        self.pairs, self.head = nn.Embedding(6, 4), BayesianLinear(4, 2, **RHO)

    def forward(self, ids: Tensor, x: Tensor, pair: Tensor, mask: Tensor, table: Tensor) -> Tensor:
        hidden = self.ids(ids) + self.kinds(x[:, 1].long()) + x[:, :1] * table[ids]
        hidden = hidden + self.pairs(pair[:, 0]) + self.pairs(pair[:, 1])
        return self.head(torch.tanh(hidden) * mask)


class Steps(nn.Module):
    """x [B, T, 1] -> [B, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = BayesianLSTM(1, 4, **RHO), BayesianLinear(4, 1, **RHO)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((40, 6, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def artifacts(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("javascript")
    paths = {name: folder / f"{name}.onnx" for name in ("forecast", "calibrated", "words", "stream", "kinds")}
    torch.manual_seed(0)
    noise = murho.Noise("student-t", degrees=5, scale=(0.5, 0.7, 0.9))
    about: dict[str, Any] = {"task": "forecast", "noise": noise, "levels": (0.8, 0.95), "seed": 2**63 - 1}
    about["training"] = {"window": 6}
    to_onnx(Forecaster(hidden=4, horizon=3, **RHO), paths["forecast"], rows[:16], **about)
    model = murho.load(paths["forecast"])
    model.calibrate(rows, np.random.default_rng(1).standard_normal((40, 3)), levels=(0.5, 0.8, 0.95), half_life=60)
    model.save(paths["calibrated"])
    numbers, words = rows[:, :3, 0], np.random.default_rng(2).integers(0, 7, (40, 5))
    to_onnx(Words(), paths["words"], {"numbers": numbers, "words": words})
    to_onnx(Kinds(), paths["kinds"], kinds(8), shared_inputs=("mask", "table"))
    to_onnx(Steps(), paths["stream"], rows[:16], streaming=True)
    return paths | {"returns": CONFORMANCE / "paths.onnx"}


def kinds(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(count)
    x = random.standard_normal((count, 3)).astype(np.float32)
    x[:, 1] = random.integers(0, 5, count)
    pair, table = random.integers(0, 6, (count, 2)), random.standard_normal((7, 4)).astype(np.float32)
    mask = np.array([True, False, True, True])
    return {"ids": random.integers(0, 7, count), "x": x, "pair": pair, "mask": mask, "table": table}


def run(*arguments: str | Path, stdin: str = "") -> str:
    done = subprocess.run([NODE, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def ask(artifact: Path, *calls: list[Any], backend: str = "onnxruntime-node") -> list[dict[str, Any]]:
    """What JavaScript answers to calls [method, …values], in order."""
    request = {"artifact": str(artifact), "backend": backend, "calls": calls}
    answers: list[dict[str, Any]] = json.loads(run(JS / "test" / "answers.mjs", stdin=json.dumps(request)))
    return answers


def values(part: dict[str, Any]) -> np.ndarray:
    return np.array([float(value) for value in part["data"]], np.float32).reshape(part["dims"])


def same(answer: dict[str, Any], expected: murho.Intervals, **tolerance: float) -> None:
    for name in ("mean", "std", "lower", "upper", "samples"):
        np.testing.assert_allclose(values(answer[name]), getattr(expected, name), err_msg=name, **tolerance)
    np.testing.assert_allclose(values(answer["mcError"]), expected.mc_error, rtol=1e-3, atol=1e-5)
    assert answer["draws"] == expected.draws.tolist()
    assert int(answer["seed"]) == expected.seed
    assert answer["level"] == (list(expected.level) if isinstance(expected.level, tuple) else expected.level)


@pytest.mark.parametrize("name", ["online", "murho", pytest.param("worker", marks=pytest.mark.hosts)])
def test_its_own_tests(name: str) -> None:
    report = run("--test", "--test-reporter=tap", JS / "test" / f"{name}.test.mjs")
    assert "# skipped 0" in report, report  # without Chromium the worker's are


def test_its_types() -> None:
    subprocess.run(["npm", "run", "--silent", "types"], cwd=JS, check=True, timeout=300)


@pytest.mark.parametrize("backend", ["onnxruntime-node", "onnxruntime-web"])
@pytest.mark.parametrize("name", ["forecast", "calibrated"])
def test_the_same_answers(artifacts: dict[str, Path], rows: np.ndarray, name: str, backend: str) -> None:
    """Every way of asking, also what the card leaves to its defaults: a seed that no double holds."""
    ways: list[dict[str, Any]] = [
        {},
        {"draws": 100, "level": 0.9, "seed": -3},
        {"draws": [5, 2**32 - 1, 7], "level": [0.6, 0.93, 0.95], "seed": 2**53 - 1},
        {"draws": 50, "level": 0.8, "noise": False},
        {"draws": 50, "level": [0.99, 0.3], "calibrated": False},
    ]
    model, x = murho.load(artifacts[name]), rows[:3]
    answers = ask(artifacts[name], *(["predict", x.tolist(), way] for way in ways), backend=backend)
    for way, answer in zip(ways, answers, strict=True):
        level = way.get("level")
        options = {**way, "level": tuple(level) if isinstance(level, list) else level}
        same(answer["result"], model.predict(x, **options), rtol=1e-5, atol=1e-5)


def test_the_same_statistics(artifacts: dict[str, Path], rows: np.ndarray) -> None:
    """Of equal samples: float32 by float32 where the order of summation has no part."""
    levels = (0.5, 0.9, 0.99)
    request = ["predict", rows.tolist(), {"draws": 150, "level": levels, "seed": 1, "calibrated": False}]
    (answer,) = ask(artifacts["forecast"], request)
    found = answer["result"]
    expected = summarise(values(found["samples"]), levels, np.arange(150), 1)
    for name, of in (("lower", expected.lower), ("upper", expected.upper), ("mcError", expected.mc_error)):
        np.testing.assert_array_equal(values(found[name]), of, err_msg=name)
    for name, of in (("mean", expected.mean), ("std", expected.std)):
        np.testing.assert_array_max_ulp(values(found[name]), of, maxulp=1)


def test_several_inputs_and_tokens(artifacts: dict[str, Path], rows: np.ndarray) -> None:
    x = {"numbers": rows[:4, :3, 0], "words": np.arange(20).reshape(4, 5) % 7}
    by_name, by_place = (
        answer["result"]
        for answer in ask(
            artifacts["words"],
            ["predict", {name: array.tolist() for name, array in x.items()}, {"draws": 40}],
            ["predict", [array.tolist() for array in x.values()], {"draws": 40}],
        )
    )
    same(by_name, murho.load(artifacts["words"]).predict(x, 40), rtol=1e-5, atol=1e-5)
    assert by_name == by_place


def test_ids_categories_masks_and_shared_inputs(artifacts: dict[str, Path]) -> None:
    x, model = kinds(4), murho.load(artifacts["kinds"])
    assert [array.limit for array in model.card.inputs] == [7, (None, 5, None), (6, 6), None, None]
    (answer,) = ask(artifacts["kinds"], ["predict", {name: array.tolist() for name, array in x.items()}, {"draws": 40}])
    same(answer["result"], model.predict(x, 40), rtol=1e-5, atol=1e-5)


def test_a_streaming_artifact(artifacts: dict[str, Path], rows: np.ndarray) -> None:
    (answer,) = ask(artifacts["stream"], ["predict", rows[:2].tolist(), {"draws": 40}])
    same(answer["result"], murho.load(artifacts["stream"]).predict(rows[:2], 40), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["forecast", "calibrated"])
def test_observing_and_states(artifacts: dict[str, Path], rows: np.ndarray, tmp_path: Path, name: str) -> None:
    """Told the same truths both learn the same, and each goes on from the other's state."""
    truths = [[3.0, -2.0], [None, 0.1], [0.2, 0.4], [-9.0, 1.0], [1.0, 1.0]]
    x, options = rows[:2], {"draws": 80, "level": [0.7, 0.9], "seed": 4}
    python = murho.load(artifacts[name])
    calls: list[list[Any]] = []
    for y in truths:
        calls += [["predict", x.tolist(), options]]
        calls += [["observe", [{"number": "NaN"} if value is None else value for value in y]]]
        python.predict(x, 80, (0.7, 0.9), 4)
        python.observe([np.nan if value is None else value for value in y])
    answers = ask(artifacts[name], *calls, ["saveState"], ["predict", x.tolist(), options])
    expected = python.predict(x, 80, (0.7, 0.9), 4)
    same(answers[-1]["result"], expected, rtol=1e-5, atol=1e-5)

    saved = tmp_path / "state.json"
    python.save_state(saved)
    ours, theirs = json.loads(answers[-2]["result"]), json.loads(saved.read_text())
    assert ours.keys() == theirs.keys()
    for key in ("format", "schema", "artifact", "levels", "observed"):
        assert ours[key] == theirs[key], key
    for key in ("theta", "weights"):
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-6, err_msg=key)
    assert [forecast["known"] for forecast in ours["pending"]] == [forecast["known"] for forecast in theirs["pending"]]

    loaded = ask(
        artifacts[name], ["loadState", saved.read_text()], ["predict", x.tolist(), options], ["observe", [0.5, 0.5]]
    )
    same(loaded[1]["result"], expected, rtol=1e-5, atol=1e-5)
    assert "error" not in loaded[2]
    saved.write_text(answers[-2]["result"])
    fresh = murho.load(artifacts[name])
    fresh.load_state(saved)
    np.testing.assert_allclose(fresh.predict(x, 80, (0.7, 0.9), 4).lower, expected.lower, rtol=1e-5, atol=1e-5)


def test_the_state_of_another_calibration(artifacts: dict[str, Path], tmp_path: Path) -> None:
    murho.load(artifacts["forecast"]).save_state(tmp_path / "state.json")
    text = (tmp_path / "state.json").read_text()
    for state, message in (
        (text, "The state belongs to another artifact or calibration. Load the one it was saved with."),
        (
            "{}",
            "This is not a state that saveState wrote, or it is damaged (format undefined, schema undefined; "
            "expected murho.state, 2).",
        ),
    ):
        (answer,) = ask(artifacts["calibrated"], ["loadState", state])
        assert answer["error"] == {"name": "ArtifactError", "message": message}


X = [[[float(k)] for k in range(6)]]
BAD: list[tuple[str, Any, dict[str, Any]]] = [
    ("forecast", X[0], {}),
    ("forecast", 3.5, {}),
    ("forecast", [[[1.0, 2.0]] * 6], {}),
    ("forecast", [], {}),
    ("forecast", [[]], {}),
    ("forecast", [[[]]], {}),
    ("forecast", np.zeros((0, 6, 1)), {}),
    ("forecast", np.zeros((2, 0, 1)), {}),
    ("forecast", [[[1.0], [2.0]], [[3.0]]], {}),
    ("forecast", [[[1.0], [2.0, 3.0]]], {}),
    ("forecast", [[["a"], ["bcd"]]], {}),
    ("forecast", [[[True]]], {}),
    ("forecast", [[[None]]], {}),
    ("forecast", [X[0], [*X[0][:4], [float("nan")], [1.0]]], {}),
    ("forecast", [[[1.0], [float("-inf")]]], {}),
    ("forecast", [[[1e39]]], {}),
    ("forecast", {"x": X, "z": X}, {}),
    ("words", X, {}),
    ("words", {"numbers": [[1.0, 2.0, 3.0]]}, {}),
    ("words", {"numbers": [[1.0, 2.0]], "words": [[1]]}, {}),
    ("words", {"numbers": [[1.0, 2.0, 3.0]], "words": [[1.5]]}, {}),
    ("words", {"numbers": [[1.0, 2.0, 3.0]], "words": [[1, 7]]}, {}),
    ("words", {"numbers": [[1.0, 2.0, 3.0]], "words": [[-1, 6]]}, {}),
    ("words", {"numbers": [[1.0, 2.0, 3.0]] * 2, "words": [[1, 6]]}, {}),
    ("forecast", X, {"draws": 1}),
    ("forecast", X, {"draws": 0}),
    ("forecast", X, {"draws": -5}),
    ("forecast", X, {"draws": 2.5}),
    ("forecast", X, {"draws": True}),
    ("forecast", X, {"draws": "many"}),
    ("forecast", X, {"draws": [3]}),
    ("forecast", X, {"draws": [[1, 2]]}),
    ("forecast", X, {"draws": [[1], [2, 3]]}),
    ("forecast", X, {"draws": [0, -1]}),
    ("forecast", X, {"draws": [0, 2**32]}),
    ("forecast", X, {"draws": [0.5, 2]}),
    ("forecast", X, {"draws": 2**40}),
    ("words", {"numbers": [[1.0, 2.0, 3.0]], "words": [[1]]}, {"draws": 2**31}),
    ("forecast", X, {"draws": [7, 5, 7]}),
    ("forecast", X, {"noise": 1}),
    ("forecast", X, {"calibrated": "no"}),
    ("words", {"numbers": [[1.0, 2.0, 3.0]], "words": [[2**63, 2**63]]}, {}),
    ("words", {"numbers": [[1.0, 2.0, 3.0]], "words": [[2**70, 6]]}, {}),
    ("returns", [*[[[100.0]] * 3] * 2, [[100.0], [101.0], [0.0]]], {}),
    ("returns", [[[100.0], [101.0], [-0.0]]], {}),
    ("returns", [[[100.0], [101.0], [1e-39]]], {}),
    ("returns", [[[100.0], [101.0], [1.5e-37]]], {}),
    ("returns", [[[100.0]] * 3, [[3e38], [1e38], [3.4e38]]], {"draws": 64}),
    ("returns", [[[3e38], [1e38], [3.4e38]]], {"draws": 64, "noise": False}),
    ("returns", [[[100.0]] * 3, [[-3e38], [3e38], [3e38]]], {}),
    ("forecast", X, {"level": 0}),
    ("forecast", X, {"level": 1}),
    ("forecast", X, {"level": 95}),
    ("forecast", X, {"level": -0.5}),
    ("forecast", X, {"level": float("nan")}),
    ("forecast", X, {"level": []}),
    ("forecast", X, {"level": [0.5, 1.5]}),
    ("forecast", X, {"level": [[0.5]]}),
    ("forecast", X, {"level": "high"}),
    ("calibrated", X, {"level": 0.99}),
    ("forecast", X, {"seed": 0.5}),
    ("forecast", X, {"seed": True}),
    ("forecast", X, {"seed": "7"}),
    ("forecast", X, {"seed": float("nan")}),
    ("forecast", X, {"seed": 2**63}),
    ("forecast", X, {"seed": -(2**63) - 1}),
    ("forecast", X, {"seed": [1]}),
]


KINDS = {name: array.tolist() for name, array in kinds(2).items()}
BAD += [
    ("kinds", KINDS | changed, {})
    for changed in (
        {"ids": [7, 0]},
        {"ids": [0, -1]},
        {"ids": [[0], [1]]},
        {"ids": [0.5, 1.0]},
        {"ids": [0, 1, 2]},
        {"x": [[0.5, -1.0, 0.0], [0.0, 3.0, 0.5]]},
        {"x": [[0.5, 1.5, 0.0], [0.0, 5.25, 0.5]]},
        {"x": [[0.5, -0.5, 0.0], [0.0, 1e9, 0.5]]},
        {"pair": [[0, 6], [1, 2]]},
        {"pair": [[0, 5], [-3, 2]]},
        {"mask": [1, 0, 1, 1]},
        {"mask": [True, False, True]},
        {"mask": [[True, False, True, True]]},
        {"table": [[0.5] * 4] * 6},
        {"table": [0.5] * 4},
    )
]


def javascript(value: Any) -> Any:
    """A Python value as answers.mjs reads it."""
    if isinstance(value, np.ndarray):
        return {"data": value.ravel().tolist(), "dims": list(value.shape)}
    if isinstance(value, float) and not np.isfinite(value):
        return {"number": {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]}
    if isinstance(value, int) and abs(value) >= 2**53:
        return {"bigint": str(value)}
    if isinstance(value, dict):
        return {key: javascript(part) for key, part in value.items()}
    return [javascript(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["forecast", "calibrated", "words", "returns", "kinds"])
def test_the_same_messages(artifacts: dict[str, Path], name: str) -> None:
    cases = [(x, options) for of, x, options in BAD if of == name]
    model = murho.load(artifacts[name])
    answers = ask(artifacts[name], *(["predict", javascript(x), javascript(options)] for x, options in cases))
    for (x, options), answer in zip(cases, answers, strict=True):
        with pytest.raises(murho.InputError) as raised:
            model.predict(x, **options)
        assert answer == {"error": {"name": "InputError", "message": str(raised.value)}}, (x, options)


@pytest.mark.parametrize("y", [[1.0], [[1.0, 2.0]], [[1.0], [2.0, 3.0]], ["a", "b"], [float("inf"), 0.0]])
def test_the_same_messages_about_the_truth(artifacts: dict[str, Path], rows: np.ndarray, y: list[Any]) -> None:
    model = murho.load(artifacts["forecast"])
    with pytest.raises(murho.InputError) as too_early:
        model.observe(y)
    model.predict(rows[:2], 16)
    with pytest.raises(murho.InputError) as wrong:
        model.observe(y)
    observe = ["observe", javascript(y)]
    answers = ask(artifacts["forecast"], observe, ["predict", rows[:2].tolist(), {"draws": 16}], observe)
    assert [answers[k]["error"]["message"] for k in (0, 2)] == [str(too_early.value), str(wrong.value)]


def outside(content: bytes) -> bytes:
    """An artifact that keeps a tensor in another file, with a true digest."""
    model = onnx.load_from_string(content)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("mu"))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    del model.metadata_props[-1]
    assert [entry.key for entry in model.metadata_props] == ["murho"]
    model.metadata_props.add(key="murho.sha256", value=hashlib.sha256(model.SerializeToString()).hexdigest())
    return model.SerializeToString()


def test_the_same_messages_about_files(artifacts: dict[str, Path], tmp_path: Path) -> None:
    content = artifacts["forecast"].read_bytes()
    at = content.index(b"murho.sha256") - 2000
    damaged = {
        "empty": b"",
        "text": b"not an artifact",
        "cut": content[:-10],
        "changed": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :],
        "foreign": content[: content.index(b"murho") - 10],
        "outside": outside(content),
    }
    paths = {name: tmp_path / f"{name}.onnx" for name in damaged}
    for name, path in paths.items():
        path.write_bytes(damaged[name])
    found = json.loads(run(JS / "test" / "refusals.mjs", *paths.values()))
    for path in paths.values():
        with pytest.raises(murho.ArtifactError) as raised:
            murho.load(path)
        assert found[str(path)] == str(raised.value)


@pytest.mark.parametrize(
    "command",
    [
        ("conformance.mjs", "native"),
        ("conformance.mjs", "wasm"),
        pytest.param(("chromium.mjs",), marks=pytest.mark.hosts),
    ],
)
def test_conformance(command: tuple[str, ...]) -> None:
    script, *kind = command
    report = json.loads(run(JS / "test" / script, *kind, CONFORMANCE).splitlines()[-1])
    assert report["words_exact"]
    assert report["passed"]


def test_the_example(artifacts: dict[str, Path]) -> None:
    lines = run(JS.parents[1] / "examples" / "web" / "interval.mjs", artifacts["forecast"]).splitlines()
    history = 100 + np.sin(np.arange(6)).reshape(1, 6, 1)
    answer = murho.load(artifacts["forecast"]).predict(history, 256, 0.9, 0)
    numbers = [
        [float(word.strip(",")) for word in line.split() if word[-1].isdigit() or word[-1] == ","] for line in lines
    ]
    expected = np.stack([answer.mean[0], answer.lower[0], answer.upper[0]], axis=1)
    np.testing.assert_allclose(numbers, expected, atol=0.0051)
