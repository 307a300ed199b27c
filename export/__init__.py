from .writer import to_onnx, to_torchscript, verify

__all__ = ["to_onnx", "to_torchscript", "verify"]
