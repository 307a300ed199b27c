"""The Monte-Carlo network as a TorchScript file: traced, with the kernels as scripted functions inside.

Tracing follows the user's Python code; scripting the kernels keeps time, batch and draws dynamic.
"""

import functools
import os
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ..runtime.artifact import DIGEST_LENGTH, zip_digest
from ..runtime.contract import CARD_KEY, Card
from ..runtime.errors import ExportError
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
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        traced: torch.jit.ScriptModule = torch.jit.trace_module(network, methods, check_trace=False)  # type: ignore[no-untyped-call]
    for warning in caught:
        by_user = not warning.filename.startswith(os.path.dirname(torch.__file__))
        if by_user and issubclass(warning.category, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            raise ExportError(
                f"A forward that branches on values cannot be traced: {warning.filename}:{warning.lineno} "
                f"({str(warning.message).partition('.')[0]}). Compute both sides and choose with torch.where."
            )
    return traced


def write(module: torch.jit.ScriptModule, card: Card | None, path: Path) -> None:
    """Write the module, with its card as an extra file, and the digest over all of it as the archive's comment."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, path, _extra_files={} if card is None else {f"{CARD_KEY}.json": card.to_json()})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".debug_pkl")}
    with zipfile.ZipFile(path, "w") as archive:  # without the sources and paths that torch keeps for its tracebacks
        for name, body in members.items():
            archive.writestr(name, body)
        archive.comment = b"0" * DIGEST_LENGTH
    content = path.read_bytes()
    path.write_bytes(content[:-DIGEST_LENGTH] + zip_digest(content).encode())
