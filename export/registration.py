"""The lines that teach murho a layer of the user's own, written for its very class."""

import re
from collections.abc import Collection
from typing import Any

from .samplers import samplers_of


def registration(layer: Any, drawn: Collection[str]) -> str:
    """A call of `register_layer` for the layer's class, to be completed with what its forward computes.

    `drawn` are the tensors that its forward pass was seen to draw; if there are none, it is written for all.
    """
    samplers = samplers_of(layer).items()
    cls = type(layer)
    shapes = {name: tuple(sampler.mu.shape) for name, sampler in samplers if name in drawn or not drawn}
    names = "".join(f'"{name}", ' for name in shapes)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    lines = ["from murho.export import register_layer"]
    if cls.__module__ != "__main__" and "<locals>" not in cls.__qualname__:
        lines.append(f"from {cls.__module__} import {cls.__qualname__.partition('.')[0]}")
    local = cls.__name__ if "<locals>" in cls.__qualname__ else cls.__qualname__
    lines += ["", f"@register_layer({local}, ({names.rstrip() if len(shapes) == 1 else names.rstrip(', ')}))"]
    lines.append(f"def {snake}(layer, weights, x):  # x [S, B, …]: S draws of B rows, or [1, B, …] for all draws alike")
    for name, shape in shapes.items():
        lines.append(f'    {name} = weights["{name}"]  # {["S", *shape]}'.replace("'", ""))
    if len(shapes.get("weight", ())) == 2 and set(shapes) <= {"weight", "bias"}:
        bias = " + bias.unsqueeze(1)" if "bias" in shapes else ""
        lines.append(f"    y = x @ weight.transpose(1, 2){bias}  # [S, B, {shapes['weight'][0]}]")
    else:
        lines.append("    y = ...")
    lines.append(f"    return y  # [S, B, …]: change y to what {cls.__name__}.forward computes of weights like these")
    return "\n".join(lines)
