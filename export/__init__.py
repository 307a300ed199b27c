from ..runtime.errors import needs_extra

with needs_extra("murho.export", "train"):
    from .kinds import register_layer
    from .ort_file import required_operators, to_ort
    from .report import Report, check
    from .writer import to_onnx, to_pt2, to_torchscript, verify

__all__ = [
    "Report",
    "check",
    "register_layer",
    "required_operators",
    "to_onnx",
    "to_ort",
    "to_pt2",
    "to_torchscript",
    "verify",
]
