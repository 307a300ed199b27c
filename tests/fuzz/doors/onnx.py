"""Damaged ONNX artifacts with a true digest."""

import functools
import os
import tempfile
from pathlib import Path

import mutations
import numpy as np
import onnx

import murho
from murho.runtime.typical import typical_inputs

ABOUT = (
    "an ONNX artifact, changed in its bytes, its fields or its graph, with its digest made anew: load, then predict."
)
CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance"
NAMES, SHARES = ("lstm", "convolution", "paths"), (0.9, 0.04, 0.06)  # the small one is opened in a fraction of the time


@functools.cache
def corpus() -> tuple[tuple[bytes, onnx.ModelProto], ...]:
    contents = [(CONFORMANCE / f"{name}.onnx").read_bytes() for name in NAMES]
    return tuple((content, onnx.load_from_string(content)) for content in contents)


@functools.cache
def path() -> Path:
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    return Path(folder, "model.onnx")


def trial(random: np.random.Generator) -> str:
    content, model = corpus()[random.choice(len(corpus()), p=SHARES)]
    if random.random() < 0.4:
        content = mutations.of_bytes(content, random)
    else:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        for _ in range(random.integers(1, 4)):
            mutations.of_message(changed, random)
        content = changed.SerializeToString()
    path().write_bytes(mutations.sealed_onnx(content))
    return through(path())


def through(path: Path) -> str:
    """Open and use an artifact: what is accepted must answer, finite and of the shape that the card says, or refuse."""
    try:
        model = murho.load(path, threads=1, measure=False)
    except murho.ArtifactError:
        return "refused"
    try:
        x = typical_inputs(model.card, 2)
        answer = model.predict(dict(zip((array.name for array in model.card.inputs), x, strict=True)), 8)
    except murho.ArtifactError:
        return "refused by predict"
    except murho.InputError:
        return "input refused"
    assert np.isfinite(answer.samples).all(), "samples are not finite"
    sizes = [8, 2, *model.card.output.shape[1:]]
    assert len(sizes) == answer.samples.ndim, "samples have another rank than the card says"
    assert all(b in (a, None) for a, b in zip(answer.samples.shape, sizes, strict=True)), "samples are mis-shaped"
    assert all(np.isfinite(part).all() for part in (answer.mean, answer.std, answer.lower, answer.upper))
    assert (answer.lower <= answer.upper).all(), "ends are crossed"
    return "accepted"
