"""Put a calibration into an artifact: its factors become part of the graph, so that every host gets calibrated ends."""

from dataclasses import replace

from . import pt2, torchscript
from .artifact import Artifact, sealed_onnx, with_onnx_tensors
from .conformal import tables
from .contract import Calibration

LEVELS, FACTORS = "calibration_levels", "calibration_factors"
"""Names of the tensors that hold the factors, in every format."""


def with_calibration(artifact: Artifact, calibration: Calibration) -> Artifact:
    """The artifact with other factors, card and digest. The formats of torch need torch for it."""
    card = replace(artifact.card, calibration=calibration)
    tensors = dict(zip((LEVELS, FACTORS), tables(calibration), strict=True))
    if artifact.format == "onnx":
        content = sealed_onnx(with_onnx_tensors(artifact.content, tensors), card)
    else:
        import torch

        values = {name: torch.from_numpy(array) for name, array in tensors.items()}
        if artifact.format == "torchscript":
            module = torchscript.loaded(artifact.content, "cpu")
            for name, tensor in values.items():
                getattr(module, name).copy_(tensor)
            content = torchscript.saved(module, card)
        else:
            program = pt2.loaded(artifact.content)
            for name, tensor in values.items():
                program.state_dict[name].copy_(tensor)
            content = pt2.saved(program, card)
    return replace(artifact, card=card, content=content)
