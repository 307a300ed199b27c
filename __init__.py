"""murho: fast, seeded prediction intervals from Bayesian networks trained with BLiTZ.

`murho.load` needs numpy and onnxruntime only. `murho.models`, `murho.train` and `murho.export` need the train extra.
"""

from .runtime import (
    ArtifactError,
    Calibration,
    Card,
    ExportError,
    InputError,
    Intervals,
    MissingExtra,
    Model,
    MurhoError,
    Noise,
    Scaling,
    load,
)

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "Calibration",
    "Card",
    "ExportError",
    "InputError",
    "Intervals",
    "MissingExtra",
    "Model",
    "MurhoError",
    "Noise",
    "Scaling",
    "__version__",
    "load",
]
