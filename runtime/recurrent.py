"""Run small LSTMs by compiled code: several times as fast as ONNX Runtime's scan, equal to float32 rounding.

The half of a file that computes (see `split`) is cut at each LSTM: what comes before, between and behind stays ONNX's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .graph import INPUT, KIND, MAKES, OUTPUT, READS, attribute, has_bodies, makers, named, nodes, part
from .parts import Opened, Part, _compiled
from .protobuf import strings

MOST_WEIGHTS = 2**11
"""Weights of a layer; ONNX Runtime's matrix products are faster at more, and at many rows."""

MOST_LAYERS = 2**10
"""The graph is cut at each of them, and looked through for each cut."""
MOST_UNITS = 2**31 - 1
"""Of a layer, of what kind ever."""

Network = Callable[[Sequence[str], dict[str, Any]], Sequence[Any]]
"""Names of outputs, and inputs by name -> those outputs."""


class Compiled(NamedTuple):
    run: Network
    views: dict[str, tuple[int, int]]
    """Names of drawn [S, 4H, K] that may be views, transposed, of arrays [S, K, 4H]; with the sizes K and 4H."""


def compiled(half: bytes, opened: Opened) -> Compiled | None:
    """What evaluates the half that computes; None where nothing is compiled, no LSTM is there, or a large one is."""
    view = memoryview(half)
    every = nodes(view)
    layers = [_Layer(node) for node in every if strings(node, KIND)[0] in ("BayesianLSTM", "BayesianLSTMLast")]
    large = any(math.prod(layer.sizes) > MOST_WEIGHTS for layer in layers)
    if _compiled is None or not 0 < len(layers) <= MOST_LAYERS or large or any(has_bodies(node) for node in every):
        return None
    inputs, outputs = named(view, INPUT), named(view, OUTPUT)
    known: list[str] = []  # tensors that are there when a stage begins, beside the inputs

    def part_for(wanted: Sequence[str]) -> Part | None:
        missing = [name for name in dict.fromkeys(wanted) if name not in known and name not in inputs]
        if not missing:
            return None
        model = part(view, makers(every, missing, given=known), known, missing)
        known.extend(missing)
        return Part(opened(model), missing)

    stages = []
    for layer in layers:
        stages.append((part_for(layer.reads), layer))
        known.extend(layer.makes)
    last = part_for(outputs)

    def run(fetches: Sequence[str], feeds: dict[str, Any]) -> Sequence[Any]:
        values = dict(feeds)
        for before, layer in stages:
            values |= before(values) if before else {}
            values |= layer(values)
        values |= last(values) if last else {}
        return [values[name] for name in fetches]

    return Compiled(run, {layer.reads[3]: layer.sizes for layer in layers})


class _Layer:
    """A BayesianLSTM, with the names of what it reads and makes."""

    def __init__(self, node: memoryview) -> None:
        self.reads, self.makes = strings(node, READS), strings(node, MAKES)
        self._shared = attribute(node, "shared")
        self._features, self._hidden = attribute(node, "inputs"), attribute(node, "hidden")
        if not (1 <= self._features <= MOST_UNITS and 1 <= self._hidden <= MOST_UNITS):
            raise ValueError(f"an LSTM has {self._features} inputs and {self._hidden} hidden units")
        self.sizes = self._features + self._hidden + 1, 4 * self._hidden

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        x, h, c = (np.ascontiguousarray(values[name]) for name in self.reads[:3])
        weight = values[self.reads[3]]
        if inputs_first := not weight.flags.c_contiguous:
            weight = np.ascontiguousarray(weight.transpose(0, 2, 1))  # no copy, where it is a view of what was drawn
        draws, steps, hidden = len(weight), x.shape[1], self._hidden
        rows = len(x) if self._shared else len(x) // draws
        whole = len(self.makes) > 2
        states = [np.empty((draws * rows, hidden), dtype=np.float32) for _ in range(2)]
        sequence = np.empty((draws * rows, steps, hidden) if whole else 0, dtype=np.float32)
        sizes = draws, rows, steps, self._features, hidden
        _compiled.lstm(sizes, x, h, c, weight, inputs_first, sequence, *states)
        return dict(zip(self.makes, (sequence, *states) if whole else states, strict=True))
