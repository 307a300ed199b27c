"""What an exported network takes: each input, its example, and which of its axes may have any length."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Limit = int | tuple[int | None, ...] | None


@dataclass(frozen=True, eq=False)
class Input:
    """One argument of the network's forward that every call gives anew."""

    name: str
    example: Tensor
    """[B, …] in raw units, float32, int64 for tokens, or bool; without the batch where all rows share it."""
    shared: bool = False
    """Whether all rows of a batch share it."""
    free: Mapping[int, str] = field(default_factory=dict)
    """Axes beside the batch that have any length, and what they are called: axes of one name are equally long."""
    limit: Limit = None
    """How many different tokens there are, if an embedding reads them; or categories, of each column along the last
    axis."""

    @property
    def is_float(self) -> bool:
        return self.example.is_floating_point()

    @property
    def dynamic_axes(self) -> dict[int, Any]:
        """The axes that torch.export must leave free."""
        return dict.fromkeys(self.free if self.shared else (0, *self.free), torch.export.Dim.DYNAMIC)

    @property
    def axes(self) -> tuple[str, ...]:
        """What the axes are called, the batch first."""
        if self.shared:
            return tuple(self.free.get(axis, f"axis{axis}") for axis in range(self.example.dim()))
        usual = {2: ("feature",), 3: ("time", "feature"), 4: ("channel", "height", "width")}
        rest = usual.get(self.example.dim(), ()) if self.is_float or isinstance(self.limit, tuple) else ()
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

    def rows(self, count: int, lengths: Mapping[str, int] | None = None) -> Tensor:
        """The rows of the example again and again, until there are `count` of them; the whole of what rows share."""
        x = self.at(lengths or {})
        return x if self.shared else x[torch.arange(count) % len(x)]
