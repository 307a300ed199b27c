"""MLflow's pyfunc flavour: log an artifact, load it anywhere, predict a DataFrame of intervals.

    from murho.runtime import mlflow as murho_mlflow

    info = murho_mlflow.log_model("model.onnx", name="forecaster")
    model = mlflow.pyfunc.load_model(info.model_uri)
    model.predict(x, params={"draws": 1000, "level": [0.8, 0.95], "seed": 0})

Needs the extra: pip install "murho[mlflow]". Of a network with several outputs this is the first.
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .artifact import Artifact, check_trust, read
from .contract import Array, Card
from .errors import ArtifactError, InputError, MissingExtra
from .inputs import Input
from .model import Model, load
from .typical import typical_inputs

try:
    import mlflow
    import pandas as pd
    from mlflow.models import Model as Package
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
except ImportError as error:
    raise MissingExtra(f'murho.runtime.mlflow needs {error.name}: pip install "murho[mlflow]"') from None

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

FLAVOR_NAME = "murho"


def save_model(
    artifact: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    trusted: bool = False,
    frame: bool | None = None,
    signature: ModelSignature | None = None,
    input_example: Any = None,
    pip_requirements: list[str] | None = None,
    extra_pip_requirements: list[str] | None = None,
    metadata: dict[str, Any] | None = None,
    mlflow_model: Package | None = None,
) -> None:
    """Save an artifact's file as an MLflow model in a new folder `path`.

    The signature comes from the card. It says what the model reads, and MLflow refuses anything else: an array, as the
    artifact itself, or with `frame` a DataFrame with a column for each feature; where the network reads windows of a
    sequence, every run of that many rows is one. By default a DataFrame where the network reads rows of named features.

    A format of torch is opened only if it is `trusted`, as by `murho.load`. Who loads it by `mlflow.pyfunc` says so
    by MURHO_TRUSTED=1 in the environment: the model's own folder must not decide.

    The other arguments are MLflow's own, for `mlflow.pyfunc.save_model`.

    Raises ArtifactError for a file that is no artifact or not trusted, InputError for `frame` where the network cannot
    read one.
    """
    opened = read(artifact)
    check_trust(opened, trusted)
    package = mlflow_model or Package()
    package.add_flavor(FLAVOR_NAME, murho_version=version("murho"), data=f"data/{opened.path.name}")
    mlflow.pyfunc.save_model(
        path=os.fspath(path),
        loader_module=__name__,
        data_path=os.fspath(opened.path),
        mlflow_model=package,
        signature=signature or signature_of(load(opened.path, trusted=trusted), frame),
        input_example=input_example,
        pip_requirements=pip_requirements or get_default_pip_requirements(opened),
        extra_pip_requirements=extra_pip_requirements,
        metadata=metadata,
    )


def log_model(artifact: str | os.PathLike[str], name: str, *, trusted: bool = False, **options: Any) -> "ModelInfo":
    """Log an artifact's file as a model of the active run, or of a new one.

    `options` are those of `save_model`, and of `mlflow.models.Model.log`, `registered_model_name` for example.
    """
    check_trust(read(artifact), trusted)  # else a mistake would leave an empty model behind
    info: ModelInfo = Package.log(
        artifact_path=None,
        name=name,
        flavor=sys.modules[__name__],
        flavor_name=FLAVOR_NAME,
        artifact=artifact,
        trusted=trusted,
        **options,
    )
    return info


def load_model(model_uri: str | os.PathLike[str], **options: Any) -> Model:
    """The murho.Model in a model that was saved here; `options` are those of `murho.load`.

    Raises ArtifactError where another flavour's model is in this place.
    """
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=os.fspath(model_uri)))
    flavour = Package.load(os.fspath(folder)).flavors.get(FLAVOR_NAME)
    if flavour is None:
        raise ArtifactError(f"{model_uri} is an MLflow model, but not one that murho.runtime.mlflow saved.")
    return load(folder / flavour["data"], **options)


def get_default_pip_requirements(artifact: Artifact) -> list[str]:
    """What an environment needs to serve an artifact, at the versions that are installed here."""
    names = ["murho", "numpy", "onnxruntime", "pandas", *([] if artifact.format == "onnx" else ["torch"])]
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def signature_of(model: Model, frame: bool | None = None) -> ModelSignature:
    """What a model reads and returns, and the parameters of a prediction with their defaults, for MLflow."""
    card = model.card
    if frame is None:
        frame = len(card.inputs) == 1 and len(card.input.shape) == 2 and bool(card.input.names)
    row = dict(zip((array.name for array in card.inputs), typical_inputs(card, 1), strict=True))
    answer = model.predict(row, draws=2).to_frame()
    return ModelSignature(
        inputs=Schema(_columns(card) if frame else _tensors(card)),
        outputs=Schema([ColSpec("float", name) for name in answer.columns]),
        params=ParamSchema(
            [
                ParamSpec("draws", "long", card.draws),
                ParamSpec("level", "double", list(card.levels), shape=(-1,)),
                ParamSpec("seed", "long", card.seed),
                ParamSpec("noise", "boolean", True),
            ]
        ),
    )


def _columns(card: Card) -> list[ColSpec | TensorSpec]:
    """The features as columns, unnamed where the card names none."""
    if len(card.inputs) > 1 or len(card.input.shape) not in (2, 3) or card.input.shape[-1] is None:
        shapes = "; ".join(f"{array.name} {array.axes}" for array in card.inputs)
        raise InputError(f"This network reads {shapes}, which no DataFrame holds: leave out frame=True.")
    kind = "long" if card.input.dtype == "int64" else "double"
    return [ColSpec(kind, name) for name in card.input.names or [None] * card.input.shape[-1]]


def _tensors(card: Card) -> list[ColSpec | TensorSpec]:
    """One unnamed array, or several by name."""
    return [_tensor(array, array.name if len(card.inputs) > 1 else None) for array in card.inputs]


def _tensor(array: Array, name: str | None) -> TensorSpec:
    return TensorSpec(np.dtype(array.dtype), [-1 if size is None else size for size in array.shape], name)


class _PyFunc:
    """What `mlflow.pyfunc.load_model` wraps."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(self, x: "Input | pd.DataFrame", params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The columns of `murho.Intervals.to_frame`; `params` are draws, level, seed and noise."""
        answer = self._model.predict(x, **params or {})
        return answer if isinstance(answer, pd.DataFrame) else answer.to_frame()


def _load_pyfunc(path: str) -> _PyFunc:
    """MLflow's door: `path` is the artifact's file in the model's folder."""
    return _PyFunc(load(path, trusted=os.environ.get("MURHO_TRUSTED") == "1"))
