"""The property that every export must have: it says what BLiTZ says. Tried on random networks.

Run: python benchmarks/random_parity.py [--count 1000] [--processes 2] [--minutes 40] [--json study.json].
With --json, a study that was stopped (Ctrl-C, --minutes) goes on where it was. Exits with 1, and prints the network,
where a file differs or an export fails.
"""

import argparse
import itertools
import json
import math
import random
import re
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from blitz.modules.base_bayesian_module import BayesianModule
from hypothesis import HealthCheck, Phase, given, seed, settings
from random_networks import SIZES, Built, Spec, build, specs
from rich.progress import track
from studies import write_section
from torch import Tensor

import murho
from murho.export import proof, to_onnx, to_pt2, to_torchscript
from murho.export.generator import normals

EXPORTS = {"onnx": to_onnx, "torchscript": to_torchscript, "pt2": to_pt2}
SUFFIXES = {"onnx": "onnx", "torchscript": "pt", "pt2": "pt2"}
TURNS = (*(("onnx",), ("torchscript",)) * 9, ("pt2",))
"""The formats of one network, the next and so on: .pt2, which takes the most time, of every nineteenth."""
TOLERANCE = 1e-5  # float32 arithmetic in another order, relative to the largest value
MULTIPLE = 8  # of what BLiTZ's own float32 is off, where that allows more (docs/design.md, "The yardstick")
PASSES = 8  # of BLiTZ's float32, where one explains too little: the others with ε two units in the last place off
ROWS, DRAWS, SEED = (1, 2, 6), (2, 33), 2**40 + 77

REFUSALS: dict[str, str] = {
    "ExportError: On the example all draws give the same answer, in BLiTZ too": "no draw moves the output",
    "ExportError: σ is 0 for every weight of the network": "no weight is random",
}
"""Refusals that are documented, by the start of their message: why each is right."""


# The reference: BLiTZ's own forward pass in float64, with the generator's noise put in.


@dataclass
class Place:
    """Where a forward pass is: the draw, and the sites passed."""

    seed: int
    local: bool
    draw: int = 0
    site: int = 0
    local_sites: int = 0
    nudge: int = 0
    """Above 0, which neighbours of ε to take."""

    def noise(self, n: int) -> Tensor:
        self.site += 1
        noise = normals([self.draw], self.seed, self.site - 1, n)[0]
        if self.nudge:
            up = np.random.default_rng((self.nudge, self.draw, self.site)).random(n) < 0.5
            end = np.where(up, np.inf, -np.inf).astype(np.float32)
            noise = np.nextafter(np.nextafter(noise.astype(np.float32), end), end)
        return torch.from_numpy(noise)


def is_a(layer: Any, name: str) -> bool:
    """Whether a layer is one of BLiTZ's by name: its own, a subclass or a pasted one."""
    return any(cls.__name__ == name for cls in type(layer).__mro__)


def put_noise_in(layer: Any, place: Place) -> None:
    """Make a layer (for good) take its noise from `place`; a frozen layer computes with its samplers' μ."""
    frozen, no_bias, layer.freeze = layer.freeze, not getattr(layer, "use_bias", True), False
    recurrent, own_forward = hasattr(layer, "use_bias"), type(layer).forward
    if recurrent:
        layer.use_bias = True  # BLiTZ cannot sample without
    elif hasattr(layer, "bias") and not layer.bias:
        no_bias = True
    names = ["weight_ih", "weight_hh", "bias"] if recurrent else ["weight", "bias"]
    names = [
        name for name in names if hasattr(layer, f"{name}_sampler") and (recurrent or name != "bias" or layer.bias)
    ]

    def forward(x: Tensor, *rest: Any) -> Any:
        if place.local and not frozen and is_a(layer, "BayesianLinear") and x.dim() == 2:
            return local(x)
        samplers = {name: getattr(layer, f"{name}_sampler") for name in names}
        used = {name: torch.ones(sampler.mu.shape, dtype=torch.bool) for name, sampler in samplers.items()}
        if is_a(layer, "BayesianGRU"):
            hidden = layer.out_features
            used["weight_ih"][:, 3 * hidden :] = False
            used["weight_hh"][:, 2 * hidden : 3 * hidden] = False
        counts = [int(mask.sum()) for mask in used.values()]
        noise = torch.zeros(sum(counts)) if frozen else place.noise(sum(counts))
        for (name, sampler), part in zip(samplers.items(), noise.split(counts), strict=True):
            epsilon = torch.zeros(sampler.mu.shape).masked_scatter(used[name], part.to(sampler.mu.dtype))
            sampler.sigma = torch.log1p(torch.exp(sampler.rho))
            sampler.w = (sampler.mu + sampler.sigma * epsilon) * (0 if name == "bias" and no_bias else 1)
            sampler.sample = lambda w=sampler.w: w
        return own_forward(layer, x, *rest)

    def local(x: Tensor) -> Tensor:
        place.local_sites += 1
        spread = {name: torch.log1p(torch.exp(getattr(layer, f"{name}_sampler").rho)) for name in names}
        mean, variance = x @ layer.weight_sampler.mu.T, x**2 @ (spread["weight"] ** 2).T
        if "bias" in names:
            mean, variance = mean + layer.bias_sampler.mu, variance + spread["bias"] ** 2
        return mean + variance.sqrt() * place.noise(layer.out_features).to(x.dtype)

    layer.forward = forward


def blitz_samples(
    built: Built,
    inputs: dict[str, Tensor],
    draws: Any,
    seed: int,
    precision: torch.dtype = torch.float64,
    nudge: int = 0,
) -> tuple[list[Any], Place]:
    """BLiTZ's own samples [S, B, …] in raw units of each output, for raw inputs, computed in a precision."""
    network = build(built.spec).network.to(precision).eval()  # a fresh one: it is changed
    place = Place(seed, built.options.get("sampling") == "local", nudge=nudge)
    for module in list(network.modules()):
        if isinstance(module, BayesianModule):
            put_noise_in(module, place)
    arguments: dict[str, Any] = {k: v.to(precision) if v.is_floating_point() else v for k, v in inputs.items()}
    scaling = built.options.get("scaling", murho.Scaling())
    if "scaling" in built.options:
        arguments["x"] = (arguments["x"] - scaling.input_mean[0]) / scaling.input_scale[0]
    arguments |= built.constants
    passes = []
    with by_default(precision), torch.no_grad():
        for draw in draws:
            place.draw, place.site = int(draw), 0
            y = network(**arguments)
            if isinstance(y, dict):
                parts = list(y.values())
            elif isinstance(y, tuple):
                parts = [y[0], *y[1]] if built.spec.returns == "tuple" else [y[0]]
            else:
                parts = [y]
            if built.spec.classes == "logits":
                parts[0] = torch.softmax(parts[0], dim=-1)
            parts[0] = parts[0] * scaling.output_scale[0] + scaling.output_mean[0]
            passes.append([part.numpy() for part in parts])
    return [np.stack(samples) for samples in zip(*passes, strict=True)], place


def localised(built: Built) -> Built:
    """The same with outputs sampled in place of weights, if its spec says so and it has a layer for that."""
    local = replace(built, options={**built.options, "sampling": "local"}, features=(*built.features, "local"))
    wanted = built.spec.local and blitz_samples(local, built.inputs, [0], 0)[1].local_sites
    return local if wanted else built


class by_default:  # noqa: N801 - reads as a verb where it is used
    """BLiTZ makes the zeros of states and absent biases in torch's default dtype."""

    def __init__(self, precision: torch.dtype) -> None:
        self.precision = precision

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(self.precision)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)


# The property.


class MismatchError(AssertionError):
    """A file that says something else than BLiTZ."""


@dataclass(frozen=True)
class Result:
    error: float
    """Largest difference from BLiTZ, relative to the largest value of the output."""
    smallest_p: float
    """Of the tests that the export's own proof made."""


class Truth:
    """BLiTZ's samples in float64, and what its own float32 is off them, of each output's largest value."""

    def __init__(self, built: Built, inputs: dict[str, Tensor], draws: Any) -> None:
        self._arguments = built, inputs, draws, SEED
        self.samples = blitz_samples(*self._arguments)[0]
        self._passes = 0
        self._off = [0.0] * len(self.samples)

    def allows(self, number: int, error: float) -> bool:
        """Whether float32 explains an error of an output. The passes of BLiTZ's float32 are made when one asks."""
        while not error <= max(TOLERANCE, MULTIPLE * self._off[number]):
            if self._passes == PASSES or not math.isfinite(error):
                return False
            rough = blitz_samples(*self._arguments, torch.float32, self._passes)[0]
            for k, (got, want) in enumerate(zip(rough, self.samples, strict=True)):
                self._off[k] = max(self._off[k], float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)))
            self._passes += 1
        return True


def check(built: Built, formats: tuple[str, ...] = tuple(EXPORTS)) -> Result:
    """Export a network and compare the files with BLiTZ. Raises MismatchError, or what the export raises."""
    built = localised(built)
    probe = probed(built)
    draws = np.random.default_rng(3).integers(0, 2**32, max(DRAWS))
    want: dict[int, Truth] = {}
    error, smallest_p = 0.0, 1.0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for format in formats:
            path = Path(folder) / f"random.{SUFFIXES[format]}"
            card = EXPORTS[format](built.network, path, built.example, **built.options)
            smallest_p = min(smallest_p, card.verification["law"]["smallest_p"])
            error = max(error, compare(murho.load(path, threads=1, trusted=True), built, probe, draws, want))
    return Result(error, smallest_p)


def probed(built: Built) -> dict[str, Tensor]:
    """Inputs that the export has not seen: other rows, and what all rows share as it was."""
    generator = torch.Generator().manual_seed(7)

    def other(rows: Tensor) -> Tensor:
        rows = rows[torch.arange(max(ROWS)) % len(rows)]
        return rows + torch.randn(rows.shape, generator=generator) if rows.is_floating_point() else rows.flip(0)

    return {name: part if name == "shared" else other(part) for name, part in built.inputs.items()}


def cut(built: Built, inputs: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    """The first steps of a sequence, and of a mask for them."""
    short = {**inputs, "x": inputs["x"][:, :steps]}
    return {**short, "shared": inputs["shared"][:steps, :steps]} if built.spec.shared == "mask" else short


def compare(model: murho.Model, built: Built, probe: dict[str, Tensor], draws: Any, known: dict[int, Truth]) -> float:
    """The largest relative error of an artifact at several numbers of rows, draws and, where free, steps."""
    free = model.card.inputs[0].shape[1:2] == (None,)
    largest = 0.0
    for steps in (None, 2) if free else (None,):
        inputs = probe if steps is None else cut(built, probe, steps)
        if (steps or 0) not in known:
            known[steps or 0] = Truth(built, inputs, draws)
        truth = known[steps or 0]
        for batch in ROWS:
            for count in DRAWS:
                parts = {name: (v if name == "shared" else v[:batch]).numpy() for name, v in inputs.items()}
                given_inputs: Any = parts if len(parts) > 1 else parts["x"]
                answers = model.predict_all(given_inputs, draws[:count], seed=SEED)
                if len(answers) != len(truth.samples):
                    raise MismatchError(f"{len(answers)} outputs instead of {len(truth.samples)}")
                for k, ((name, answer), whole) in enumerate(zip(answers.items(), truth.samples, strict=True)):
                    got, want = answer.samples, whole[:count, :batch]
                    if got.shape != want.shape:
                        raise MismatchError(
                            f"{model.engine}, output {name!r}: shape {got.shape} instead of {want.shape}"
                        )
                    error = float(np.abs(got - want).max() / max(np.abs(whole).max(), 1e-30))
                    if not truth.allows(k, error):
                        raise MismatchError(
                            f"{model.engine}, output {name!r}, B={batch}, S={count}, T={steps}: {error:.2g}"
                        )
                    largest = max(largest, error)
    return largest


# The study.


def drawn(count: int, number: int = 0) -> list[Spec]:
    """So many different networks, of every form of input as many."""
    mixed = random.Random(number)
    share = math.ceil(count / len(SIZES))
    # More, then mixed: hypothesis begins with small ones and draws relatives in a row.
    specs_by_form = [mixed.sample(_collected(form, 3 * share, number), share) for form in SIZES]
    return [spec for turn in zip(*specs_by_form, strict=True) for spec in turn][:count]


def _collected(form: str, count: int, number: int) -> list[Spec]:
    found: dict[Spec, None] = {}
    while len(found) < count:

        @seed(number)
        @settings(max_examples=100, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(specs(form))
        def collect(spec: Spec) -> None:
            found[spec] = None

        collect()
        number += 1_000_003  # far from the next study's seed
    return list(found)


def try_one(spec: Spec, formats: tuple[str, ...], law_draws: int) -> dict[str, Any]:
    """What happened to one network, as plain JSON values."""
    torch.set_num_threads(1)
    began = perf_counter()
    row: dict[str, Any] = {"spec": repr(spec), "formats": list(formats), "outcome": "exported", "features": []}
    law, proof.law = proof.law, partial(proof.law, draws=law_draws)
    try:
        built = localised(build(spec))
        row["features"] = list(built.features)
        result = check(built, formats)
        row |= {"error": result.error, "smallest_p": result.smallest_p}
    except Exception as error:  # everything that goes wrong is a result of the study
        reason = why_refused(error)
        text = reason or f"{type(error).__name__}: {error}"
        row |= {"outcome": "refused" if reason else "failed", "reason": text}
    finally:
        proof.law = law
    return row | {"seconds": perf_counter() - began}


def why_refused(error: Exception) -> str | None:
    """Why an export is right to refuse, or None where it is not."""
    text = f"{type(error).__name__}: {error}"
    return next((why for start, why in REFUSALS.items() if re.search(start, text)), None)


def study(tasks: list[tuple[Spec, tuple[str, ...]]], processes: int, law_draws: int) -> Iterator[dict[str, Any]]:
    """Networks with their formats -> what happened to each, as it comes. Ctrl-C waits for those that are under way."""
    pool = ProcessPoolExecutor(processes, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))
    with pool:
        futures = [pool.submit(try_one, spec, formats, law_draws) for spec, formats in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    outcomes = Counter(row["outcome"] for row in results)
    return {
        "networks": len(results),
        "formats": dict(Counter(format for row in results for format in row["formats"])),
        **{outcome: outcomes[outcome] for outcome in ("exported", "refused", "failed")},
        "refusals": dict(Counter(row["reason"] for row in results if row["outcome"] == "refused")),
        "failures": [row["reason"] for row in results if row["outcome"] == "failed"],
        "largest_error": max((row["error"] for row in results if "error" in row), default=None),
        "smallest_p": min((row["smallest_p"] for row in results if "smallest_p" in row), default=None),
        "seconds_each": sum(row["seconds"] for row in results) / max(len(results), 1),
        "networks_with": dict(sorted(Counter(f for row in results for f in set(row["features"])).items())),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="networks")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--law-draws", type=int, default=300, help="BLiTZ's draws for the tests in law")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other networks")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further network after so many")
    parser.add_argument("--json", type=Path, help="write the results to this file as they come, and go on from it")
    parser.add_argument("--write", type=Path, help="put the result into this file")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    if arguments.json and arguments.json.exists():
        results = json.loads(arguments.json.read_text())["results"]
    done = {row["spec"] for row in results}
    turns = zip(drawn(arguments.count, arguments.seed), itertools.cycle(TURNS), strict=False)
    left = [(spec, formats) for spec, formats in turns if repr(spec) not in done]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = perf_counter()
    try:
        for row in track(study(left, arguments.processes, arguments.law_draws), "Networks", total=len(left)):
            results.append(row)
            if row["outcome"] == "failed":
                print(f"\n{row['reason']}\n{row['spec']}\n")
            if arguments.json:
                text = json.dumps({"summary": summary(results), "results": results}, indent=1)
                unfinished = arguments.json.with_suffix(".part")
                unfinished.write_text(text)
                unfinished.replace(arguments.json)
            if perf_counter() - began > 60 * arguments.minutes:
                print(f"\nStopped after {len(results)} networks.")
                break
    except KeyboardInterrupt:
        print(f"\nInterrupted after {len(results)} networks.")
    write_section(arguments.write, "Random networks", described(summary(results), arguments.law_draws))
    return int(any(row["outcome"] == "failed" for row in results))


def described(found: dict[str, Any], law_draws: int) -> str:
    counts = ", ".join(f"{feature} {count}" for feature, count in found["networks_with"].items())
    failed = "".join(f" ({reason})" for reason in found["failures"])
    refused = "".join(f"; {count} because {why}" for why, count in found["refusals"].items())
    return (
        f"`python benchmarks/random_parity.py`: {found['networks']} networks drawn at random, each exported to one "
        f"format ({', '.join(f'{name} {n}' for name, n in found['formats'].items())}) and compared with BLiTZ in "
        f"float64 at B = {ROWS}, S = {DRAWS}, and in law with {law_draws} draws: "
        f"{found['exported']} exported and equal, {found['failed']} failed{failed}, {found['refused']} refused"
        f"{refused}. Largest error {found['largest_error']:.1e} of the largest value (allowed {TOLERANCE:.0e}, "
        f"or {MULTIPLE} times what BLiTZ's own float32 is off), "
        f"smallest p {found['smallest_p']:.1e} of all tests in law.\n\nHow many networks have: {counts}."
    )


if __name__ == "__main__":
    raise SystemExit(main())
