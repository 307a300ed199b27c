from .contract import Card, Scaling
from .errors import ArtifactError, ExportError, InputError, MissingExtra, MurhoError
from .intervals import Intervals
from .model import Model, load

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
    "load",
]
