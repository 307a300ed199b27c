"""Every error that murho raises on purpose. Catch `MurhoError` to catch them all."""

from collections.abc import Iterator
from contextlib import contextmanager


class MurhoError(Exception):
    """Root of murho's errors."""


class ArtifactError(MurhoError):
    """The file is not a murho artifact, is damaged, or needs a newer murho."""


class InputError(MurhoError, ValueError):
    """An argument has the wrong shape, type or value."""


class ExportError(MurhoError):
    """The network cannot be exported, or the exported file failed its proof. Names the layer.

    `reasons` has a text for each thing that stands in the way.
    """

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(map(str, self.args))

    def __str__(self) -> str:
        if len(self.args) < 2:
            return super().__str__()
        return "\n- ".join((f"{len(self.args)} things stand in the way of the export:", *self.reasons))


class MissingExtra(MurhoError, ImportError):  # noqa: N818 - the name is the message
    """A package of an optional extra is missing. Names the pip command that installs it."""


@contextmanager
def needs_extra(module: str, extra: str) -> Iterator[None]:
    """Imports of a module of ours that needs an extra's packages. Raises MissingExtra where one of those is missing."""
    try:
        yield
    except (ModuleNotFoundError, MissingExtra) as error:  # the second where a module of ours said it of less
        package = (error.name or "").partition(".")[0]
        if package == __name__.partition(".")[0]:  # a mistake of ours, that no extra mends
            raise
        text = f'{module} needs the package {package!r}: pip install "murho[{extra}]"'
        raise MissingExtra(text, name=package) from None
