"""Quiet tracing: what torch says of a failed one is for its own developers, and the error says it to the user."""

import contextlib
import logging
from collections.abc import Iterator

from torch.export import _trace


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Leave out torch's log, and the graph that torch.export prints as far as it came."""
    named = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("torch")]
    levels = {handler: handler.level for logger in named for handler in logger.handlers}
    for handler in levels:
        handler.setLevel(logging.CRITICAL)
    vars(_trace)["print"] = lambda *_, **__: None  # and not sys.stderr in another's hands: a progress bar may have it
    try:
        yield
    finally:
        vars(_trace).pop("print", None)
        for handler, level in levels.items():
            handler.setLevel(level)
