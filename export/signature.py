"""What an exported network takes: each input, its example, and which of its axes may have any length."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Input:
    """One argument of the network's forward that every call gives anew."""

    name: str
    example: Tensor
    """[B, …] in raw units, float32, or int64 for tokens."""
    free: Mapping[int, str] = field(default_factory=dict)
    """Axes beside the batch that have any length, and what they are called: axes of one name are equally long."""
    limit: int | None = None
    """How many different tokens there are, if an embedding reads them."""

    @property
    def is_float(self) -> bool:
        return self.example.is_floating_point()

    @property
    def dynamic_axes(self) -> dict[int, Any]:
        """The axes that torch.export must leave free."""
        return dict.fromkeys((0, *self.free), torch.export.Dim.DYNAMIC)

    @property
    def axes(self) -> tuple[str, ...]:
        """What the axes are called, the batch first."""
        usual = {2: ("feature",), 3: ("time", "feature"), 4: ("channel", "height", "width")}
        rest = usual.get(self.example.dim(), ()) if self.is_float else ()
        if not self.is_float and self.example.dim() == 2 and self.free:
            rest = ("time",)
        if not rest:
            rest = tuple(f"axis{axis}" for axis in range(1, self.example.dim()))
        return ("batch", *(self.free.get(axis, name) for axis, name in enumerate(rest, start=1)))

    def at(self, lengths: Mapping[str, int]) -> Tensor:
        """The example with its free axes at other lengths, by name: its values again and again, in turn."""
        x = self.example
        for axis, name in self.free.items():
            if name in lengths and lengths[name] != x.shape[axis]:
                x = x.index_select(axis, torch.arange(lengths[name]) % x.shape[axis])
        return x
