"""From a trained network to an artifact: read the posterior, fold, build the file, prove it, then put it in place."""

import datetime
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..runtime.artifact import read
from ..runtime.contract import Array, Card, Scaling, Site
from ..runtime.engines import open_engine
from ..runtime.errors import ExportError, InputError
from . import onnx_file, torchscript_file
from .functions import OPSET
from .layers import Kernels
from .montecarlo import MonteCarloNetwork, repeat_rows
from .posterior import bayesian_layers, posterior_sha256, read_posterior
from .proof import prove
from .reference import free_samples
from .subject import Subject, examine


def to_onnx(network: nn.Module, path: str | os.PathLike[str], example: ArrayLike | Tensor, **about: Any) -> Card:
    """Export a network trained with BLiTZ to one ONNX file (opset 18) that samples its weights inside.

    `network` is any torch module with BLiTZ layers whose forward takes x [B, …] and returns a float tensor [B, …], or
    (output, state). It is not changed. `example` is a batch [B, …] of typical inputs **in raw units**; its values serve
    the proof, its shape fixes every axis but the batch and, for sequences, time.

    Keyword arguments describe the artifact; all are optional:

    - `scaling`: a `murho.Scaling`, if the network was trained on standardised values; it goes inside the file, so that
      inputs and outputs are in raw units.
    - `name`, `task`, `input_names`, `input_unit`, `output_names`, `output_unit`: text for the card.
    - `draws`, `levels`, `seed`: what `predict` takes where its caller names none.
    - `training`: a summary of the training for the card (plain JSON values). Its entry "window" is the length of the
      windows that `predict` cuts from a DataFrame.

    The finished file is run and compared with BLiTZ before it is put in place: exactly with equal noise, in law with
    free noise, and for being alive. Returns its card, which holds the report.

    Raises ExportError, naming the layer, for a network that cannot be exported or a file that fails its proof; then no
    file is left, and one that was there before stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        return _export(network, path, example, "onnx", **about)


def to_torchscript(network: nn.Module, path: str | os.PathLike[str], example: ArrayLike | Tensor, **about: Any) -> Card:
    """The same as one TorchScript file, for CUDA and libtorch. Arguments, proof and errors as for `to_onnx`."""
    with torch.random.fork_rng(devices=[]):
        return _export(network, path, example, "torchscript", **about)


def verify(
    path: str | os.PathLike[str], network: nn.Module, example: ArrayLike | Tensor | None = None
) -> dict[str, Any]:
    """Repeat an artifact's proof against the network that it was made from, and return the report.

    `example` [B, …] in raw units gives the inputs; without it they are drawn around the artifact's input mean.
    Raises ExportError where the two differ, ArtifactError for a file that cannot be read.
    """
    artifact = read(path)
    x = _example_like(artifact.card) if example is None else _as_batch(example)
    posteriors = [read_posterior(name, layer) for name, layer in bayesian_layers(network).items()]
    digest = posterior_sha256(posteriors)
    if digest != artifact.card.posterior_sha256:
        raise ExportError(
            f"{path} was made from another posterior: its μ and σ have SHA-256 {artifact.card.posterior_sha256[:12]}…, "
            f"the network's {digest[:12]}…. Export the network again."
        )
    with torch.random.fork_rng(devices=[]):
        return prove(examine(network, x, artifact.card.scaling), open_engine(artifact, "cpu"))


def _export(
    network: nn.Module,
    path: str | os.PathLike[str],
    example: ArrayLike | Tensor,
    format: str,
    *,
    scaling: Scaling | None = None,
    name: str | None = None,
    task: str = "regression",
    input_names: Sequence[str] = (),
    input_unit: str = "",
    output_names: Sequence[str] = (),
    output_unit: str = "",
    draws: int = 256,
    levels: Sequence[float] = (0.95,),
    seed: int = 0,
    training: dict[str, Any] | None = None,
) -> Card:
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} does not exist. Make it first.")
    scaling = scaling or Scaling()
    x = _as_batch(example)
    subject = examine(network, x, scaling)
    shape, axes = _output_shape(subject)
    card = Card(
        name=name or path.stem,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={
            "murho": version("murho"),
            "torch": torch.__version__,
            "blitz": version("blitz-bayesian-pytorch"),
            "onnx_opset": str(OPSET),
        },
        task=task,
        input=_input_array(subject, tuple(input_names), input_unit),
        output=Array(axes, shape, "float32", tuple(output_names), output_unit),
        scaling=scaling,
        sites=tuple(
            Site(p.layer, p.kind, p.shapes, len(p.mu)) for p in (subject.posteriors[s.layer] for s in subject.sites)
        ),
        posterior_sha256=posterior_sha256(list(subject.posteriors.values())),
        draws=draws,
        levels=tuple(levels),
        seed=seed,
        training={**(training or {}), "dropout": "off"} if _has_dropout(network) else training or {},
    )
    write = _build(subject, format)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        write(card, temporary)
        card = Card(**{**vars(card), "verification": prove(subject, open_engine(read(temporary), "cpu"))})
        write(card, temporary)
        read(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return card


def _build(subject: Subject, format: str) -> Callable[[Card | None, Path], None]:
    """Build the file's content and return what writes it with a card."""

    def folded(kernels: Kernels) -> MonteCarloNetwork:
        return MonteCarloNetwork(
            subject.network, subject.posteriors, subject.scaling, kernels, subject.per_draw, subject.sites
        )

    x = repeat_rows(subject.example, 7)  # a number of rows that the proof does not use
    if subject.time_axis and x.shape[1] < 2:  # torch.export takes an axis of length 1 for a fixed one
        x = x.repeat(1, 2, 1)
    try:
        if format == "onnx":
            model = onnx_file.build(folded(onnx_file.custom_operators()), x, subject.time_axis)
            return lambda card, path: onnx_file.write(model, card, path)
        module = torchscript_file.build(folded(torchscript_file.scripted_kernels()), x)
        return lambda card, path: torchscript_file.write(module, card, path)
    except ExportError:
        raise
    except Exception as error:  # torch's tracers raise what they like
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"torch could not trace the network to {format} ({type(error).__name__}: {reason[0] if reason else ''}). "
            "A forward that branches on values, or turns a size into a number with int() or .item(), cannot be traced."
        ) from error


def _input_array(subject: Subject, names: tuple[str, ...], unit: str) -> Array:
    sizes: tuple[int, ...] = tuple(subject.example.shape)
    dtype = "float32" if subject.example.is_floating_point() else "int64"
    if len(sizes) == 3:
        return Array(
            ("batch", "time", "feature"), (None, None if subject.time_axis else sizes[1], sizes[2]), dtype, names, unit
        )
    if len(sizes) == 2:
        return Array(("batch", "feature"), (None, sizes[1]), dtype, names, unit)
    return Array(("batch", *(f"axis{k}" for k in range(1, len(sizes)))), (None, *sizes[1:]), dtype, names, unit)


def _output_shape(subject: Subject) -> tuple[tuple[int | None, ...], tuple[str, ...]]:
    """The output's shape [B, …] and axes: an axis is time if it grows with the input's time axis."""

    def shape(steps: int | None) -> tuple[int, ...]:
        return free_samples(subject.network, subject.scaled(subject.inputs(2, steps)), 1, seed=0).shape[1:]

    if not subject.time_axis:
        sizes = shape(None)
        longer = sizes
    else:
        steps = subject.example.shape[1]
        sizes, longer = shape(steps), shape(steps + 1)
    free = [a != b for a, b in zip(sizes, longer, strict=True)]
    names = ("time" if f else "output" if k == len(sizes) - 2 else f"axis{k + 1}" for k, f in enumerate(free[1:]))
    return (None, *(None if f else n for n, f in zip(sizes[1:], free[1:], strict=True))), ("batch", *names)


def _has_dropout(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.dropout._DropoutNd) for module in network.modules())


def _as_batch(example: ArrayLike | Tensor) -> Tensor:
    x = example.detach().cpu() if isinstance(example, Tensor) else torch.from_numpy(np.array(example))
    x = x.float() if x.is_floating_point() else x.long()
    if x.dim() < 2 or x.numel() == 0:
        raise InputError(
            f"example must be a batch [B, …] with at least one row and two axes, but has shape {tuple(x.shape)}."
        )
    if not torch.isfinite(x).all():
        raise InputError("example must be finite: it serves the proof of the exported file.")
    return x


def _example_like(card: Card) -> Tensor:
    sizes = [8, *(size or card.training.get("window", 16) for size in card.input.shape[1:])]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(sizes, generator=generator)
    return noise * torch.tensor(card.scaling.input_scale) + torch.tensor(card.scaling.input_mean)
