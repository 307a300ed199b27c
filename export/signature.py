"""What an exported network takes: each input, its example, and which of its axes may have any length."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Input:
    """One argument of the network's forward that every call gives anew."""

    name: str
    example: Tensor
    """[B, …] in raw units, float32, or int64 for tokens."""
    free: tuple[int, ...] = ()
    """Axes beside the batch that have any length."""
    limit: int | None = None
    """How many different tokens there are, if an embedding reads them."""

    @property
    def is_float(self) -> bool:
        return self.example.is_floating_point()

    @property
    def dynamic_axes(self) -> dict[int, Any]:
        """The axes that torch.export must leave free."""
        return dict.fromkeys((0, *self.free), torch.export.Dim.DYNAMIC)
