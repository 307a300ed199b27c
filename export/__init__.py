from .kinds import register_layer
from .writer import to_onnx, to_pt2, to_torchscript, verify

__all__ = ["register_layer", "to_onnx", "to_pt2", "to_torchscript", "verify"]
