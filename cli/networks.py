"""Networks that a command is told of: a checkpoint of `murho train`, or `module:factory` for one of the user's own."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from .. import Card
from ..runtime.errors import InputError
from ..train import load_checkpoint
from .examples import Asked, read_for

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def network_of(name: str) -> nn.Module:
    """The trained network in a checkpoint, or what `module:factory` names: a network, or a function that returns one.

    A module is looked for in the working directory too, and is run as any import runs it. Raises InputError for what is
    neither.
    """
    if Path(name).is_file() or not _FACTORY.fullmatch(name):
        return load_checkpoint(name).network()
    module, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise InputError(f"{name}: the module {module!r} needs {error.name!r}, which is not installed.") from None
        raise InputError(f"{name}: there is no module {module!r} here. Run the command beside {module}.py.") from None
    except Exception as error:  # whatever the user's module raises
        raise InputError(f"{name}: importing {module!r} fails ({type(error).__name__}: {error}).") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InputError(f"{name}: there is no {part!r} in {module!r}.")
        found = getattr(found, part)
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        except Exception as error:  # whatever the user's function raises
            raise InputError(f"{name} fails ({type(error).__name__}: {error}).") from error
    if not isinstance(found, nn.Module):
        raise InputError(
            f"{name} gives {type(found).__name__}; it must be the trained network, a torch module with its weights "
            "loaded, or a function without arguments that returns it."
        )
    return found


def example_of(card: Card, path: Path) -> Any:
    """Inputs for a proof from a file: an array [B, …] in `.npy`, arrays by the inputs' names in `.npz`, or a CSV file.

    In raw units. Raises InputError for a file that holds no such arrays.
    """
    if path.suffix not in (".npy", ".npz"):
        x, _ = read_for(card, path, Asked()).inputs()
        spread = np.linspace(0, len(x) - 1, min(32, len(x))).astype(int)
        return x[spread]
    try:
        found = np.load(path, allow_pickle=False)
        if path.suffix == ".npy":
            return found
        with found:
            arrays = {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise InputError(f"There is no file {str(path)!r}. Check the path.") from None
    except Exception as error:  # numpy raises nearly anything for a damaged file
        raise InputError(f"{path} cannot be read as numpy's arrays ({error}). Write it with numpy.save.") from None
    if len(arrays) == 1 and len(card.inputs) == 1:
        return next(iter(arrays.values()))
    names = [array.name for array in card.inputs]
    if set(arrays) != set(names):
        raise InputError(f"{path} holds {', '.join(arrays)}; the network's inputs are {', '.join(names)}.")
    return tuple(arrays[name] for name in names)
