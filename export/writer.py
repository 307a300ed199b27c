"""From a trained network to an artifact: read the posterior, fold, build the file, prove it, then put it in place."""

import contextlib
import datetime
import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from ..runtime import checks
from ..runtime.artifact import SUFFIXES, check_trust, read, with_card
from ..runtime.contract import STATE, Array, Card, Scaling, Site
from ..runtime.errors import ExportError, InputError, MurhoError
from ..runtime.files import check_writable, replacing
from ..runtime.inputs import described
from ..runtime.pt2 import saved as saved_pt2
from ..runtime.torchscript import saved as saved_torchscript
from ..runtime.typical import typical_inputs
from . import diagnosis, onnx_file, pt2_file, torchscript_file
from .arguments import check_constants, plain_constants
from .axes import Asked
from .blame import Blame
from .diagnosis import FormatError
from .freest import because_of_lengths, freest
from .frozen import FrozenSizeError, refusing_frozen_sizes
from .functions import OPSET
from .layers import Kernels
from .modes import has_dropout
from .montecarlo import MonteCarloNetwork, Plan, unfused_attention
from .notes import note
from .options import Options
from .posterior import posterior_sha256, warn_of_surprises
from .progress import Stages, stage
from .proof import prove
from .quiet import quiet_torch
from .recognition import read_posteriors
from .reference import one_thread
from .subject import Example, Subject, examine, uncompiled

MOST_MAGNIFIED = 0.01  # of the largest value, that float32 may be allowed to be off without a note
MOST_MOVED = 0.05  # of an interval's width, by which storage may move its ends without a warning
WRITERS = {"onnx": "to_onnx", "torchscript": "to_torchscript", "pt2": "to_pt2"}


def to_onnx(network: nn.Module, path: str | os.PathLike[str], example: Example, **options: Any) -> Card:
    """Export a network trained with BLiTZ to one ONNX file (opset 18) that samples its weights inside.

    `network` is any torch module with BLiTZ layers, or layers taught by `register_layer`, whose forward takes one or
    more tensors [B, …] and returns float tensors [B, …]. It is not changed. `example` is a batch [B, …] of typical
    inputs **in raw units**; its values serve the proof, its shape fixes every axis but the batch and, for sequences
    (float [B, T, F], tokens [B, T]), time. Where the network or the format reads time at one length alone, it is fixed
    too, with a note that says why and what to change. For a network with several inputs it is a tuple, or a dict by the
    names of forward's arguments; lists and dicts that forward takes as one argument stand in it as they are. Inputs
    are floats, whole numbers (tokens [B, T], categories [B, C], ids [B]) or masks of True and False. Where an
    embedding reads an input or a column of it, the card says how many tokens or categories there are, and hosts
    refuse others.

    Keyword arguments, all optional. What is computed:

    - `constants`: arguments of forward, by name, that are part of the file: numbers, text, flags, tensors. In an
      example too, what is no tensor (`task=0`, None, a list of ints) is a constant, with a note. The card names them.
    - `shared_inputs`: names of inputs that are no batch but shared by all rows: an edge list [2, E], a mask [T, T], a
      table. Where the network tells (it must take twice the rows of all others) they are found, with a note.
    - `scaling`: a `murho.Scaling`, if the network was trained on standardised values; it goes inside the file, so that
      the first input and the first output are in raw units.
    - `task`: "regression", "forecast", or "classification". A classification's logits become class probabilities
      inside the file, by a softmax along the last axis, unless the network returns probabilities already.
    - `outputs`: names for what the network returns. Of a tuple, as many of its tensors as are named are kept, in order
      (states inside it count one by one); without names an (output, state) pair is its output. Of a dict, the entries
      to keep; without names all.
    - `sampling`: "weights" draws every weight, as BLiTZ does. "local" draws the outputs of each BayesianLinear on
      [rows, features] in place of its weights (Kingma, Salimans & Welling 2015): the law of every single row is exactly
      the same, at a fraction of the cost. What is lost: the rows of a batch no longer have BLiTZ's joint law, so do not
      sum or compare rows draw by draw.
    - `noise`: a `murho.Noise`, the observation noise that every draw's prediction gets on top, so that an interval is
      one for the next observation and not for its mean. The network must return [B, O]; or, where the noise has no
      scale of its own, [B, 2·O], predictions and then scales.
    - `horizon`: above 1, the artifact goes that many steps: each draw's prediction, with its noise, becomes the next
      value of its window, the weights staying the same. The network must read windows [B, T, 1] and return [B, 1];
      samples are then whole paths [S, B, horizon].
    - `fixed`, `free`: axes that have the example's length, without a note, and axes that have any length that the
      network takes, or the export is an error: numbers of axes, `free=(2, 3)` for images [B, C, H, W] of any size, or a
      dict of them by input, `fixed={"future": 1}`. Rows are always free.
    - `streaming`: the artifact also takes and returns the states of its BayesianLSTM and BayesianGRU layers, so that
      each new row of a sequence costs one step in place of a whole window, see `murho.Model.stream`.
    - `storage`: "float32" keeps μ and σ of every weight as they are. "half" keeps μ in float16 and log σ in 8 bits,
      three bytes for eight; the file expands them when it is loaded. It samples from that rounded posterior, and so
      does BLiTZ in the proof; how far its samples and interval ends are from the trained network's stands in
      `card.verification["storage"]`. Weights that are not sampled (torch's own layers, frozen ones) stay as they are.
    - `flipout`: "refuse", or "plain" to export the posterior of BLiTZ's Flipout layers without Flipout.
    - `progress`: in a terminal, an export that takes more than two seconds shows the stage that it is at; False for
      never.

    What the card says: `name`; `input_names` and `output_names`, a name for each value along the last axis of the first
    input and output (of a classification, the classes), and `input_unit`, `output_unit`; `draws`, `levels`, `seed`,
    which `predict` takes where its caller names none; `training`, a summary as plain JSON values. Its entry "window" is
    the length of the windows that `predict` cuts from a DataFrame. With `training_rows`, the first input's rows [N, …]
    that the network was trained on, in raw units, it holds a fingerprint of them, hashes of 256 rows, so that
    `calibrate` refuses data that training saw; without it nothing can.

    A network wrapped by `torch.compile` is exported as the module that was compiled.

    The finished file is run and compared with BLiTZ before it is put in place: exactly with equal noise, in law with
    free noise, and for being alive. Returns its card, which holds the report.

    Raises ExportError, naming the layer or module, for a network that cannot be exported or a file that fails its
    proof; then no file is left, and one that was there before stays as it was. Raises InputError for arguments that are
    none, and for a `path` that does not end in ".onnx" (".pt" and ".pt2" belong to the two below).
    """
    with torch.random.fork_rng(devices=[]):
        return _export(network, path, example, "onnx", Options(**options))


def to_torchscript(network: nn.Module, path: str | os.PathLike[str], example: Example, **options: Any) -> Card:
    """The same as one TorchScript file, for CUDA and libtorch. Arguments, proof and errors as for `to_onnx`."""
    with torch.random.fork_rng(devices=[]):
        return _export(network, path, example, "torchscript", Options(**options))


def to_pt2(network: nn.Module, path: str | os.PathLike[str], example: Example, **options: Any) -> Card:
    """The same as one program of torch.export, `.pt2`, that torch alone reads: `torch.export.load(path).module()`.

    Its operators are torch's own: aten, and `torch.ops.higher_order.scan` for the steps of a recurrent layer.
    Arguments, proof and errors as for `to_onnx`.
    """
    with torch.random.fork_rng(devices=[]):
        return _export(network, path, example, "pt2", Options(**options))


def verify(
    path: str | os.PathLike[str],
    network: nn.Module,
    example: Example | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
    trusted: bool = False,
) -> dict[str, Any]:
    """Repeat an artifact's proof against the network that it was made from, and return the report.

    `example`, as for `to_onnx`, gives the inputs; without it they are drawn around the artifact's input mean, and
    passed by their names in the card where those are arguments of the network's forward. `constants` are those of the
    export, which the card holds unless they are tensors; an example may have them too.
    A format of torch is opened only if it is `trusted`, as by `murho.load`.
    Raises ExportError where the two differ, ArtifactError for a file that cannot be read or is not trusted.
    """
    artifact = read(checks.file_path("path", path))
    check_trust(artifact, checks.switch("trusted", trusted))
    card = artifact.card
    if card.weakness:
        raise ExportError(f"{path} cannot be compared with the network at equal noise. {card.weakness}")
    network = uncompiled(network)
    digest = posterior_sha256(read_posteriors(network, "plain", card.storage).values())
    if digest != card.posterior_sha256:
        raise ExportError(
            f"{path} was made from another posterior: its μ and σ have SHA-256 {card.posterior_sha256[:12]}…, "
            f"the network's {digest[:12]}…. Export the network again."
        )
    if example is None:
        example = as_forward_takes(network, card, typical_inputs(card, 8))
        constants = plain_constants(card) if constants is None else constants
    local = any(site.sampling == "local" for site in card.sites)
    names = tuple(array.name for array in card.outputs)
    plan = Plan(
        card.scaling,
        local,
        outputs=names,
        noise=card.noise,
        storage=card.storage,
        horizon=card.horizon,
        streaming=bool(card.states),
    )
    shared = [array.name for array in card.inputs if array.shared]
    with torch.random.fork_rng(devices=[]):
        subject = examine(
            network, example, plan, card.task, "plain", axes_of(card), constants=constants, shared_inputs=shared
        )
        check_constants(subject.plan.arguments, card)
    for one, array in zip(subject.signature, card.inputs, strict=True):
        shape = tuple(one.example.shape)
        same = len(shape) == len(array.shape)
        if not same or any(want not in (None, n) for n, want in zip(shape, array.shape, strict=True)):
            raise InputError(f"example must be [{described(array)}], as {path} reads {array.name}; it is {shape}.")
    with torch.random.fork_rng(devices=[]):
        return prove(subject, artifact)


def axes_of(card: Card) -> Asked:
    """What the card says of the inputs' axes, in their order."""
    free = {
        k: [axis for axis, n in enumerate(array.shape) if n is None and (axis or array.shared)]
        for k, array in enumerate(card.inputs)
    }
    fixed = {k: [axis for axis, n in enumerate(array.shape) if n is not None] for k, array in enumerate(card.inputs)}
    return Asked(free, fixed)


def as_forward_takes(network: nn.Module, card: Card, inputs: tuple[NDArray[Any], ...]) -> Example:
    """Inputs in the card's order as an example: by name where forward has these names, else by their places."""
    parameters = [p for p in inspect.signature(network.forward).parameters.values() if p.name not in card.constants]
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = next((p.name for p in parameters if p.default is p.empty), None)
    names = [array.name for array in card.inputs]
    if len(names) == 1 and (required != names[0]) and required is not None:
        return inputs[0]  # "x" is also what an input without a name is called
    if set(names) <= set(named) or any(p.kind == p.VAR_KEYWORD for p in parameters):
        return dict(zip(names, inputs, strict=True))
    if len(named) == len(parameters) == 1:  # a list or a dict of them
        if names == [f"{named[0]}{k}" for k in range(len(names))]:
            return [torch.from_numpy(x) for x in inputs]
        return dict(zip(names, inputs, strict=True))
    return inputs if len(inputs) > 1 else inputs[0]


def _export(
    network: nn.Module,
    file: str | os.PathLike[str],
    example: Example,
    format: str,
    options: Options,
) -> Card:
    file = checks.file_path("path", file)
    if file.suffix != SUFFIXES[format]:
        raise InputError(
            f"{WRITERS[format]} writes a name that ends in {SUFFIXES[format]}, not {file.name}. The others are "
            f"{', '.join(f'{WRITERS[other]} ({SUFFIXES[other]})' for other in WRITERS if other != format)}."
        )
    check_writable(file)  # before minutes of work
    with Stages(options.progress), one_thread():
        subject = subject_of(network, example, options)
        try:
            return write(subject, file, format, options)
        except FormatError as error:
            raise ExportError(f"{error} {_elsewhere(subject, format, options)}") from error


def _elsewhere(subject: Subject, format: str, options: Options) -> str:
    """Which other formats can hold a network that one cannot, found by trying."""
    works = []
    for other in (name for name in WRITERS if name != format):
        stage(f"Trying {other} in place of {format}")
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(MurhoError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the notes of a file that nobody gets
            write(subject, Path(folder) / f"tried{SUFFIXES[other]}", other, options)
            works.append(WRITERS[other])
    if not works:
        return "No other format holds it either: all were tried."
    return f"{' and '.join(works)} can export the network as it is: tried just now."


def subject_of(network: nn.Module, example: Example, options: Options) -> Subject:
    """What is to be exported, whatever the format. Raises ExportError with all that stands in the way."""
    stage("Reading the posterior, and running the network on the example")
    network = uncompiled(network)
    plan = Plan(
        options.scaling or Scaling(),
        options.sampling == "local",
        outputs=tuple(options.outputs),
        noise=options.noise,
        storage=options.storage,
        horizon=options.horizon,
        streaming=options.streaming,
    )
    subject = examine(
        network,
        example,
        plan,
        options.task,
        options.flipout,
        options.asked,
        constants=options.constants,
        shared_inputs=options.shared_inputs,
    )
    _note_fixed(subject)
    warn_of_surprises(subject.posteriors.values())
    return subject


def write(subject: Subject, file: Path, format: str, options: Options) -> Card:
    """Build one file, prove it, and put it in place; with as many free axes as the format allows."""
    known = len(subject.found.fixed)
    subject, card = freest(subject, lambda one: _written(one, file, format, options))
    _note_fixed(subject, known)
    exact = card.verification.get("exact", {})
    if exact.get("allowed", 0.0) > MOST_MAGNIFIED:
        note(
            f"The network magnifies what float32 rounds: in float32 BLiTZ's own answers are off float64 by up to "
            f"{exact['float32_error']:.1g} of the largest. So are the file's, and that both agree is proven to "
            f"{exact['allowed']:.1g} only. Smaller weights, shorter sequences, or inputs that lie around 0 help."
        )
    moved = card.verification.get("storage", {}).get("largest_end", 0.0)
    if moved > MOST_MOVED:
        note(
            f'storage="half" moves the ends of an interval by up to {moved:.0%} of its width: σ is small beside the '
            'rounding of μ. Use storage="float32".'
        )
    return card


def _note_fixed(subject: Subject, known: int = 0) -> None:
    """Say which axes were fixed, but for those that are known."""
    for fixed in subject.found.fixed[known:]:
        note(str(fixed))


def _written(subject: Subject, file: Path, format: str, options: Options) -> Card:
    """Build the file, prove it and put it in place. Raises LengthError where a free axis may be to blame."""
    card = _card(subject, options, options.name or file.stem)
    try:
        stage(f"Tracing the network to {format}")
        with quiet_torch(), unfused_attention():
            content = _build(subject, format)
    except ExportError as error:
        raise because_of_lengths(error, subject) from error
    stage("Writing the file")
    with replacing(file) as unproven:
        written = content(card)
        unproven.write_bytes(written)
        card = Card(**{**vars(card), "verification": prove(subject, read(unproven))})
        stage("Writing the file, with its proof")
        unproven.write_bytes(with_card(format, written, card))
        read(unproven)
    return card


def _card(subject: Subject, options: Options, name: str) -> Card:
    """What the artifact will say of itself, but for the proof's report."""
    training = options.with_fingerprint(subject.signature[0])
    return Card(
        name=name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={
            "murho": version("murho"),
            "torch": torch.__version__,
            "blitz": version("blitz-bayesian-pytorch"),
            "onnx_opset": str(OPSET),
        },
        task=options.task,
        inputs=_input_arrays(subject, tuple(options.input_names), options.input_unit),
        outputs=_output_arrays(subject, tuple(options.output_names), options.output_unit),
        scaling=subject.plan.scaling,
        sites=_sites(subject),
        posterior_sha256=posterior_sha256(subject.posteriors.values()),
        draws=options.draws,
        levels=tuple(options.levels),
        seed=options.seed,
        training={**training, "dropout": "off"} if has_dropout(subject.network) else training,
        noise=options.noise,
        horizon=options.horizon,
        states=_state_arrays(subject),
        constants=subject.plan.arguments.constants,
        storage=options.storage,
    )


def _build(subject: Subject, format: str) -> Callable[[Card], bytes]:
    """Trace the network, and return what makes the file's content with a card."""
    plan = subject.plan

    def folded(kernels: Kernels) -> MonteCarloNetwork:
        return MonteCarloNetwork(subject.network, subject.posteriors, subject.plan, kernels)

    signature = subject.signature
    first, *others = subject.lengths
    # torch.export takes an axis of length 1 for a fixed one.
    traced = {name: others[0][name] if n == 1 else n for name, n in first.items()}
    inputs = [one.rows(7, traced) for one in signature]  # a number of rows that the proof does not use
    kernels: dict[str, Callable[[], Kernels]] = {
        "onnx": onnx_file.custom_operators,
        "torchscript": torchscript_file.scripted_kernels,
        "pt2": pt2_file.scanning_kernels,
    }
    network = folded(kernels[format]())
    blame = Blame(network.network)
    try:
        if format == "onnx":
            with blame, refusing_frozen_sizes() as frozen:
                model = onnx_file.build(network, inputs, signature, plan.outputs, plan.noise is not None, plan.states)
            _refuse_branches(frozen)
            return lambda card: onnx_file.saved(model, card)
        if format == "pt2":
            with blame, refusing_frozen_sizes() as frozen:
                program = pt2_file.build(network, inputs, signature, plan.noise is not None, plan.states)
            _refuse_branches(frozen)
            return lambda card: saved_pt2(program, card)
        with blame:
            sizes = [(4, traced), *((4, {**traced, **lengths}) for lengths in others)]
            elsewhere = [[one.rows(rows, lengths) for one in signature] for rows, lengths in sizes]
            module = torchscript_file.build(network, inputs, elsewhere, plan.noise is not None, plan.states)
        return lambda card: saved_torchscript(module, card)
    except ExportError:
        raise
    except Exception as error:  # torch's tracers raise what they like
        steps = diagnosis.forward_steps(subject.reference, subject.examples)
        reason, cause = diagnosis.cannot_trace(error, blame.culprit, format, steps)
        raise reason from cause


def _refuse_branches(frozen: Sequence[FrozenSizeError]) -> None:
    """Raise what an exporter caught when it went on with the branch of the example's size."""
    for error in frozen:
        if error.branch:
            raise error


def _input_arrays(subject: Subject, names: tuple[str, ...], unit: str) -> tuple[Array, ...]:
    arrays = []
    for k, one in enumerate(subject.signature):
        sizes = [None if axis in one.dynamic_axes else size for axis, size in enumerate(one.example.shape)]
        dtype = str(one.example.dtype).removeprefix("torch.")
        about = (names, unit) if k == 0 else ((), "")
        if k == 0:
            _check_names("input_names", names, one.name, sizes[-1] if len(sizes) > 1 else 1)
        arrays.append(Array(one.name, one.axes, tuple(sizes), dtype, *about, limit=one.limit))
    return tuple(arrays)


def _output_arrays(subject: Subject, names: tuple[str, ...], unit: str) -> tuple[Array, ...]:
    """The outputs' shapes [B, …] and axes: an axis is called time if it grows with the inputs' time axis."""
    sizes = {name: y.shape[1:] for name, y in subject.outputs.items()}
    longer = sizes
    if len(subject.lengths) > 1:
        inputs = subject.inputs(len(subject.examples[0]), subject.lengths[1])
        longer = {name: y.shape[1:] for name, y in subject.reference.free(inputs, 1, seed=0).items()}
    called = "time" if any("time" in name for name in subject.lengths[0]) else "any"
    arrays = []
    for k, (name, shape) in enumerate(sizes.items()):
        free = [a != b for a, b in zip(shape, longer[name], strict=True)]
        last = "class" if k == 0 and subject.plan.softmax else "output"
        axes = (called if f else last if i == len(shape) - 2 else f"axis{i + 1}" for i, f in enumerate(free[1:]))
        fixed = (None if f else n for n, f in zip(shape[1:], free[1:], strict=True))
        about = (names, unit) if k == 0 else ((), "")
        array = Array(name, ("batch", *axes), (None, *fixed), "float32", *about)
        if k == 0:
            _check_names("output_names", names, name, array.shape[-1])
        arrays.append(array)
    return tuple(arrays)


def _check_names(argument: str, names: tuple[str, ...], array: str, size: int | None) -> None:
    """Names along the last axis must be as many as it is long."""
    if names and len(names) != size:
        length = "has any length" if size is None else f"is {size} long"
        raise InputError(
            f"{argument} must name each value along the last axis of {array}, which {length}, but are {len(names)}: "
            f"{', '.join(names)}."
        )


def _state_arrays(subject: Subject) -> tuple[Array, ...]:
    axes = ("draw", "batch", "unit")
    return tuple(Array(f"{STATE}{k}", axes, (None, None, width)) for k, width in enumerate(subject.plan.states))


def _sites(subject: Subject) -> tuple[Site, ...]:
    sites = []
    for record, n in zip(subject.plan.sites or (), subject.site_sizes, strict=True):
        posterior = subject.posteriors[record.layer]
        sites.append(
            Site(
                layer=posterior.layer,
                kind=posterior.kind.name,
                shapes=posterior.shapes,
                n=n,
                sampling="local" if record.local else "weights",
                relative_sigma=posterior.relative_sigma,
                trained=posterior.trained,
                elements=record.elements,
            )
        )
    return tuple(sites)
