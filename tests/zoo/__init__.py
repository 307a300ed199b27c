"""Networks as people write them with BLiTZ, one pattern a file, and what murho does with each.

A file's docstring is its entry in docs/will-my-network-work.md: a title, an empty line, a few sentences on it.
The file defines `network()`, called after `torch.manual_seed(0)`, `example()`, what an export takes by that name, and

    GROUP         the section of the page
    INPUTS        the inputs as the card has them, "x [B, T, 3]": B any number of rows, T any length, 3 fixed
    OPTIONS       options of the export, where it needs any
    NOTES         parts of what the export says without refusing, one for each note, in any order
    SHOWN         functions or classes whose lines the page shows

and, where the network is refused,

    REFUSED       a part of the message; a dict where formats differ, {"TorchScript": "…"}
    MENDED        options with which it exports,
    mended()      or the network after the change that the message asks for, which does
    SHOWN_MENDED  what the page shows of that change

A network that needs nothing of these has none of them. `python benchmarks/zoo_page.py NAME` says what happens with one;
tests/test_zoo.py holds every file to what it says here, and the page to all of them.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

FORMATS = ("ONNX", "TorchScript", ".pt2")


@dataclass(frozen=True)
class Pattern:
    """One file of the zoo."""

    name: str
    title: str
    about: str
    group: str
    inputs: tuple[str, ...]
    network: Callable[[], nn.Module]
    example: Callable[[], Any]
    options: dict[str, Any]
    notes: tuple[str, ...]
    shown: tuple[Any, ...]
    refused: dict[str, str]
    """A part of the message of each format that refuses it."""
    mended: Callable[[], nn.Module] | None
    """The network that exports in place of a refused one; None where nothing does."""
    mended_options: dict[str, Any]
    shown_mended: tuple[Any, ...]


_NAMES = ("GROUP", "INPUTS", "OPTIONS", "NOTES", "SHOWN", "REFUSED", "MENDED", "SHOWN_MENDED")


def names() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def pattern(name: str) -> Pattern:
    module = importlib.import_module(f"{__name__}.{name}")
    constants = (key for key, value in vars(module).items() if key.isupper() and not isinstance(value, type))
    unknown = [key for key in constants if key not in (*_NAMES, "F")]
    if unknown:
        raise ValueError(f"{module.__file__}: the zoo knows no {', '.join(unknown)}.")
    title, _, about = (module.__doc__ or "").partition("\n\n")
    refused = _of(module, "REFUSED", {})
    mended = getattr(module, "mended", module.network if hasattr(module, "MENDED") else None)
    return Pattern(
        name=name,
        title=title.strip().rstrip("."),
        about=" ".join(about.split()),
        group=module.GROUP,
        inputs=module.INPUTS,
        network=_seeded(module.network),
        example=_seeded(module.example),
        options=_of(module, "OPTIONS", {}),
        notes=_of(module, "NOTES", ()),
        shown=_of(module, "SHOWN", ()),
        refused=refused if isinstance(refused, dict) else dict.fromkeys(FORMATS, refused),
        mended=_seeded(mended) if mended else None,
        mended_options=_of(module, "MENDED", {}),
        shown_mended=_of(module, "SHOWN_MENDED", ()),
    )


def fitted(
    network: Any, inputs: Any, targets: torch.Tensor, criterion: nn.Module, steps: int = 4, learning_rate: float = 0.01
) -> Any:
    """A network after a few steps of BLiTZ's own loop."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = network.sample_elbo(
            inputs=inputs, labels=targets, criterion=criterion, sample_nbr=1, complexity_cost_weight=1e-4
        )
        loss.backward()
        optimizer.step()
    return network


def _of(module: ModuleType, name: str, default: Any) -> Any:
    return getattr(module, name, default)


def _seeded(make: Callable[[], Any]) -> Callable[[], Any]:
    def made() -> Any:
        torch.manual_seed(0)
        return make()

    return made


__all__: Sequence[str] = ("FORMATS", "Pattern", "fitted", "names", "pattern")
