"""The series that ships with murho."""

from importlib import resources

from ..data import Series, read_series


def builtin_series() -> Series:
    """IBM's daily closing price in US dollars, 2000-03-01 to 2013-03-01."""
    file = resources.files(__package__) / "series" / "IBM_2000-03-01_to_2013-03-01.csv.gz"
    with resources.as_file(file) as path:
        return read_series(path, target="Close")
