"""For small builds of ONNX Runtime: an artifact in its own format, `.ort`, and the list of operators to build.

Both are made by ONNX Runtime itself. Its minimal builds read no other format, and its reduced builds keep only what
the list names.
"""

import logging
import os
from pathlib import Path

import numpy as np
import onnxruntime

from ..runtime.artifact import Artifact, read
from ..runtime.checks import file_path
from ..runtime.compare import NETWORK_UNITS, TOLERANCE, Units, largest_value, raw_units, relative_error, tolerance_of
from ..runtime.contract import OUTPUTS
from ..runtime.errors import ArtifactError, ExportError, InputError
from ..runtime.files import scratch_folder, write_file
from ..runtime.typical import typical_inputs
from .proof import whole

_LEVELS = onnxruntime.GraphOptimizationLevel


def to_ort(artifact: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write an ONNX artifact in ONNX Runtime's format, a name that ends in `.ort`, and check that it says the same.

    The signature and the card stay as they are. The functions are laid out and what is constant is computed, so that
    the file is several times larger (a posterior stored in half is expanded in it), and it stays with what it is made
    of: calibrate before. `murho.load` reads the `.onnx` alone.

    Raises ArtifactError for a file that is not an ONNX artifact, InputError for another suffix or a place that cannot
    be written, and ExportError where ONNX Runtime cannot convert it or the converted file gives other numbers; then
    no file is left.
    """
    source, path = _onnx(artifact), file_path("path", path)
    if path.suffix != ".ort":
        raise InputError(f"The name of a file in ONNX Runtime's format ends in .ort, not {path.name}.")
    with scratch_folder() as folder:
        converted = _converted(source, folder, _LEVELS.ORT_ENABLE_ALL)
        _check(source, converted)
        write_file(path, converted.read_bytes())


def required_operators(artifact: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the list of operators that ONNX Runtime needs for an ONNX artifact, and for its `.ort` form.

    The format is the one that ONNX Runtime's build takes with `--include_ops_by_config`: the operators of the file's
    graph and functions, and those that the runtime's optimisations put in their place.

    Raises ArtifactError for a file that is not an ONNX artifact, ExportError where ONNX Runtime cannot read it, and
    InputError for a place that cannot be written.
    """
    from onnxruntime.tools.ort_format_model import create_config_from_models

    source, path = _onnx(artifact), file_path("path", path)
    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
    with scratch_folder() as folder:
        levels = (_LEVELS.ORT_DISABLE_ALL, _LEVELS.ORT_ENABLE_ALL)
        models = [_converted(source, folder, level) for level in levels]
        config = folder / "required_operators.config"
        create_config_from_models(models, config, enable_type_reduction=False)
        lines = [line for line in config.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    head = f"# Operators that {source.path.name} needs of ONNX Runtime {onnxruntime.__version__}"
    write_file(path, "\n".join([head, *lines, ""]).encode())


def _onnx(path: str | os.PathLike[str]) -> Artifact:
    artifact = read(file_path("artifact", path))
    if artifact.format != "onnx":
        raise ArtifactError(f"{path} is not an ONNX artifact. Export the network with to_onnx first.")
    return artifact


def _converted(source: Artifact, folder: Path, level: onnxruntime.GraphOptimizationLevel) -> Path:
    path = folder / f"{level.name}.ort"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 3
    try:
        # Not NCHWc: it would bind the file to this machine's vector instructions.
        onnxruntime.InferenceSession(
            source.content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} cannot convert {source.path}: {error}") from None
    return path


def _check(source: Artifact, converted: Path) -> None:
    """Compare every result of the two files for the same inputs, draws and seed."""
    card, before, after = source.card, whole(source.content, source.card), whole(converted.read_bytes(), source.card)
    calibration = card.calibration
    stretch = max((factor for row in calibration.factors for factor in row), default=1.0) if calibration else 1.0
    tolerance = tolerance_of(card, forms=2)
    stretched = tolerance if tolerance == TOLERANCE else tolerance * max(1.0, 2 * stretch)
    for rows, many in ((1, 2), (3, 32), (4, 17)):
        inputs, draws = typical_inputs(card, rows), np.arange(many, dtype=np.int64)
        scale, offset = raw_units(card.scaling, inputs[0])
        wanted, found = before(inputs, draws), after(inputs, draws)
        samples = largest_value(wanted[OUTPUTS[0]], scale, offset)
        for name, want in wanted.items():
            if name == OUTPUTS[0] or name not in OUTPUTS:
                units: Units = (scale, offset) if name in OUTPUTS else NETWORK_UNITS
                error, allowed = relative_error(found[name], want, units[0], units[1], tolerance=tolerance)
            else:
                # A sum over the draws may lose half a spacing at each, and calibration stretches what the ends lost.
                origin = np.zeros(1) if name == "std" else offset
                largest = max(samples, largest_value(want, scale, origin))
                roundings = round((2 + many) * max(1.0, 2 * stretch))
                error, allowed = relative_error(found[name], want, scale, origin, largest, roundings, stretched)
            if error > allowed:
                raise ExportError(
                    f"In ONNX Runtime's format {name} differs by {error:.2g} of the largest value (allowed: "
                    f"{allowed:.2g}): this version of ONNX Runtime computes otherwise in it. "
                    "Keep the .onnx file."
                )
