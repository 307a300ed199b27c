"""Run a small LSTM by compiled code: several times as fast as ONNX Runtime's scan, equal to float32 rounding.

The half of a file that computes (see `split`) is cut at its LSTM: what comes before and behind stays ONNX's.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .graph import INPUT, KIND, MAKES, OUTPUT, READS, attribute, has_bodies, makers, named, nodes, part
from .kept import Arrays
from .protobuf import strings

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

try:
    from . import _compiled
except ImportError:  # it was installed where no C compiler is
    _compiled = None  # type: ignore[assignment]

MOST_WEIGHTS = 2**11
"""Weights of a layer; ONNX Runtime's matrix products are faster at more, and at many rows."""

Network = Callable[[Sequence[str], dict[str, Any]], Sequence[Any]]
"""Names of outputs, and inputs by name -> those outputs."""


class Compiled(NamedTuple):
    run: Network
    views: dict[str, tuple[int, int]]
    """Names of drawn [S, 4H, K] that may be views, transposed, of arrays [S, K, 4H]; with the sizes K and 4H."""


def compiled(half: bytes, opened: Callable[[bytes], "InferenceSession"]) -> Compiled | None:
    """What evaluates the half that computes; None where nothing is compiled, or not one small LSTM is all there is.

    `opened` gives a session for a model.
    """
    view = memoryview(half)
    every = nodes(view)
    layers = [node for node in every if strings(node, KIND)[0] in ("BayesianLSTM", "BayesianLSTMLast")]
    if _compiled is None or len(layers) != 1 or any(has_bodies(node) for node in every):
        return None
    (layer,) = layers
    features, hidden = attribute(layer, "inputs"), attribute(layer, "hidden")
    sizes = features + hidden + 1, 4 * hidden
    if math.prod(sizes) > MOST_WEIGHTS:
        return None
    shared, reads, results = attribute(layer, "shared"), strings(layer, READS), strings(layer, MAKES)
    given = named(view, INPUT)
    wanted = [name for name in reads if name not in given]
    before = _Part(opened(part(view, makers(every, wanted), [], wanted))) if wanted else None
    others = [node for node in every if node is not layer]
    outputs = named(view, OUTPUT)
    behind = _Part(opened(part(view, makers(others, outputs, given=results), results, outputs)))

    def run(fetches: Sequence[str], feeds: dict[str, Any]) -> Sequence[Any]:
        known = feeds | (before(wanted, feeds) if before else {})
        x, h, c = (np.ascontiguousarray(known[name]) for name in reads[:3])
        weight = known[reads[3]]
        if inputs_first := not weight.flags.c_contiguous:
            weight = np.ascontiguousarray(weight.transpose(0, 2, 1))  # no copy, where it is a view of what was drawn
        draws, steps = len(weight), x.shape[1]
        rows = len(x) if shared else len(x) // draws
        states = [np.empty((draws * rows, hidden), dtype=np.float32) for _ in range(2)]
        sequence = np.empty((draws * rows, steps, hidden) if len(results) > 2 else 0, dtype=np.float32)
        _compiled.lstm((draws, rows, steps, features, hidden), x, h, c, weight, inputs_first, sequence, *states)
        made = (sequence, *states) if len(results) > 2 else states
        answers = behind(fetches, known | dict(zip(results, made, strict=True)))
        return [answers[name] for name in fetches]

    return Compiled(run, {reads[3]: sizes})


class _Part:
    """A session that is fed with what it reads."""

    def __init__(self, session: "InferenceSession") -> None:
        self._session = session
        self._reads = [value.name for value in session.get_inputs()]

    def __call__(self, fetches: Sequence[str], feeds: dict[str, Any]) -> dict[str, Any]:
        results: Arrays = self._session.run(fetches, {name: feeds[name] for name in self._reads})
        return dict(zip(fetches, results, strict=True))
