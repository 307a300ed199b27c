"""Every error that murho raises on purpose. Catch `MurhoError` to catch them all."""


class MurhoError(Exception):
    """Root of murho's errors."""


class ArtifactError(MurhoError):
    """The file is not a murho artifact, is damaged, or needs a newer murho."""


class InputError(MurhoError, ValueError):
    """An argument has the wrong shape, type or value."""


class ExportError(MurhoError):
    """The network cannot be exported, or the exported file failed its proof. Names the layer."""


class MissingExtra(MurhoError, ImportError):  # noqa: N818 - the name is the message
    """A package of an optional extra is missing. Names the pip command that installs it."""
