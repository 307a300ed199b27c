"""Networks that a command is told of: a checkpoint of `murho train`, or `module:factory` for one of the user's own."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from .. import Card
from ..export.blame import Line, line_of
from ..runtime.errors import InputError
from ..train import load_checkpoint
from .examples import Asked, read_for

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def network_of(name: str) -> nn.Module:
    """The trained network in a checkpoint, or what `module:factory` names: a network, or a function that returns one.

    Of a tuple, as `murho check` takes it, the first. A module is looked for in the working directory too, and is run as
    any import runs it. Raises InputError for what is neither.
    """
    if is_checkpoint(name):
        return load_checkpoint(name).network()
    return found_at(name)[0]


def is_checkpoint(name: str) -> bool:
    return Path(name).is_file() or not _FACTORY.fullmatch(name)


def found_at(name: str) -> tuple[nn.Module, Any, dict[str, Any]]:
    """The network that `module:factory` names, and the example and options of an export that come with it, if any."""
    module, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise InputError(
                f"{name}: the module {module!r} needs {error.name!r}, which is not installed{_at(error)}."
            ) from None
        raise InputError(f"{name}: there is no module {module!r} here. Run the command beside {module}.py.") from None
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise InputError(f"{name}: importing {module!r} fails ({_said(error)}){_at(error)}.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InputError(f"{name}: there is no {part!r} in {module!r}.")
        found = getattr(found, part)
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        except (Exception, SystemExit) as error:  # whatever the user's function raises
            raise InputError(f"{name} fails ({_said(error)}){_at(error)}.") from error
    parts = found if isinstance(found, tuple) else (found,)
    network, example, options = (*parts, *(None, None, {})[len(parts) :])[:3]
    if not isinstance(network, nn.Module) or not isinstance(options, dict) or len(parts) > 3:
        raise InputError(
            f"{name} gives {_kinds(found)}; it must be the trained network, a torch module with its weights "
            "loaded, or a function without arguments that returns it, alone or with an example, (network, example), or "
            "with the options of to_onnx too, (network, example, {'task': 'classification'})."
        )
    return network, example, options


def _said(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _at(error: BaseException) -> str:
    """Where in the user's code, if that is known."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f", at {Line(error.filename, error.lineno)}"
    line = line_of(error)
    return f", at {line}" if line else ""


def _kinds(found: Any) -> str:
    return f"({', '.join(type(part).__name__ for part in found)})" if isinstance(found, tuple) else type(found).__name__


def example_of(card: Card, path: Path) -> Any:
    """Inputs for a proof from a file: an array [B, …] in `.npy`, arrays by the inputs' names in `.npz`, or a CSV file.

    In raw units. Raises InputError for a file that holds no such arrays.
    """
    if path.suffix not in (".npy", ".npz"):
        x, _ = read_for(card, path, Asked()).inputs()
        spread = np.linspace(0, len(x) - 1, min(32, len(x))).astype(int)
        return x[spread]
    found = arrays_in(path)
    if not isinstance(found, dict):
        return found
    if len(found) == 1 and len(card.inputs) == 1:
        return next(iter(found.values()))
    names = [array.name for array in card.inputs]
    if set(found) != set(names):
        raise InputError(f"{path} holds {', '.join(found)}; the network's inputs are {', '.join(names)}.")
    return tuple(found[name] for name in names)


def arrays_in(path: Path) -> Any:
    """The array in a `.npy` file, or those in a `.npz` file by name."""
    try:
        found = np.load(path, allow_pickle=False)
        if path.suffix == ".npy":
            return found
        with found:
            return {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise InputError(f"There is no file {str(path)!r}. Check the path.") from None
    except Exception as error:  # numpy raises nearly anything for a damaged file
        raise InputError(f"{path} cannot be read as numpy's arrays ({error}). Write it with numpy.save.") from None
