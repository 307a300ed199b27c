"""What an artifact promises: the names of its inputs and outputs, and the card that describes it.

The card is plain JSON, so that reading it needs neither torch nor ONNX Runtime.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from . import checks
from .errors import ArtifactError, InputError
from .scalers import moments

SCHEMA = 5
GENERATOR = "pcg4d-boxmuller-2"
GENERATORS = {4: "pcg4d-boxmuller-1", SCHEMA: GENERATOR}
"""By the card schemas that can be read. A file of an earlier generator draws by its own nodes alone."""
FIXED_INPUTS = ("draws", "seed", "levels")
"""What every artifact takes after the network's own inputs."""
NOISE_INPUT = "noise"
"""What an artifact with observation noise takes after those: 1 to add the noise, 0 to leave it out."""
NOISE_STREAM = 2**31
"""The generator's stream of the observation noise; a site's stream is its number."""
STORAGES = ("float32", "half")
"""Of the posterior: as it is, or μ in float16 and log σ in 8 bits."""
VALUES = ("levels", "differences", "returns")
DISTRIBUTIONS = ("gaussian", "student-t")
SMALLEST_SCALE = 1e-3
CALIBRATION_SLOTS = 16
"""Levels that an artifact can hold factors for."""
DRAWN = "drawn."
"""Starts the names of what an ONNX file computes from draws and seed alone: weights, noise."""
STATE, NEXT = "state.", "next."
"""Start the names of what a streaming artifact takes after all else, and returns after all else: recurrent states."""
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

    `values` says what is standardised. Windows x [B, T, F] may be taken from their last row x[:, -1], which lets a
    network follow a series that drifts out of the range it was trained on; `last` is that row's first feature:

    - "levels": the values as they are;
    - "differences": the network sees x - x[:, -1:], and `last` is added to its output;
    - "returns": it sees x / x[:, -1:] - 1, and its output y becomes last * (1 + y). No window may end in 0.

    Means and scales may be given as a number, a list or an array; they are kept as tuples of floats. Raises InputError
    for what is not finite in float32, scales that are not above 0, and lengths that do not go together.
    """

    input_mean: tuple[float, ...] = (0.0,)
    input_scale: tuple[float, ...] = (1.0,)
    output_mean: tuple[float, ...] = (0.0,)
    output_scale: tuple[float, ...] = (1.0,)
    values: str = "levels"

    def __post_init__(self) -> None:
        checks.choice("values", self.values, VALUES)
        for side in ("input", "output"):
            mean, scale = f"{side}_mean", f"{side}_scale"
            for name in (mean, scale):
                object.__setattr__(self, name, checks.floats(name, getattr(self, name)))
            sizes = len(getattr(self, mean)), len(getattr(self, scale))
            if 0 in sizes or (sizes[0] != sizes[1] and 1 not in sizes):
                raise InputError(
                    f"{mean} and {scale} must have one value, or one for each feature, but have {sizes[0]} and "
                    f"{sizes[1]}."
                )
            if not all(value >= checks.FLOAT32_TINY for value in getattr(self, scale)):
                raise InputError(
                    f"{scale} must hold numbers above 0, not {checks.shown(getattr(self, scale))}: a feature that "
                    "never varies has no scale; take 1 for it."
                )

    @classmethod
    def from_sklearn(cls, scaler_x: Any = None, scaler_y: Any = None) -> "Scaling":
        """The scaling of a network that was trained on what scikit-learn's fitted scalers gave, each None for none.

        `scaler_x` was fitted on the columns of x, in their order, and `scaler_y` on the target(s); where one scaler
        served both, on a series of one column, pass it twice. StandardScaler, MinMaxScaler, MaxAbsScaler and
        RobustScaler are read, with any of their options but `clip`. The numbers are rounded to float32, as the file
        has them. Raises InputError for any other scaler, and for one that is not fitted.
        """
        sides: list[Any] = [
            ((0.0,), (1.0,)) if scaler is None else moments(scaler, name)
            for name, scaler in (("scaler_x", scaler_x), ("scaler_y", scaler_y))
        ]
        return cls(*sides[0], *sides[1])


@dataclass(frozen=True)
class Noise:
    """Observation noise, which every draw's prediction gets on top: scale ⊙ ε, in the network's units.

    With a `scale` for each output the noise is constant. Without one the network says it: of its 2·O outputs per row
    the first O are predictions, the others r give scale = softplus(r) + 0.001.
    """

    distribution: str = "gaussian"
    """Of ε: "gaussian", or "student-t"."""
    degrees: int = 0
    """Degrees of freedom of a Student-t distribution, at least 3, so that its variance exists; 0 for a Gaussian."""
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        checks.choice("distribution", self.distribution, DISTRIBUTIONS)
        student = self.distribution == "student-t"
        if isinstance(self.degrees, np.integer) and self.degrees.dtype.kind in "iu":
            object.__setattr__(self, "degrees", int(self.degrees))
        if type(self.degrees) is not int or (self.degrees < 3 if student else self.degrees != 0):
            expected = "a whole number of at least 3" if student else "0 for a Gaussian"
            raise InputError(f"degrees must be {expected}, not {checks.shown(self.degrees)}.")
        object.__setattr__(self, "scale", checks.floats("scale", self.scale))
        if not all(scale >= 0 for scale in self.scale):
            raise InputError(f"scale must hold finite numbers of at least 0, not {checks.shown(self.scale)}.")

    @property
    def learned(self) -> bool:
        return not self.scale


@dataclass(frozen=True)
class Calibration:
    """By how much the two sides of each interval are stretched, from its median outwards (split conformal)."""

    levels: tuple[float, ...]
    """Calibrated levels, ascending."""
    factors: tuple[tuple[float, ...], ...]
    """[levels][outputs]."""
    rows: int
    """Rows of the calibration data."""
    half_life: float | None = None
    """Rows after which a row's weight has halved, newer rows counting more; None for equal weights."""
    data_sha256: str = ""

    def __post_init__(self) -> None:
        levels = checks.floats("levels", self.levels)
        rising = all(low < high for low, high in pairwise(levels))
        if not rising or not all(0 < level < 1 for level in levels) or not 1 <= len(levels) <= CALIBRATION_SLOTS:
            raise InputError(
                f"levels must be 1 to {CALIBRATION_SLOTS} rising numbers between 0 and 1, not "
                f"{checks.shown(self.levels)}."
            )
        object.__setattr__(self, "levels", levels)
        factors = checks.array("factors", self.factors)
        if factors.dtype.kind not in "fiu" or factors.ndim != 2 or len(factors) != len(levels) or not factors.size:
            raise InputError(f"factors must be numbers [{len(levels)} levels, outputs], but are {factors.shape}.")
        if not ((factors >= 0) & (factors <= checks.FLOAT32_MAX)).all():
            raise InputError("factors must be finite numbers of at least 0, within float32.")
        object.__setattr__(self, "factors", tuple(tuple(map(float, row)) for row in factors.tolist()))
        object.__setattr__(self, "rows", checks.whole("rows", self.rows, 0))
        if self.half_life is not None and type(self.half_life) is not int:  # which a file may hold: it stays as it is
            object.__setattr__(self, "half_life", checks.positive("half_life", self.half_life, "250"))
        elif self.half_life is not None:
            checks.positive("half_life", self.half_life, "250")
        checks.text("data_sha256", self.data_sha256)


@dataclass(frozen=True)
class Array:
    """Shape, type and meaning of an input or output; None marks an axis of any length."""

    name: str
    axes: tuple[str, ...]
    """Name of each axis, the batch first, for example ("batch", "time", "feature"). An input that all rows share has no
    batch."""
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    names: tuple[str, ...] = ()
    """Names along the last axis, or empty."""
    unit: str = ""
    limit: int | tuple[int | None, ...] | None = None
    """Of tokens: how many there are; each is from 0 to limit - 1. Or one for each column along the last axis: of
    categories their number, of anything else None. A category in a float column is cut to a whole number."""

    @property
    def shared(self) -> bool:
        """Whether it is an input that all rows of a batch share."""
        return "batch" not in self.axes

    def __str__(self) -> str:
        """In a line, for example x [batch, time, feature=1]."""
        sizes = (axis if size is None else f"{axis}={size}" for axis, size in zip(self.axes, self.shape, strict=True))
        return f"{self.name} [{', '.join(sizes)}]"


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


@dataclass(frozen=True, repr=False)
class Card:
    """What an artifact says of itself. Two are equal if all that they say is; as they hold dicts, they are no keys."""

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
    """SHA-256 over the sites' float32 μ and σ that the file samples from, one site after another."""
    draws: int = 256
    """Draws to take where a caller names none."""
    levels: tuple[float, ...] = (0.95,)
    seed: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)
    noise: Noise | None = None
    """Observation noise in the samples, or None where they show the network's predictions alone."""
    horizon: int = 1
    """Steps that the artifact goes by feeding each draw's prediction back, the last axis of its output; 1 for none."""
    calibration: Calibration | None = None
    states: tuple[Array, ...] = ()
    """What a streaming artifact carries from one call to the next, all zero at first; empty for any other."""
    storage: str = "float32"
    """How the file keeps μ and σ: "float32", or "half" for float16 and 8 bits of log σ, expanded inside."""
    constants: dict[str, Any] = field(default_factory=dict)
    """Arguments of the network's forward that are part of the file, by name: plain values, or of a tensor its dtype,
    shape and SHA-256."""
    generator: str = GENERATOR
    schema: int = SCHEMA

    def __repr__(self) -> str:
        """What it is in a line; `to_json` has all of it."""
        inputs, outputs = (", ".join(map(str, arrays)) for arrays in (self.inputs, self.outputs))
        return f"<murho.Card {self.name!r}: {inputs} -> {outputs}, {len(self.sites)} sites, schema {self.schema}>"

    @property
    def input(self) -> Array:
        """The first input, which the scaling applies to."""
        return self.inputs[0]

    @property
    def output(self) -> Array:
        return self.outputs[0]

    @property
    def weakness(self) -> str:
        """What is wrong with the numbers of an earlier generator; empty for the present one's."""
        if self.generator == GENERATOR:
            return ""
        return (
            f"{self.name!r} draws by the generator {self.generator}, whose streams are not independent: observation "
            "noise and the first Bayesian layer's weights share half their radii, so that intervals with noise come "
            f"out up to 12 % too narrow or too wide. Export it again to draw by {GENERATOR}."
        )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """Read a card. Raises ArtifactError for a newer schema or generator, or a damaged card."""
        from . import card_check  # which needs this module

        try:
            data = card_check.parsed(text)
            schema = int(data["schema"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ArtifactError(
                f"The artifact's card cannot be read ({_cut(error)}). The file is damaged: export it again."
            ) from None
        if schema not in GENERATORS:
            advice = "Upgrade with: pip install --upgrade murho" if schema > SCHEMA else "Export it again."
            known = " and ".join(map(str, GENERATORS))
            raise ArtifactError(f"The artifact has card schema {schema}; this murho reads {known}. {advice}")
        try:
            card_check.check_card(data)
            data["inputs"] = tuple(_array(part) for part in data["inputs"])
            data["outputs"] = tuple(_array(part) for part in data["outputs"])
            data["states"] = tuple(_array(part) for part in data["states"])
            data["scaling"] = _scaling(data["scaling"])
            data["sites"] = tuple(_site(site) for site in data["sites"])
            data["levels"] = tuple(data["levels"])
            data["noise"] = data["noise"] and Noise(**{**data["noise"], "scale": tuple(data["noise"]["scale"])})
            data["calibration"] = data["calibration"] and _calibration(data["calibration"])
            card = cls(**data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(
                f"The artifact's card lacks or garbles a field ({_cut(error)}). The file is damaged: export it again."
            ) from None
        if card.generator != GENERATORS[schema]:
            raise ArtifactError(
                f"The artifact uses the generator {_cut(repr(card.generator))}; this murho knows "
                f"{GENERATORS[schema]!r}. Upgrade with: pip install --upgrade murho"
            )
        return card


def _cut(text: object) -> str:
    """What a stranger wrote, for a message."""
    said = str(text)
    return said if len(said) <= 300 else f"{said[:300]} …"


def _array(data: dict[str, Any]) -> Array:
    limit = data["limit"]
    parts = {key: tuple(data[key]) for key in ("axes", "shape", "names")}
    return Array(**{**data, **parts, "limit": tuple(limit) if isinstance(limit, list) else limit})


def _scaling(data: dict[str, Any]) -> Scaling:
    values = data.pop("values")
    return Scaling(**{key: tuple(value) for key, value in data.items()}, values=values)


def _calibration(data: dict[str, Any]) -> Calibration:
    factors = tuple(tuple(row) for row in data["factors"])
    return Calibration(**{**data, "levels": tuple(data["levels"]), "factors": factors})


def _site(data: dict[str, Any]) -> Site:
    return Site(**{**data, "shapes": {key: tuple(shape) for key, shape in data["shapes"].items()}})
