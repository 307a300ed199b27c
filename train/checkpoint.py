"""A checkpoint: the best weights, what they were trained on, and all that a training needs to go on where it stopped.

The file holds tensors and plain Python values only, see `weights_file`.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from blitz.modules.weight_sampler import TrainableRandomDistribution
from torch import nn

from .. import models
from ..runtime.checks import file_path, instance
from ..runtime.contract import Noise, Scaling
from ..runtime.errors import ArtifactError, InputError
from ..runtime.files import write_file
from ..runtime.reading import read_file
from .checkpoint_check import check_architecture, check_fields, check_places
from .history import History
from .weights_file import MOST_BYTES, from_bytes, to_bytes

SCHEMA = 4
FORMAT = "murho.checkpoint"

State = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training after a whole epoch."""

    kind: str
    """Name of the class in `murho.models`; the dotted path of a class of the user's own."""
    config: dict[str, Any]
    """Arguments of that class in `murho.models`; empty for a class of the user's own."""
    state: State
    """Best weights so far. BLiTZ's ε buffers are left out: they are noise, or memory never written."""
    scaling: Scaling
    name: str
    """Name of the series or table."""
    task: str
    """"forecast", "regression" or "classification"."""
    target: str
    features: tuple[str, ...]
    """Of a series the further columns; of a table the columns of `x`, or nothing where they have no names."""
    input_names: tuple[str, ...]
    """Names along the last axis of `x`, or nothing where they have none."""
    output_names: tuple[str, ...]
    """Names of the network's outputs; for a classification those of the classes."""
    shape: tuple[int, ...]
    """Shape of one example's `x`: (window, features) for a forecast."""
    window: int | None
    """Rows that a forecast sees; None for tables."""
    horizon: int
    """Rows that a forecast predicts; 1 for tables."""
    splits: tuple[float, float, float]
    repairs: tuple[str, ...]
    noise: Noise | None
    """Observation noise that the network learned, or that was fitted to it afterwards; None for none."""
    fingerprint: tuple[str, ...]
    """Hashes of some training rows, by which they are recognised in other data."""
    settings: dict[str, Any]
    """Arguments of `fit` that the weights depend on, and the digest of its data."""
    history: History
    current: State
    """Weights after the last epoch."""
    optimizer: dict[str, Any]
    """Adam's state after the last epoch."""

    def network(self) -> nn.Module:
        """A new network of `murho.models` with the best weights, in evaluation mode, sampling.

        Raises InputError where the checkpoint holds a network of the user's own: build that one, then `restore` it.
        """
        if self.kind not in models.__all__:
            raise InputError(
                f"The checkpoint holds the weights of {self.kind}, which murho cannot build. Build that network "
                "yourself and call checkpoint.restore(network)."
            )
        try:
            check_architecture(self.kind, self.config, self.state)
            network: nn.Module = getattr(models, self.kind)(**self.config)
            load_weights(network, self.state)
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"The checkpoint's weights and settings do not agree ({error}). Train again.") from None
        return network.eval()

    def restore(self, network: nn.Module) -> None:
        """Put the best weights into `network`. Raises InputError where names or shapes differ."""
        load_weights(network, self.state)

    def summary(self) -> dict[str, Any]:
        """What an artifact's card may say of the training, as plain JSON values."""
        return {
            "kind": self.kind,
            "config": self.config,
            "data": self.name,
            "task": self.task,
            "target": self.target,
            "features": list(self.features),
            "outputs": list(self.output_names),
            "shape": list(self.shape),
            "window": self.window,
            "horizon": self.horizon,
            "splits": list(self.splits),
            "repairs": list(self.repairs),
            "fingerprint": list(self.fingerprint),
            "settings": self.settings,
            "epochs": self.history.epochs,
            "best_epoch": self.history.best_epoch,
            "best_validation": self.history.best_validation,
        }


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint: the whole file or none, an older one stays until then. Raises InputError if it cannot."""
    path = file_path("path", path)
    instance("checkpoint", checkpoint, Checkpoint)
    fields = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    for key in ("scaling", "history", "noise"):
        fields[key] = fields[key] and dataclasses.asdict(fields[key])
    write_file(path, to_bytes({"format": FORMAT, "schema": SCHEMA, **fields}))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, onto the CPU.

    Raises InputError for a missing file, ArtifactError for one that is damaged or not a checkpoint.
    """
    path = file_path("path", path)
    if not path.exists():
        raise InputError(f"There is no checkpoint {str(path)!r}. Check the path, or train first.")
    try:
        data = from_bytes(read_file(path, MOST_BYTES))
        foreign = type(data.get("format")) is not str or data.pop("format") != FORMAT
        if not foreign:
            check_places(data)
    except ValueError as error:
        raise ArtifactError(
            f"{str(path)!r} is not a checkpoint, or is damaged ({error}). Give the file that training wrote, or train "
            "again."
        ) from None
    if foreign:
        raise ArtifactError(f"{str(path)!r} is not a checkpoint of murho. Give the file that training wrote.")
    if (schema := data.pop("schema", None)) != SCHEMA:
        raise ArtifactError(
            f"{str(path)!r} has checkpoint schema {schema!r:.40}; this murho reads {SCHEMA}. Use the murho that wrote "
            "it, or train again."
        )
    try:
        data["scaling"] = Scaling(**data["scaling"])
        data["history"] = History(**data["history"])
        data["noise"] = data["noise"] and Noise(**data["noise"])
        checkpoint = Checkpoint(**data)
        check_fields(data)
        return checkpoint
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{str(path)!r} lacks or garbles a field ({error}). Train again.") from None


def describe(network: nn.Module) -> tuple[str, dict[str, Any]]:
    """`kind` and `config` of a network."""
    cls = type(network)
    if getattr(models, cls.__name__, None) is cls:
        return cls.__name__, dict(network.config)  # type: ignore[arg-type]
    return f"{cls.__module__}.{cls.__qualname__}", {}


def copy_weights(network: nn.Module) -> State:
    """A copy on the CPU of the state_dict without BLiTZ's ε buffers."""
    noise = _noise(network)
    return {key: value.detach().to("cpu", copy=True) for key, value in network.state_dict().items() if key not in noise}


def load_weights(network: nn.Module, state: State) -> None:
    """Put a state from `copy_weights` into the network. Raises InputError where names or shapes differ."""
    noise = {key: value for key, value in network.state_dict().items() if key in _noise(network)}
    try:
        network.load_state_dict({**state, **noise})
    except RuntimeError as error:
        raise InputError(
            f"The checkpoint belongs to another network ({error}). Build the network that was trained."
        ) from None


def _noise(network: nn.Module) -> set[str]:
    samplers = network.named_modules()
    return {f"{name}.eps_w" for name, module in samplers if isinstance(module, TrainableRandomDistribution)}
