"""Which inputs have a row for each of a batch, and which all rows share: an edge list, a mask, a table."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from torch import nn

from ..runtime.contract import Scaling
from ..runtime.errors import ExportError, InputError
from .arguments import Arguments, with_first_batch
from .montecarlo import Plan
from .notes import note
from .posterior import Posterior
from .reference import Reference
from .signature import Input


def find_shared(
    network: nn.Module,
    posteriors: dict[str, Posterior],
    plan: Plan,
    signature: tuple[Input, ...],
    arguments: Arguments,
) -> tuple[tuple[Input, ...], Arguments]:
    """The same inputs, with those marked that all rows must share for BLiTZ's network to take twice the rows.

    Raises InputError where inputs have different numbers of rows, and nothing tells which of them is the batch.
    """
    lengths = {one.name: len(one.example) for one in signature if not one.shared}
    if len(lengths) == 1:
        (shape,) = (tuple(one.example.shape) for one in signature if not one.shared)
        if len(shape) == 1 and not _takes_twice_the_rows(
            network, posteriors, replace(plan, arguments=arguments), signature
        ):
            raise InputError(
                f"example must be a batch [B, …] of rows, but has shape {shape}, and the network does not take twice "
                "as many rows of it. A single row needs a batch axis too: example[None]."
            )
        return signature, arguments
    for names in _candidates(lengths):
        marked = tuple(replace(one, shared=one.shared or one.name in names) for one in signature)
        ordered, called = with_first_batch(marked, arguments)
        if _takes_twice_the_rows(network, posteriors, replace(plan, arguments=called), ordered):
            if names:
                note(
                    f"All rows share the input{'s' * (len(names) > 1)} {', '.join(sorted(names))}, of shape "
                    f"{', '.join(str(tuple(one.example.shape)) for one in signature if one.name in names)}. Say so "
                    "with shared_inputs= to hear no more of it."
                )
            return ordered, called
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"Every input needs the same number of rows; example has {list(lengths.values())} of "
            f"{', '.join(lengths)}. Name those that all rows share, which are no batch [B, …], in shared_inputs=."
        )
    return signature, arguments  # what is wrong is found, and said, later


def _candidates(lengths: dict[str, int]) -> Iterator[Collection[str]]:
    """Inputs that may be shared, the likeliest first: none, where all have as many rows."""
    different = list(dict.fromkeys(lengths.values()))
    if len(different) > 1:
        for rows in different:
            yield [name for name, length in lengths.items() if length != rows]
        return
    yield []
    for name in reversed(lengths):
        yield [name]


def _takes_twice_the_rows(
    network: nn.Module, posteriors: dict[str, Posterior], plan: Plan, signature: tuple[Input, ...]
) -> bool:
    rows = 2 * len(signature[0].example)
    alone = replace(plan, scaling=Scaling(), noise=None, horizon=1)
    try:
        outputs = Reference(network, posteriors, alone).free([one.rows(rows) for one in signature], 1, seed=0)
    except ExportError:  # of what it returns
        raise
    except Exception:  # whatever the user's forward raises
        return False
    return all(y.shape[1:2] == (rows,) for y in outputs.values())
