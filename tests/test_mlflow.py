"""The MLflow flavour: what is logged loads in another process and predicts murho's own numbers."""

import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from blitz.modules import BayesianEmbedding, BayesianLinear
from torch import nn

import murho
from murho.export import to_onnx
from murho.runtime import mlflow as flavour

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*input example was not provided:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Add type hints to the `predict` method:UserWarning"),
]

RHO = {"posterior_rho_init": -2.0}
PARAMS = {"draws": 100, "level": [0.5, 0.9], "seed": 3}

FRESH = """
import sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
model.predict(np.load(sys.argv[2]), params={"draws": 100, "level": [0.5, 0.9], "seed": 3}).to_pickle(sys.argv[3])
assert "torch" not in sys.modules
"""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is reported to anybody, and runs are kept in files below tmp_path."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.chdir(tmp_path)


def windows(rows: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(90, 110, (rows, 21, 1)).astype(np.float32)


def test_a_saved_model_predicts_murhos_numbers_in_a_fresh_process(exported, tmp_path: Path) -> None:
    artifact = exported("demo").onnx
    flavour.save_model(artifact, tmp_path / "model")
    np.save(tmp_path / "x.npy", windows(3))
    command = [sys.executable, "-c", FRESH, "model", "x.npy", "answer.pkl"]
    subprocess.run(command, check=True, cwd=tmp_path)
    expected = murho.load(artifact).predict(windows(3), **PARAMS).to_frame()
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "answer.pkl"), expected, check_exact=True)
    assert (tmp_path / "model" / "data" / artifact.name).read_bytes() == artifact.read_bytes()


def test_the_environment_has_no_torch_unless_the_artifact_needs_it(
    exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for format in ("onnx", "torchscript"):
        flavour.save_model(exported("mlp").path(format), tmp_path / format, trusted=True)
    names, with_torch = (
        {line.partition("==")[0] for line in (tmp_path / format / "requirements.txt").read_text().split()}
        for format in ("onnx", "torchscript")
    )
    assert names == {"mlflow", "murho", "numpy", "onnxruntime", "pandas"}
    assert with_torch == names | {"torch"}
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(murho.ArtifactError, match=r"Such files are programs: .* MURHO_TRUSTED=1"):
        mlflow.pyfunc.load_model(str(tmp_path / "torchscript"))
    with pytest.raises(murho.ArtifactError, match="Such files are programs"):
        flavour.save_model(exported("mlp").torchscript, tmp_path / "untrusted")
    monkeypatch.setenv("MURHO_TRUSTED", "1")
    frame = mlflow.pyfunc.load_model(str(tmp_path / "torchscript")).predict(x, params=PARAMS)
    expected = murho.load(exported("mlp").torchscript, trusted=True).predict(x, **PARAMS).to_frame()
    pd.testing.assert_frame_equal(frame, expected)


def test_a_logged_model_is_found_again(exported) -> None:
    artifact = exported("demo").onnx
    with mlflow.start_run():
        info = flavour.log_model(artifact, name="forecaster", metadata={"series": "IBM"})
    found = flavour.load_model(info.model_uri, threads=1)
    assert isinstance(found, murho.Model)
    assert found.card == murho.load(artifact).card
    assert info.metadata == {"series": "IBM"}
    frame = mlflow.pyfunc.load_model(info.model_uri).predict(windows(2))  # all defaults are the card's
    pd.testing.assert_frame_equal(frame, murho.load(artifact).predict(windows(2)).to_frame())


def test_the_signature_is_the_cards(exported) -> None:
    model = murho.load(exported("demo").onnx)
    signature = flavour.signature_of(model)
    (x,) = signature.inputs.inputs
    assert (x.type, x.shape) == (np.dtype("float32"), (-1, -1, 1))
    assert signature.outputs.input_names() == list(model.predict(windows(1)).to_frame().columns)
    defaults = {param.name: param.default for param in signature.params.params}
    card = model.card
    assert defaults == {"draws": card.draws, "level": list(card.levels), "seed": card.seed, "noise": True}


def test_a_frame_is_cut_into_windows(exported, tmp_path: Path) -> None:
    artifact = exported("demo").onnx
    flavour.save_model(artifact, tmp_path / "model", frame=True)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    days = pd.date_range("2026-01-01", periods=24)
    series = pd.DataFrame({"volume": 1.0, "close": np.linspace(100, 110, 24)}, index=days)
    frame = loaded.predict(series, params=PARAMS)
    pd.testing.assert_frame_equal(frame, murho.load(artifact).predict(series, **PARAMS))
    assert list(frame.index) == list(days[20:])
    with pytest.raises(mlflow.MlflowException, match=r"Model is missing inputs \['close'\]"):
        loaded.predict(series[["volume"]])


def test_named_features_are_columns_by_default(tmp_path: Path) -> None:
    import torch
    from blitz.modules import BayesianLinear

    from murho.export import to_onnx

    artifact = tmp_path / "table.onnx"
    with pytest.warns(UserWarning, match="still where BLiTZ starts it"):
        to_onnx(BayesianLinear(2, 1), artifact, torch.randn(8, 2), input_names=("age", "size"))
    flavour.save_model(artifact, tmp_path / "model")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    table = pd.DataFrame({"size": [1.0, 2.0], "age": [30.0, 40.0]})  # in another order than the network's
    expected = murho.load(artifact).predict(table[["age", "size"]].to_numpy(np.float32), **PARAMS).to_frame()
    pd.testing.assert_frame_equal(loaded.predict(table, params=PARAMS), expected)
    whole = table.astype({"age": "int32"})
    pd.testing.assert_frame_equal(loaded.predict(whole, params=PARAMS), expected)


def test_several_inputs_are_tensors_by_name(tmp_path: Path) -> None:
    import torch
    from blitz.modules import BayesianLinear

    from murho.export import to_onnx

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = BayesianLinear(5, 1)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.cat([left, right], dim=1))

    artifact = tmp_path / "two.onnx"
    with pytest.warns(UserWarning, match="still where BLiTZ starts it"):
        to_onnx(Two(), artifact, (torch.randn(8, 2), torch.randn(8, 3)))
    flavour.save_model(artifact, tmp_path / "model")
    x = {"left": np.ones((2, 2), np.float32), "right": np.ones((2, 3), np.float32)}
    frame = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(x, params=PARAMS)
    pd.testing.assert_frame_equal(frame, murho.load(artifact).predict(x, **PARAMS).to_frame())
    with pytest.raises(murho.InputError, match="which no DataFrame holds: leave out frame=True"):
        flavour.save_model(artifact, tmp_path / "other", frame=True)
    assert not (tmp_path / "other").exists()


def test_mistakes_are_murhos_own_errors_and_leave_nothing(exported, tmp_path: Path) -> None:
    with pytest.raises(murho.ArtifactError, match=r"Cannot read the artifact none\.onnx"):
        flavour.log_model("none.onnx", name="none")
    (tmp_path / "text.onnx").write_text("no artifact")
    with pytest.raises(murho.ArtifactError, match="is not a murho artifact"):
        flavour.save_model(tmp_path / "text.onnx", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "runs").exists()

    flavour.save_model(exported("mlp").onnx, tmp_path / "model")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    with pytest.raises(murho.InputError, match="draws must be at least 2"):
        loaded.predict(np.zeros((1, 3), np.float32), params={"draws": 1})

    mlflow.pyfunc.save_model(tmp_path / "foreign", python_model=lambda model_input: model_input, pip_requirements=[])
    with pytest.raises(murho.ArtifactError, match="is an MLflow model, but not one that murho"):
        flavour.load_model(tmp_path / "foreign")


@pytest.mark.parametrize("missing", ["mlflow", "pandas"])
def test_without_the_extra_the_error_names_the_command(missing: str) -> None:
    code = f"""
import sys
sys.modules["{missing}"] = None
import murho
try:
    import murho.runtime.mlflow
except murho.MissingExtra as error:
    print(isinstance(error, ImportError), error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f'True murho.runtime.mlflow needs {missing}: pip install "murho[mlflow]"'


def test_ids_and_a_mask_that_all_rows_share(tmp_path: Path) -> None:
    class Rated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.head = BayesianEmbedding(7, 3, **RHO), BayesianLinear(3, 1, **RHO)

        def forward(self, user: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.head(self.users(user) * mask)

    user, mask = np.arange(5), np.array([True, False, True])
    to_onnx(Rated(), tmp_path / "rated.onnx", (user, mask), shared_inputs=("mask",))
    flavour.save_model(tmp_path / "rated.onnx", tmp_path / "model")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert [(spec.name, spec.type, spec.shape) for spec in loaded.metadata.signature.inputs] == [
        ("user", np.dtype("int64"), (-1,)),
        ("mask", np.dtype("bool"), (3,)),
    ]
    x = {"user": user, "mask": mask}
    expected = murho.load(tmp_path / "rated.onnx").predict(x, **PARAMS).to_frame()
    pd.testing.assert_frame_equal(loaded.predict(x, params=PARAMS), expected)
