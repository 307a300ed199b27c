"""Why a network cannot be exported, in its author's terms: the line, the reason, and what to change."""

import contextlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..runtime.errors import ExportError
from .arguments import Arguments
from .blame import Line, line_of
from .frozen import FrozenSizeError, FrozenValueError
from .kinds import RECURRENT, is_layer
from .layers import RowsChangedError
from .reference import Reference
from .watch import ARRAYS, BRANCHES, NUMBERS, Step, caught, first_different, first_mixed, recorded

NAMES = {"onnx": "ONNX", "torchscript": "TorchScript", "pt2": "a program of torch.export"}
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")

Inputs = Callable[[int], Sequence[Tensor]]


class FormatError(ExportError):
    """What one format cannot hold; another one may."""


MIXED_ROWS = 3
AGAIN = 8  # calls of which one differs, of a network that is not repeatable

_ROW_AXIS = ("softmax", "log_softmax", "softmin", "cumsum", "cumprod", "cummax", "sort", "argsort", "flip", "roll")
_STATISTICS = ("mean", "std", "var", "sum", "max", "min", "amax", "amin", "median", "norm", "quantile", "prod")
_PRODUCTS = ("matmul", "__matmul__", "mm", "bmm", "einsum", "cdist", "__rmatmul__")


def fails_on_example(error: Exception, network: nn.Module, examples: Sequence[Tensor]) -> ExportError:
    """A network that raises an error on the example, as BLiTZ runs it."""
    line = line_of(error)
    source = line.source if line else ""
    where = str(line) if line else "The network"
    layer = _sharpened(error, network)
    if layer is not None:
        return ExportError(
            f"{f'{line}: ' if line else ''}Layer {layer!r} is called with sharpen_loss, which makes its weights depend "
            "on a loss. Leave it out of the call: sharpening belongs to training."
        )
    if re.search(r"\bcuda\b|\bmps\b|\bdevice\b|not compiled with", source + str(error)):
        return ExportError(
            f"{where} moves tensors to a device by its name ({_brief(error)}), but an artifact runs where its host "
            "does. Leave that out, or follow the input: torch.zeros(…, device=x.device), y.to(x.device)."
        )
    shapes = ", ".join(str(tuple(x.shape)) for x in examples)
    left = [name for name in _held(network) if re.search(rf"\\.{name.rpartition('.')[2]}\\b", source)]
    if left:
        return ExportError(f"{_keeps(network, left[0])} What it holds now does not fit the example, of shape {shapes}.")
    return ExportError(
        f"{where} fails on the example, of shape {shapes}, before murho touches it ({_brief(error)}). "
        "Pass an example that the network can read."
    )


def check_rows(reference: Reference, inputs: Inputs, rows: int) -> None:
    """Raise ExportError for a network that does not give an answer for each row, however many there are."""
    network = reference.network
    for count in (rows, rows + 1, 1):
        try:
            outputs = reference.free(inputs(count), 1, seed=0)
        except ExportError:
            raise
        except Exception as error:  # whatever the user's forward raises
            raise ExportError(_fixed_rows(error, count, rows)) from error
        for name, y in outputs.items():
            shape = list(y.shape[1:])
            if shape[:1] == [count]:
                continue
            if shape in ([], [1]) and count > 1:
                raise ExportError(
                    f"{_forward(network)} returns one number for all rows as {name!r}, as a loss or an average is. "
                    "murho needs an answer for each row of the batch: return the predictions [batch, …]."
                )
            squeezed = _step_named(reference, inputs(1), "squeeze")
            if count == 1 and squeezed is not None:
                raise ExportError(
                    f"{_where(squeezed)} also takes the batch's axis away where there is one row: {name!r} then has "
                    f"shape {shape}. Say which axis is meant: squeeze(-1)."
                )
            raise ExportError(
                f"{_forward(network)} returns {name!r} of shape {shape} for {count} rows. murho needs an answer for "
                "each row, along the first axis: [batch, …]. Move that axis there (transpose), or join what belongs "
                "to a row along another one (torch.cat(…, dim=-1))."
            )


def check_nothing_caught(reference: Reference, inputs: Inputs) -> None:
    """Raise ExportError for a forward that catches an error of torch's: no file can go another way.

    One that fails at the example's number of rows alone shows at another.
    """
    step = caught([steps for count in (1, MIXED_ROWS) for steps in _passes(reference, inputs(count), 1, False)])
    if step is not None:
        raise ExportError(
            f"{_where(step)} raises an error that the forward catches, to go another way; a file can go only one. Take "
            "the `try` out, and write the way that works for every number of rows."
        )


def cannot_fold(error: ExportError, reference: Reference, inputs: Inputs) -> ExportError:
    """Why the draws cannot be folded into the batch axis of a network that takes any number of rows."""
    about_rows = isinstance(error, RowsChangedError) or error.__cause__ is not None
    mixed = mixing(reference, inputs) if about_rows else None
    if mixed is not None:
        return ExportError(mixed)
    line = line_of(error)
    return ExportError(f"{line or _forward(reference.network)}: {error}")


def mixing(reference: Reference, inputs: Inputs) -> str | None:
    """What mixes the rows of a batch, in words; None where nothing does."""
    batches = [tuple(inputs(MIXED_ROWS)) for _ in range(MIXED_ROWS + 1)]
    for row, batch in enumerate(batches[1:]):
        for x, shared in zip(batch, reference.plan.arguments.shared, strict=True):
            if not shared:
                x[row] = x[row] + 1 + 2 * x.abs().max() if x.is_floating_point() else x[row - 1]
    try:
        step = first_mixed([_passes(reference, batch, 1)[0] for batch in batches])
    except Exception:  # it fails at this number of rows: another matter
        return None
    return None if step is None else _mixed(step, reference.network)


def _mixed(step: Step, network: nn.Module) -> str:
    module = network.get_submodule(step.module)
    start = f"{_where(step)} mixes the rows of a batch, so that the answer to a row depends on the rows beside it. "
    if getattr(module, "batch_first", True) is False:
        return start + (
            f"{type(module).__name__} {step.module!r} takes the first axis for time: make it with batch_first=True, "
            "or give it x.transpose(0, 1)."
        )
    if isinstance(module, RECURRENT):
        return start + (
            f"{type(module).__name__} {step.module!r} reads [batch, time, feature] and got another order of axes. "
            "Leave out the transpose or permute before it."
        )
    if step.name in _PRODUCTS:
        return start + "Let attention go over the steps of one row, or over its features: [batch, step, feature]."
    if step.name in _ROW_AXIS:
        return start + "Its axis 0 is the batch: use another one, dim=-1 say."
    if step.name in _STATISTICS:
        return start + (
            "Take such statistics from the training data, once, and keep them as buffers; or take them within a "
            "row, over dim=-1 say."
        )
    return start + "Let it work on each row by itself."


def cannot_trace(
    error: BaseException, culprit: str, format: str, steps: Sequence[Step]
) -> tuple[ExportError, BaseException | None]:
    """Why a tracer cannot follow a forward that runs well, and a cause if free lengths may be to blame.

    `steps` are those of a pass of the forward.
    """
    root = _root(error)
    if isinstance(root, FrozenSizeError):
        return ExportError(_takes_for_fixed(root)), error
    line = root.line if isinstance(root, FrozenValueError) else line_of(error)
    where = str(line) if line else culprit
    values = decided_by_values([line], steps) if line is not None else None
    if values is not None:
        return values, None
    operator = _OPERATOR.search(str(root))
    if operator:
        text = f"{where} needs the operator {operator[1]}, which torch cannot write to {NAMES[format]}."
        return FormatError(f"{text} Compute it in another way."), None
    return FormatError(f"{where} cannot be traced to {NAMES[format]} ({_brief(root)})."), error


def _takes_for_fixed(error: FrozenSizeError) -> str:
    if error.branch:
        return (
            f"{error.line} branches on a size that every call may change, the number of rows or of steps: Python would "
            "decide once, at the export. Decide by what the network is made with, or by values with torch.where."
        )
    return (
        f"{error.line} makes a number of a size that every call may change, the number of rows or of steps, which the "
        "file would keep as it was at the export. x.shape[0] is a whole number already: leave out int(); and work on "
        "all rows at once, not in a loop over them."
    )


def decided_by_values(lines: Sequence[Line], steps: Sequence[Step]) -> ExportError | None:
    """What is wrong with lines at which a tracer saw a decision, if one is by values and not by sizes."""
    for line in lines:
        names = {step.name for step in steps if step.line == line}
        text = frozen(line, names)
        if text is not None:
            return ExportError(text) if names.isdisjoint(ARRAYS) else FormatError(text)
    return None


def frozen(line: Line, names: set[str]) -> str | None:
    """What it means that a line takes values out of torch by these functions, in words."""
    if names & set(BRANCHES):
        if line.source.startswith("assert"):
            return (
                f"{line} looks at values, which a file cannot do for every draw and row. Take the assertion out of "
                "forward, and check the data before it is passed in."
            )
        return (
            f"{line} branches on values: Python would decide once, at the export, what must be decided for every draw "
            "and row. Choose between values with torch.where(condition, one, other)."
        )
    if re.search(r"\bprint\(", line.source):
        return f"{line} prints values, of which an export has none yet. Take the print out of forward."
    if names & set(ARRAYS):
        return (
            f"{line} leaves torch for numpy, where an export cannot follow. Use torch's own function, of the same name "
            "mostly: torch.tanh for np.tanh."
        )
    if names & set(NUMBERS):
        return (
            f"{line} turns a tensor's value into a number of Python's, which the file would keep as it was at the "
            "export. Leave it a tensor: without .item(), int(), float() or tolist()."
        )
    return None


def difference(reference: Reference, inputs: Inputs) -> str | None:
    """Why a network's answers may differ from those of a file of it, in words: it does what no file can."""
    return unrepeatable(reference, inputs(2)) or mixing(reference, inputs)


def unrepeatable(reference: Reference, inputs: Sequence[Tensor]) -> str | None:
    """Why a network gives another answer when it is called again with the same weights; None if it does not."""
    network = reference.network
    held: list[dict[str, Any]] = []
    handles = [
        network.register_forward_pre_hook(lambda *_: held.append(_held(network))),
        network.register_forward_hook(lambda *_: held.append(_held(network))),
    ]
    try:
        with recorded(network, Arguments.call) as passes:
            answers = reference.given(inputs, [0] * AGAIN, _no_epsilon, observed=False)
    finally:
        for handle in handles:
            handle.remove()
    if all((y == y[:1]).all() for y in answers.values()):
        return None
    kept = [name for name in held[1] if held[1][name] is not held[0].get(name)]
    if kept:
        return _keeps(network, kept[0])
    step = first_different([_outside_layers(steps, network) for steps in passes])
    return (
        f"{_where(step) if step else 'The network'} gives two answers for the same weights, in evaluation mode too: it "
        "draws random numbers beside BLiTZ's layers. An artifact could not repeat them. If it is dropout that is "
        "always on, write nn.Dropout(p) or F.dropout(x, p, training=self.training), which evaluation mode switches "
        "off; remove any other randomness."
    )


def _outside_layers(steps: Sequence[Step], network: nn.Module) -> list[Step]:
    return [step for step in steps if not is_layer(network.get_submodule(step.module))]


def _keeps(network: nn.Module, name: str) -> str:
    """What it means that a module keeps a tensor, of this dotted name, from call to call."""
    module, _, attribute = name.rpartition(".")
    line = _assignment(type(network.get_submodule(module)).forward, attribute)
    return (
        f"{line or 'The network'} keeps self.{attribute} from one call to the next, so that an answer depends on the "
        "call before, and on its number of rows. Begin each call afresh, and keep the state in a variable of forward. "
        "To go on from call to call give BLiTZ's recurrent layers no state, and export with streaming=True."
    )


def _held(network: nn.Module) -> dict[str, Any]:
    """The tensors that modules keep beside their parameters, by dotted name; Bayesian layers apart."""
    held = {}
    layers = {part for module in network.modules() if is_layer(module) for part in module.modules()}
    for name, module in network.named_modules():
        if module in layers or type(module).__module__.startswith(("blitz.", "torch.")):
            continue
        for attribute, value in (*vars(module).items(), *module._buffers.items()):
            parts = value if isinstance(value, tuple | list) else [value]
            if any(isinstance(part, Tensor) for part in parts):
                held[f"{name}.{attribute}"] = value
    return held


def _assignment(function: Any, attribute: str) -> Line | None:
    """Where a function assigns to an attribute of this name."""
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(function))
        file = inspect.getsourcefile(inspect.unwrap(function))
    except (OSError, TypeError):
        return None
    for number, text in enumerate(lines, first):
        if file and re.search(rf"\.{attribute}\b[^=]*=(?!=)", text):
            return Line(file, number)
    return None


def forward_steps(reference: Reference, inputs: Sequence[Tensor]) -> list[Step]:
    """What the network does, step by step, in one pass of BLiTZ's, as far as it comes."""
    with recorded(reference.network, Arguments.call, results=False) as passes, contextlib.suppress(Exception):
        reference.given(inputs, [0], _no_epsilon, observed=False)
    return passes[0] if passes else []


def _passes(reference: Reference, inputs: Sequence[Tensor], count: int, results: bool = True) -> list[list[Step]]:
    with recorded(reference.network, Arguments.call, results) as passes:
        reference.given(inputs, [0] * count, _no_epsilon, observed=False)
    return passes


def _no_epsilon(_draw: int, _stream: int, n: int) -> NDArray[np.float64]:
    return np.zeros(n)


def _step_named(reference: Reference, inputs: Sequence[Tensor], name: str) -> Step | None:
    return next((step for step in reversed(forward_steps(reference, inputs)) if step.name == name), None)


def _fixed_rows(error: Exception, count: int, rows: int) -> str:
    line = line_of(error)
    instead = f" in place of {rows}" if line and re.search(rf"\b{rows}\b", line.source) else ""
    return (
        f"{line or 'The network'} works with {rows} rows, as the example has, and fails with {count} "
        f"({_brief(error)}). Something has a fixed number of rows there, a size typed in or a tensor made before: "
        f"take the number from the input, x.shape[0]{instead}."
    )


def _forward(network: nn.Module) -> str:
    """Where a network's forward begins, in words."""
    code = getattr(inspect.unwrap(type(network).forward), "__code__", None)
    line = Line(code.co_filename, code.co_firstlineno) if code else None
    return f"{line.place}: forward" if line else "The network's forward"


def _where(step: Step) -> str:
    return str(step.line) if step.line else f"Module {step.module!r}" if step.module else "The network"


def _sharpened(error: BaseException, network: nn.Module) -> str | None:
    """The BLiTZ layer that was called with sharpen_loss when the error was raised."""
    traceback = error.__traceback__
    while traceback is not None:
        names = traceback.tb_frame.f_locals
        layer = names.get("self")
        if isinstance(layer, nn.Module) and is_layer(layer) and names.get("sharpen_loss") is not None:
            return next((name for name, module in network.named_modules() if module is layer), "")
        traceback = traceback.tb_next
    return None


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:  # torch wraps what went wrong in advice to its own users
        error = error.__cause__
    return error


def _brief(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
