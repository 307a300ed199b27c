"""What an artifact promises: the names of its inputs and outputs, and the card that describes it.

The card is plain JSON, so that reading it needs neither torch nor ONNX Runtime.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from .errors import ArtifactError

SCHEMA = 2
GENERATOR = "pcg4d-boxmuller-1"
FIXED_INPUTS = ("draws", "seed", "levels")
"""What every artifact takes after the network's own inputs."""
OUTPUTS = ("samples", "mean", "std", "lower", "upper")
"""What every artifact returns for the network's first output; a further output NAME has "NAME.samples" and so on."""
CARD_KEY = "murho"
DIGEST_KEY = "murho.sha256"
MAX_DRAWS = 2**32  # the generator takes draws modulo 2^32


@dataclass(frozen=True)
class Scaling:
    """Standardisation between raw units and the network's units.

    The network sees (x - input_mean) / input_scale along the last axis of `x`, and its output y becomes
    y * output_scale + output_mean along the last axis of y. A single value applies to every feature.

    With `relative`, values are taken relative to the window's last row, which lets a network follow a series that
    drifts out of the range it was trained on: the network sees (x - x[:, -1:] - input_mean) / input_scale, and
    x[:, -1, :1], the last value of the first feature, is added to its output.
    """

    input_mean: tuple[float, ...] = (0.0,)
    input_scale: tuple[float, ...] = (1.0,)
    output_mean: tuple[float, ...] = (0.0,)
    output_scale: tuple[float, ...] = (1.0,)
    relative: bool = False


@dataclass(frozen=True)
class Array:
    """Shape, type and meaning of an input or output; None marks an axis of any length."""

    name: str
    axes: tuple[str, ...]
    """Name of each axis, the batch first, for example ("batch", "time", "feature")."""
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    names: tuple[str, ...] = ()
    """Names along the last axis, or empty."""
    unit: str = ""
    limit: int | None = None
    """Of tokens: how many there are; each is from 0 to limit - 1."""


@dataclass(frozen=True)
class Site:
    """One call of a Bayesian layer: where the draws' weights enter the network."""

    layer: str
    """Dotted name of the layer in the user's network."""
    kind: str
    """BLiTZ's class name."""
    shapes: dict[str, tuple[int, ...]]
    """Shape of each weight tensor, in the posterior's order."""
    n: int
    """Random numbers per draw."""
    sampling: str
    """"weights": one for each weight; "local": one for each output (local reparameterisation)."""
    relative_sigma: float
    """Mean σ over mean |μ| of the posterior."""
    trained: bool
    """Whether σ has left the values that BLiTZ starts from."""
    elements: int
    """Values per row of a batch like the example that the layer reads and writes."""


@dataclass(frozen=True)
class Card:
    """What an artifact says of itself."""

    name: str
    created: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    task: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    """The first is what `predict` returns."""
    scaling: Scaling
    sites: tuple[Site, ...]
    posterior_sha256: str
    """SHA-256 over the sites' float32 μ and σ, one site after another."""
    draws: int = 256
    """Draws to take where a caller names none."""
    levels: tuple[float, ...] = (0.95,)
    seed: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    generator: str = GENERATOR
    schema: int = SCHEMA

    @property
    def input(self) -> Array:
        """The first input, which the scaling applies to."""
        return self.inputs[0]

    @property
    def output(self) -> Array:
        return self.outputs[0]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """Read a card. Raises ArtifactError for a newer schema or generator, or a damaged card."""
        try:
            data = json.loads(text)
            schema = int(data["schema"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ArtifactError(
                f"The artifact's card cannot be read ({error}). The file is damaged: export it again."
            ) from None
        if schema > SCHEMA:
            raise ArtifactError(
                f"The artifact has card schema {schema}; this murho reads {SCHEMA}. "
                "Upgrade with: pip install --upgrade murho"
            )
        if schema < SCHEMA:
            raise ArtifactError(f"The artifact has card schema {schema}; this murho reads {SCHEMA}. Export it again.")
        try:
            data["inputs"] = tuple(_array(part) for part in data["inputs"])
            data["outputs"] = tuple(_array(part) for part in data["outputs"])
            data["scaling"] = _scaling(data["scaling"])
            data["sites"] = tuple(_site(site) for site in data["sites"])
            data["levels"] = tuple(data["levels"])
            card = cls(**data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(
                f"The artifact's card lacks or garbles a field ({error}). The file is damaged: export it again."
            ) from None
        if card.generator != GENERATOR:
            raise ArtifactError(
                f"The artifact uses the generator {card.generator!r}; this murho knows {GENERATOR!r}. "
                "Upgrade with: pip install --upgrade murho"
            )
        return card


def _array(data: dict[str, Any]) -> Array:
    return Array(**{**data, **{key: tuple(data[key]) for key in ("axes", "shape", "names")}})


def _scaling(data: dict[str, Any]) -> Scaling:
    relative = bool(data.pop("relative", False))
    return Scaling(**{key: tuple(value) for key, value in data.items()}, relative=relative)


def _site(data: dict[str, Any]) -> Site:
    return Site(**{**data, "shapes": {key: tuple(shape) for key, shape in data["shapes"].items()}})
