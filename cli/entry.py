"""Where the command `murho` starts: errors become one line on stderr and an exit code, never a traceback.

Exit codes: 0 done, 1 an error that murho explains, 2 wrong usage, 130 interrupted.
"""

import importlib
import sys
import warnings
from types import ModuleType

from .. import __version__
from ..runtime.errors import MissingExtra, MurhoError


def main() -> None:
    warnings.showwarning = lambda message, *_, **__: print(f"Warning: {message}", file=sys.stderr)
    if sys.argv[1:2] == ["--version"]:  # which needs no extra
        print(f"murho {__version__}")
        sys.exit()
    try:
        extra(".app", "cli").app()
    except MurhoError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


def extra(module: str, name: str) -> ModuleType:
    """Import a module of ours that needs an extra's packages. Raises MissingExtra if one is not there."""
    try:
        return importlib.import_module(module, __package__)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f'This command needs the package {error.name!r}, which is not installed: pip install "murho[{name}]"'
        ) from None
