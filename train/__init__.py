"""Train a BLiTZ network on a series: read, cut into windows, fit, keep checkpoints."""

from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .data import Dataset, Windows, prepare, standardise
from .fit import fit
from .history import History
from .table import Series, builtin_series, read_series

__all__ = [
    "Checkpoint",
    "Dataset",
    "History",
    "Series",
    "Windows",
    "builtin_series",
    "fit",
    "load_checkpoint",
    "prepare",
    "read_series",
    "save_checkpoint",
    "standardise",
]
