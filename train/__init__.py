"""Train a BLiTZ network on a series or a table: read, cut into parts, fit, keep checkpoints."""

from ..runtime.errors import needs_extra

with needs_extra("murho.train", "train"):
    from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from .data import Dataset, Part, prepare, standardise
    from .fit import fit
    from .history import History
    from .likelihood import residual_noise
    from .rows import prepare_rows
    from .table import Series, builtin_series, read_series

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
