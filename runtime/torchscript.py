"""TorchScript files by torch, which is imported when one is opened: load, and save with a card."""

import io
import warnings
from typing import TYPE_CHECKING, Any

from . import torch_check
from .artifact import sealed_zip
from .contract import CARD_KEY, Card

if TYPE_CHECKING:
    import torch


def loaded(content: bytes, device: Any) -> "torch.jit.ScriptModule":
    import torch

    torch_check.check_torchscript(content)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit")  # deprecated, and works; what kind of warning depends on torch
        module: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(content), map_location=device)  # type: ignore[no-untyped-call]
    return module


def saved(module: "torch.jit.ScriptModule", card: Card) -> bytes:
    """The file of a module, its card an extra file of the archive."""
    import torch

    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, content, _extra_files={f"{CARD_KEY}.json": card.to_json()})
    return sealed_zip(content.getvalue())
