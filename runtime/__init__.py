from .contract import Calibration, Card, Noise, Scaling
from .errors import ArtifactError, ExportError, InputError, MissingExtra, MurhoError
from .intervals import Intervals
from .model import Model, load

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
    "load",
]
