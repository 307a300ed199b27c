"""What murho does with each network of tests/zoo: exported to every format, compared with BLiTZ, and written as a page.

Run: python benchmarks/zoo_page.py [NAME …] [--write docs/will-my-network-work.md]. A network takes some five seconds of
one core. Exits with 1 where a network does something else than its file says.
"""

import argparse
import inspect
import itertools
import re
import sys
import tempfile
import textwrap
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

import murho
from murho.export import proof, to_onnx, to_pt2, to_torchscript
from murho.export.generator import normals
from murho.runtime.compare import MULTIPLE, TOLERANCE
from murho.runtime.contract import Card

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from zoo import Pattern, names, pattern

EXPORTS: dict[str, tuple[Callable[..., Card], str]] = {
    "ONNX": (to_onnx, "zoo.onnx"),
    "TorchScript": (to_torchscript, "zoo.pt"),
    ".pt2": (to_pt2, "zoo.pt2"),
}
# The tests in law are in full in tests/test_law.py. At equal noise all formats are compared, so all have one law.
LAW_DRAWS = {"ONNX": 100, "TorchScript": 10, ".pt2": 10}
ROWS, LONGER, DRAWS, SEED = (5, 1), (0, 2), (3, 2**31 + 5, 77), 2**40 + 13
NO_NOTES = ("still where BLiTZ starts it", "torch.jit")  # of nearly every network here, and of every TorchScript file
GROUPS = (
    "Tables",
    "Time series",
    "Images",
    "Text",
    "Graphs",
    "Agents",
    "Training",
    "How layers are kept",
    "What a forward may do",
)


class UnexpectedError(AssertionError):
    """A network that does something else than its file says."""


@dataclass(frozen=True)
class Seen:
    """What exporting a network showed."""

    inputs: tuple[str, ...]
    """As `Pattern.inputs`, the same in every format; none where all refused it."""
    notes: tuple[str, ...]
    """The same in every format."""
    refusals: dict[str, str]
    """What each format said that refused it."""
    error: float
    """The largest difference from BLiTZ in float64, relative to the output's largest value."""


# One network.


def checked(found: Pattern, formats: Sequence[str] = tuple(EXPORTS)) -> tuple[Seen, Seen | None]:
    """What happens with a network, and with the one that exports in its place if it is refused.

    What some format refuses is given to all, what exports to `formats` alone.
    Raises UnexpectedError where that is not what its file says.
    """
    asked = tuple(EXPORTS) if found.refused else formats
    seen = tried(found, found.network, found.options, asked)
    for format in asked:
        wanted, said = found.refused.get(format, ""), seen.refusals.get(format, "")
        if bool(wanted) != bool(said) or wanted not in said:
            expected = f"a refusal with {wanted!r}" if wanted else "an export"
            raise UnexpectedError(
                f"{found.name}, {format}: {expected} was expected, but there was {said or 'an export'}"
            )
    mended = None
    if found.mended:
        mended = tried(found, found.mended, {**found.options, **found.mended_options}, formats)
        if mended.refusals:
            raise UnexpectedError(f"{found.name}, mended: {mended.refusals}")
    for one in (seen, mended):
        if one and one.inputs not in ((), found.inputs):
            raise UnexpectedError(f"{found.name}: INPUTS is {found.inputs}, but the card says {one.inputs}")
    notes = mended.notes if mended else seen.notes
    unsaid = [note for note in notes if not any(part in note for part in found.notes)]
    missing = [part for part in found.notes if not any(part in note for note in notes)]
    if unsaid or missing:
        raise UnexpectedError(f"{found.name}: notes {unsaid} are not in NOTES, or {missing} was never said")
    return seen, mended


def tried(found: Pattern, make: Callable[[], nn.Module], options: dict[str, Any], formats: Sequence[str]) -> Seen:
    """Export a network and compare the files with BLiTZ. Raises UnexpectedError where formats differ in words."""
    network, example = make(), found.example()
    before = [module.training for module in network.modules()]
    refusals: dict[str, str] = {}
    said: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for format in formats:
            export, file = EXPORTS[format]
            with warnings.catch_warnings(record=True) as caught, law_of(LAW_DRAWS[format]):
                warnings.simplefilter("always")
                try:
                    card = export(network, Path(folder) / file, example, **options)
                except murho.MurhoError as error:
                    refusals[format] = anonymous(f"{type(error).__name__}: {error}")
                    continue
            notes = (anonymous(str(warning.message)) for warning in caught)
            unusual = tuple(note for note in notes if not any(usual in note for usual in NO_NOTES))
            said[format] = tuple(shown(array) for array in card.inputs), unusual
        if before != [module.training for module in network.modules()]:
            raise UnexpectedError(f"{found.name}: an export changed the network's mode")
        if len(set(said.values())) > 1:
            raise UnexpectedError(f"{found.name}: the formats differ: {said}")
        if not said:
            return Seen((), (), refusals, 0.0)
        models = {format: murho.load(Path(folder) / EXPORTS[format][1], threads=1, trusted=True) for format in said}
        error = compare(found, network, example, options, models)
    return Seen(*next(iter(said.values())), refusals, error)


@contextmanager
def law_of(draws: int) -> Iterator[None]:
    before = proof.law
    proof.law = partial(before.func if isinstance(before, partial) else before, draws=draws)
    try:
        yield
    finally:
        proof.law = before


def anonymous(text: str) -> str:
    """A message as it is on every machine: without the folder of the zoo, and measured numbers."""
    text = re.sub(r"[^\s'\"(]*\btests/zoo/", "", text)
    return re.sub(r"\b(by|allowed:|p =) [\d.]+(e[-+]\d+)?", r"\1 …", text)


def shown(array: Any) -> str:
    """An input of a card: "x [B, T, 3]"."""
    per_row = array.axes[:1] == ("batch",)
    sizes = ["T" if n is None else str(n) for n in array.shape[per_row:]]
    return f"{array.name} [{', '.join(['B'] * per_row + sizes)}]" + ("" if per_row else " for all rows")


# The comparison: BLiTZ's own forward in float64, with the generator's noise put in where the card says that it goes.
# Where BLiTZ's float32 is far from that, the file may be too: "The yardstick" in docs/design.md.


def compare(
    found: Pattern, network: nn.Module, example: Any, options: dict[str, Any], models: dict[str, murho.Model]
) -> float:
    """The largest relative error of the files, at other rows and lengths than the example's. `network` is changed."""
    card = next(iter(models.values())).card
    arguments = {**named(network, example), **options.get("constants", {})}
    per_row = {array.name for array in card.inputs if array.axes[:1] == ("batch",)}
    several = isinstance(example, dict | tuple)
    largest = 0.0
    for longer in LONGER if any(None in array.shape[1:] for array in card.inputs) else LONGER[:1]:
        given = probe(card, arguments, longer)
        want = reference(network, card, {**arguments, **given}, several, options)
        blitz = reference(network, card, {**arguments, **given}, several, options, torch.float32)
        for rows, (format, model) in itertools.product(ROWS, models.items()):
            arrays = {name: x[:rows].numpy() if name in per_row else x.numpy() for name, x in given.items()}
            single = len(arrays) == 1
            answers = model.predict_all(next(iter(arrays.values())) if single else arrays, list(DRAWS), seed=SEED)
            for (name, answer), exact, single_precision in zip(answers.items(), want, blitz, strict=True):
                got = answer.samples
                if got.shape != exact[:, :rows].shape:
                    raise UnexpectedError(f"{found.name}, {format}: {name} is {got.shape}, not {exact[:, :rows].shape}")
                error = float(np.abs(got - exact[:, :rows]).max() / np.abs(exact).max())
                own = float(np.abs(single_precision - exact).max() / np.abs(exact).max())
                if not error <= max(TOLERANCE, MULTIPLE * own):
                    raise UnexpectedError(f"{found.name}, {format}: {name} of {rows} rows is off by {error:.2g}")
                largest = max(largest, error)
    return largest


def named(network: nn.Module, example: Any) -> dict[str, Any]:
    """The arguments of an example by name, as the card names them."""
    if isinstance(example, dict):
        return dict(example)
    if not isinstance(example, tuple):
        return {"x": example}
    return dict(zip(inspect.signature(network.forward).parameters, example, strict=False))


def probe(card: Card, arguments: dict[str, Any], longer: int) -> dict[str, Tensor]:
    """Other inputs than the example's: as many rows as are asked at most, and longer where that is free."""
    generator = torch.Generator().manual_seed(longer)
    made = {}
    for array in card.inputs:
        x = torch.as_tensor(arguments[array.name])
        x = x.float() if x.is_floating_point() else x
        for axis, size in enumerate(array.shape):
            if axis == 0 and array.axes[:1] == ("batch",):
                x = x.flip(0)[torch.arange(max(ROWS)) % len(x)]
            elif size is None:
                x = x.index_select(axis, torch.arange(x.shape[axis] + longer) % x.shape[axis])
        if x.is_floating_point() and array.axes[:1] == ("batch",):
            x = x + 0.1 * torch.randn(x.shape, generator=generator)
        made[array.name] = x
    return made


def reference(
    network: nn.Module,
    card: Card,
    arguments: dict[str, Any],
    several: bool,
    options: dict[str, Any],
    dtype: torch.dtype = torch.float64,
) -> list[np.ndarray]:
    """BLiTZ's samples [S, B, …] of each output. The network is of this precision, in evaluation mode, afterwards."""
    network.to(dtype).eval()
    values = {name: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for name, v in arguments.items()}
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # BLiTZ, and many a forward, makes zeros in it
    passes = []
    try:
        with torch.no_grad():
            for draw in DRAWS:
                with noise_given(network, card, draw, dtype):
                    y = network(**values) if several else network(next(iter(values.values())))
                passes.append([part.double().numpy() for part in parts(y, options)])
    finally:
        torch.set_default_dtype(default)
    return [np.stack(samples) for samples in zip(*passes, strict=True)]


def parts(y: Any, options: dict[str, Any]) -> list[Tensor]:
    """What a network returned, as the outputs of its file."""
    outputs = list(y.values()) if isinstance(y, dict) else list(y) if isinstance(y, tuple | list) else [y]
    outputs = outputs[: len(options.get("outputs", ())) or (len(outputs) if isinstance(y, dict) else 1)]
    if options.get("task") == "classification":
        outputs[0] = torch.softmax(outputs[0], dim=-1)
    return outputs


@contextmanager
def noise_given(network: nn.Module, card: Card, draw: int, dtype: torch.dtype) -> Iterator[None]:
    """Every sampler of the network gives μ + σ ⊙ ε, ε being the generator's for this draw and the site at hand."""
    passed = 0
    handles = []

    def enter(layer: Any, _inputs: Any, name: str) -> None:
        nonlocal passed
        site = card.sites[passed]
        if site.layer != name:
            raise UnexpectedError(f"site {passed} is a call of {name!r}, but the card says {site.layer!r}")
        sizes = [int(np.prod(shape)) for shape in site.shapes.values()]
        noise = torch.from_numpy(normals([draw], SEED, passed, sum(sizes))[0]).to(dtype)
        for (tensor, shape), part in zip(site.shapes.items(), noise.split(sizes), strict=True):
            sampler = getattr(layer, f"{tensor}_sampler")
            sampler.sample = partial(sampled, sampler, placed(part.reshape(shape), sampler.mu.shape, tensor))
        passed += 1

    layers = dict(network.named_modules())
    for name in {site.layer for site in card.sites}:
        layer = layers[name]
        handles.append(layer.register_forward_pre_hook(partial(enter, name=name)))
        if type(layer).__name__ == "Flipout":
            layer.forward = types.MethodType(type(layer).__mro__[1].forward, layer)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if passed != len(card.sites):
        raise UnexpectedError(f"BLiTZ passed {passed} sites, but the card has {len(card.sites)}")


def sampled(sampler: Any, noise: Tensor) -> Tensor:
    sampler.sigma = nn.functional.softplus(sampler.rho)
    sampler.w = sampler.mu + sampler.sigma * noise
    return sampler.w


def placed(noise: Tensor, shape: torch.Size, tensor: str) -> Tensor:
    """ε in the sampler's own shape: a GRU has columns that it never reads, and that have none."""
    if noise.shape == shape:
        return noise
    whole, hidden = torch.zeros(shape, dtype=noise.dtype), shape[1] // 4
    read = torch.ones(shape, dtype=torch.bool)
    read[:, 3 * hidden :] = tensor == "weight_hh"
    if tensor == "weight_hh":
        read[:, 2 * hidden : 3 * hidden] = False
    whole[read] = noise.flatten()
    return whole


# The page.

HEAD = """# Will my network work?

Most networks that people write with BLiTZ export as they are. Ask about yours before you change anything:

```sh
murho check my_module:make_network --example rows.csv
```

This page shows {count} networks, written as people write them, and what happened when each was exported.
{plain} export as they are, or with an option that names what is wanted. The other {refused} are refused by at least one
format: beside each stands the message, and the change that it asks for, with which it exports.

`x [B, T, 3]` is an input of the file: any number of rows B, any number of steps T, three features. A number in place of
T is a length that is fixed to the example's. "exports" means to ONNX, TorchScript and .pt2, with equal answers: each
file was compared with BLiTZ's own forward in float64 at equal noise, at other numbers of rows, and of steps where they
are free, than it was made with.

The networks are [tests/zoo](../tests/zoo), and the page is written by
`python benchmarks/zoo_page.py --write docs/will-my-network-work.md`. A test holds it to what happens.
"""


def page(entries: dict[str, tuple[Pattern, Seen, Seen | None]]) -> str:
    """The page, of what was seen of each network by name."""
    refused = sum(bool(found.refused) for found, _, _ in entries.values())
    text = [HEAD.format(count=len(entries), plain=len(entries) - refused, refused=refused)]
    for group in GROUPS:
        members = [one for one in entries.values() if one[0].group == group]
        members.sort(key=lambda one: (bool(one[1].refusals), bool(one[1].notes), one[0].title.lower()))
        text += [f"## {group}", ""]
        text += ["| network | inputs | what happens |", "|---|---|---|", *(row(*one) for one in members), ""]
        text += [section for one in members if (section := details(*one))]
    return "\n".join(text).rstrip() + "\n"


def detailed(found: Pattern, seen: Seen, mended: Seen | None) -> bool:
    return bool(found.shown or seen.refusals or seen.notes)


def row(found: Pattern, seen: Seen, mended: Seen | None) -> str:
    """A network's line in the table of its group."""
    if not seen.refusals:
        happens = "exports, with a note" if seen.notes else "exports"
    else:
        taken = [format for format in EXPORTS if format not in seen.refusals]
        happens = f"exports to {' and '.join(taken)}; {' and '.join(seen.refusals)} " if taken else ""
        happens += "refused" + ", with a way out" * (found.mended is not None)
    title = f"[{found.title}](#{anchor(found.title)})" if detailed(found, seen, mended) else found.title
    about = "" if detailed(found, seen, mended) else f". {found.about}"
    inputs = ", ".join(f"`{one}`" for one in (seen.inputs or found.inputs))
    return f"| {title}{about} | {inputs} | {happens} |"


def details(found: Pattern, seen: Seen, mended: Seen | None) -> str:
    """A network's section; none where its line says it all."""
    if not detailed(found, seen, mended):
        return ""
    text = [f"### {found.title}", "", found.about, ""]
    text += code(found.shown)
    for said in dict.fromkeys(seen.refusals.values()):
        formats = [format for format, text in seen.refusals.items() if text == said]
        who = "" if len(formats) == len(EXPORTS) else f" by {' and '.join(formats)}"
        text += [f"Refused{who}:", "", *quoted(said), ""]
    if mended:
        options = ", ".join(f"{name}={value!r}" for name, value in found.mended_options.items())
        text += [f"With `{options}` it exports.", ""] if options else ["This exports:", "", *code(found.shown_mended)]
    for note in mended.notes if mended else seen.notes:
        text += ["The export notes:", "", *quoted(note), ""]
    return "\n".join(text)


def code(shown: Sequence[Any]) -> list[str]:
    if not shown:
        return []
    lines = "\n\n\n".join(textwrap.dedent(inspect.getsource(part)).strip() for part in shown)
    return ["```python", lines, "```", ""]


def quoted(text: str) -> list[str]:
    """A message; one with lines of code in it as it stands."""
    return [f"> {text}"] if "\n" not in text else ["```text", text, "```"]


def anchor(title: str) -> str:
    """The fragment that a heading gets where the page is shown."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def outcome(name: str, formats: Sequence[str]) -> tuple[Seen, Seen | None] | str:
    """What `checked` returns, or what went wrong in words."""
    torch.set_num_threads(1)
    try:
        return checked(pattern(name), formats)
    except Exception as error:  # whatever a file of the zoo does wrong
        return f"{type(error).__name__}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="files of tests/zoo; all where there are none")
    parser.add_argument("--formats", nargs="+", choices=EXPORTS, default=tuple(EXPORTS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path, help="write the page to this file")
    arguments = parser.parse_args()
    if arguments.write and arguments.names:
        parser.error("the page is of all networks")
    wanted = arguments.names or names()
    entries, failed = {}, 0
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        results = pool.map(outcome, wanted, itertools.repeat(arguments.formats))
        for name, seen in track(zip(wanted, results, strict=True), "Networks", total=len(wanted)):
            print(name, *([seen] if isinstance(seen, str) else seen), flush=True)
            if isinstance(seen, str):
                failed += 1
            else:
                entries[name] = pattern(name), *seen
    if arguments.write and not failed:
        arguments.write.write_text(page(entries), encoding="utf-8")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
