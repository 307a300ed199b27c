"""Series and tables: read, checked, and cut into parts. Needs numpy and pandas alone."""

from ..runtime.errors import needs_extra

with needs_extra("murho.data", "cli"):
    from .dataset import Dataset, Part, forecast_names, parts_of, prepare, standardise, windows_of, with_validation
    from .rows import prepare_rows
    from .table import Series, Table, read_series, read_table

__all__ = [
    "Dataset",
    "Part",
    "Series",
    "Table",
    "forecast_names",
    "parts_of",
    "prepare",
    "prepare_rows",
    "read_series",
    "read_table",
    "standardise",
    "windows_of",
    "with_validation",
]
