"""Put a calibration into an artifact: its factors become part of the graph, so that every host gets calibrated ends."""

from dataclasses import replace

from . import torchscript
from .artifact import Artifact, sealed_onnx, with_onnx_tensors
from .conformal import tables
from .contract import Calibration

LEVELS, FACTORS = "calibration_levels", "calibration_factors"
"""Names of the tensors that hold the factors, in both formats."""


def with_calibration(artifact: Artifact, calibration: Calibration) -> Artifact:
    """The artifact with other factors, card and digest. TorchScript needs torch for it."""
    card = replace(artifact.card, calibration=calibration)
    tensors = dict(zip((LEVELS, FACTORS), tables(calibration), strict=True))
    if artifact.format == "onnx":
        content = sealed_onnx(with_onnx_tensors(artifact.content, tensors), card)
    else:
        import torch

        module = torchscript.loaded(artifact.content, "cpu")
        for name, values in tensors.items():
            getattr(module, name).copy_(torch.from_numpy(values))
        content = torchscript.saved(module, card)
    return replace(artifact, card=card, content=content)
