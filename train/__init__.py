"""Train a BLiTZ network on a series or a table: read, cut into parts, fit, keep checkpoints."""

from ..runtime.errors import needs_extra

with needs_extra("murho.train", "train"):
    from ..data import Dataset, Part, Series, prepare, prepare_rows, read_series, standardise
    from .builtin import builtin_series
    from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from .fit import fit
    from .history import History
    from .likelihood import residual_noise

__all__ = [
    "Checkpoint",
    "Dataset",
    "History",
    "Part",
    "Series",
    "builtin_series",
    "fit",
    "load_checkpoint",
    "prepare",
    "prepare_rows",
    "read_series",
    "residual_noise",
    "save_checkpoint",
    "standardise",
]
