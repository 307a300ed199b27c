"""What `drawing` and `recurrent` share: the compiled code, where it is, and sessions for parts of a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import native
from .kept import Arrays

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_compiled = native.opened()

Opened = Callable[[bytes], "InferenceSession"]
"""A model -> a session for it."""


class Part:
    """A session that is fed with what it reads, of all values by name."""

    def __init__(self, session: "InferenceSession", makes: Sequence[str]) -> None:
        self._session, self._makes = session, makes
        self._reads = [value.name for value in session.get_inputs()]

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The tensors that it makes, by name."""
        results: Arrays = self._session.run(self._makes, {name: values[name] for name in self._reads})
        return dict(zip(self._makes, results, strict=True))
