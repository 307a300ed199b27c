"""The Monte-Carlo network as a TorchScript file: traced, with the kernels as scripted functions inside.

Tracing follows the user's Python code; scripting the kernels keeps time, batch and draws dynamic.
"""

import functools
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ..runtime.artifact import DIGEST_LENGTH, zip_digest
from ..runtime.contract import CARD_KEY, Card
from . import kernels
from .layers import Kernels


@functools.cache
def scripted_kernels() -> Kernels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated in favour of torch.export, and works
        script = torch.jit.script
        return Kernels(script(kernels.linear), script(kernels.lstm), script(kernels.gru), script(kernels.summary))


def build(network: nn.Module, x: Tensor) -> torch.jit.ScriptModule:
    """Trace a MonteCarloNetwork made with `scripted_kernels()`; x [B ≥ 2, …]."""
    draws, seed, levels = torch.arange(5), torch.tensor(0), torch.tensor([0.5, 0.95])
    methods = {"forward": (x, draws, seed, levels), "samples": (x, draws, seed)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced: torch.jit.ScriptModule = torch.jit.trace_module(network, methods, check_trace=False)  # type: ignore[no-untyped-call]
        return traced


def write(module: torch.jit.ScriptModule, card: Card | None, path: Path) -> None:
    """Write the module, with its card as an extra file, and the digest over all of it as the archive's comment."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, path, _extra_files={} if card is None else {f"{CARD_KEY}.json": card.to_json()})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"0" * DIGEST_LENGTH
    content = path.read_bytes()
    path.write_bytes(content[:-DIGEST_LENGTH] + zip_digest(content).encode())
