"""Coded posteriors in an ONNX model: kept as halves and codes, expanded by two functions of domain "murho".

ONNX Runtime evaluates what depends on constants only when it loads a model, so that a call costs no more.
"""

from collections.abc import Iterable

import numpy as np
import onnx
import onnx.helper
import onnx.parser
from onnx.numpy_helper import from_array, to_array
from torch import Tensor

from .coding import Coded
from .functions import DOMAIN, OPSET

_MEANS = f"""
<opset_import: ["" : {OPSET}], domain: "{DOMAIN}">
CodedMu (halves, unit) => (mu)
{{
  wide = Cast<to = 1>(halves)
  mu = Mul(wide, unit)
}}
"""

_SPREADS = f"""
<opset_import: ["" : {OPSET}], domain: "{DOMAIN}">
CodedSigma (codes, base, step) => (sigma)
{{
  wide = Cast<to = 11>(codes)
  steps = Mul(wide, step)
  log = Add(steps, base)
  exact = Exp(log)
  spread = Cast<to = 1>(exact)
  positive = Cast<to = 9>(codes)
  zero = Constant<value = float {{0}}>()
  sigma = Where(positive, spread, zero)
}}
"""


def keep_coded(model: onnx.ModelProto, posteriors: Iterable[Coded]) -> None:
    """Replace every float32 initializer that holds one of these posteriors' μ or σ by its coded form.

    They are known by their values: the exporter shares one initializer among layers with equal ones.
    """
    forms = {}
    for coded in posteriors:
        mu, sigma = coded.expanded()
        unit, base, step = np.float32(coded.unit), np.float64(coded.base), np.float64(coded.step)
        forms[_key(mu)] = ("CodedMu", {"halves": coded.halves.numpy(), "unit": unit})
        forms[_key(sigma)] = ("CodedSigma", {"codes": coded.codes.numpy(), "base": base, "step": step})
    if not forms:
        return
    graph = model.graph
    nodes = []
    for tensor in list(graph.initializer):
        values = to_array(tensor)
        form = forms.get(values.tobytes()) if values.dtype == np.float32 else None
        if form is None:
            continue
        function, parts = form
        names = [f"{tensor.name}.{part}" for part in parts]
        graph.initializer.remove(tensor)
        graph.initializer.extend(from_array(np.asarray(p), n) for p, n in zip(parts.values(), names, strict=True))
        nodes.append(onnx.helper.make_node(function, names, [tensor.name], domain=DOMAIN))
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])
    model.functions.extend(onnx.parser.parse_function(text) for text in (_MEANS, _SPREADS))


def _key(values: Tensor) -> bytes:
    return values.numpy().tobytes()
