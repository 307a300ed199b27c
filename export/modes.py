"""Training and evaluation mode: an artifact has a network's evaluation mode, and what that switches off is said."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from .notes import note

_NAMED = 5  # modules in a note; of more it says how many
_NOT_THE_USERS = ("torch.", "blitz.")
_SET_MODES = ("train", "eval")


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; afterwards every module is in the mode that it was in before."""
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        yield
    finally:
        network.train(modes[network])  # a train() of the user's own undoes what its eval() did
        for module, training in modes.items():
            module.training = training


def has_dropout(network: nn.Module) -> bool:
    return any(_drops(module) for module in network.modules())


def note_modes(network: nn.Module) -> None:
    """Say what evaluation mode switches off in a network, or a part of one, that is in training mode."""
    training = [(name, module) for name, module in network.named_modules() if module.training]
    found = {
        "dropout is off in": _drops,
        "random slopes are their mean in": lambda module: isinstance(module, nn.RReLU),
        "running statistics take the place of those at hand in": lambda module: (
            isinstance(module, _NormBase) and module.running_mean is not None
        ),
        "self.training is False in the code of": _asks_for_its_mode,
    }
    parts: list[str] = []
    for what, applies in found.items():
        if names := [name for name, module in training if applies(module)]:
            parts.append(f"{what} {_listed(names)}")
    if parts:
        note(
            f"{'The network is' if network.training else 'Parts of the network are'} in training mode; the artifact "
            f"has the evaluation mode: {'; '.join(parts)}. The network itself stays as it is. BLiTZ's layers sample "
            "in both modes. Call network.eval() before the export to see for yourself, and to leave this note out."
        )


def _drops(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return bool(module.p > 0)
    return isinstance(module, nn.RNNBase | nn.MultiheadAttention) and bool(module.dropout > 0)


def _asks_for_its_mode(module: nn.Module) -> bool:
    """Whether code of the user's own in a module reads `training`, as in F.dropout(x, training=self.training)."""
    own = [cls for cls in type(module).__mro__ if not f"{cls.__module__}.".startswith(_NOT_THE_USERS)]
    namespaces: list[dict[str, Any]] = [dict(vars(cls)) for cls in own if issubclass(cls, nn.Module)]
    functions = (
        value
        for names in (*namespaces, vars(module))
        for name, value in names.items()
        if isinstance(value, FunctionType) and name not in _SET_MODES
    )
    return any(_reads(function.__code__, "training") for function in functions)


def _reads(code: CodeType, attribute: str) -> bool:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return attribute in code.co_names or any(_reads(part, attribute) for part in inner)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) if name else "the network's own forward" for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
