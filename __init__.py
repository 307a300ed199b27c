"""murho: fast, seeded prediction intervals from Bayesian networks trained with BLiTZ.

`murho.load` needs numpy and onnxruntime only. `murho.models`, `murho.train` and `murho.export` need the train extra.
"""

from .runtime import (
    ArtifactError,
    Card,
    ExportError,
    InputError,
    Intervals,
    MissingExtra,
    Model,
    MurhoError,
    Scaling,
    load,
)

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "Card",
    "ExportError",
    "InputError",
    "Intervals",
    "MissingExtra",
    "Model",
    "MurhoError",
    "Scaling",
    "__version__",
    "load",
]
