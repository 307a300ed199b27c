"""Make the conformance folder: three artifacts, a program that shows the generator's words, and what all must answer.

    python tests/conformance/make.py [--json-only]

The expected values come from reference.py. With --json-only the artifacts stay as they are.
"""

import argparse
import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import reference
import torch
from onnx import TensorProto, helper
from reference import Site, Units
from torch import Tensor, nn

import murho.export
from murho import Noise, Scaling
from murho.export.generator import onnx_words, torch_words
from murho.models import Classifier, Forecaster
from murho.runtime.artifact import read, write
from murho.runtime.calibrated import with_calibration
from murho.runtime.contract import Calibration

FOLDER = Path(__file__).parent
TOLERANCE = 1e-5
SPACING = 1.2e-7
"""float32 keeps 24 bits: 2^-23 of a value is the spacing to the next."""
WRITERS = {".onnx": "to_onnx", ".pt": "to_torchscript", ".pt2": "to_pt2"}

STREAM, QUARTER = 3, 120
DRAWS = [*range(60), 1000, 2**31 - 1, 2**31, 2**32 - 1]
CALIBRATED = (0.5, 0.8, 0.95)
FACTORS = ((1.5, 1.25, 0.75, 1.0), (1.75, 1.5, 0.875, 0.9375), (2.0, 1.25, 1.125, 0.8125))
HORIZON, DEGREES = len(FACTORS[0]), 5


@dataclass(frozen=True)
class Subject:
    """An artifact of the folder, and how the reference computes its samples."""

    network: nn.Module
    example: np.ndarray
    options: dict[str, Any]
    samples: Callable[[np.ndarray, Sequence[int], int, float], np.ndarray]
    """(x [B, …], draws, seed, noise) -> [S, B, O]."""
    amplitude: Callable[[np.ndarray], float]
    """From samples [S, B, O] the size of what the network adds, in raw units, which float32 rounding is relative to."""
    factors: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Case:
    name: str
    artifact: str
    x: np.ndarray
    seed: int
    levels: tuple[float, ...]
    noise: int | None = None
    draws: list[int] = field(default_factory=lambda: DRAWS)


def lstm() -> Subject:
    """The tutorial's network, smaller, on values around 50."""
    network = spread(Forecaster(hidden=4), 1, 0.7)
    sites, (head,) = sites_of(network), plain_of(network)
    units = Units(50.0, 4.0, 50.0, 4.0)

    def forward(weights: reference.Weights, x: np.ndarray) -> np.ndarray:
        return reference.linear(reference.lstm_last(x, *weights[0]), *head)

    return Subject(
        network,
        series(np.random.default_rng(1), 16, 21),
        {"scaling": scaling_of(units), "task": "forecast"},
        lambda x, draws, seed, _: reference.samples(forward, sites, units, x, draws, seed),
        lambda samples: np.abs(samples - units.output_mean).max(),
    )


def convolution() -> Subject:
    """A small LeNet on 8 × 8 images of whole numbers from 0 to 16; probabilities of three classes."""
    sizes = {"size": 8, "classes": 3, "filters": (4,), "kernel": 3, "padding": 1, "hidden": (8,)}
    network = spread(Classifier(**sizes), 2, 0.3)
    sites = sites_of(network)
    units = Units(8.0, 8.0)

    def forward(weights: reference.Weights, x: np.ndarray) -> np.ndarray:
        one, two, three = weights
        x = reference.pooled(reference.relu(reference.convolution(x, *one, padding=1)))
        x = reference.relu(reference.linear(x.reshape(len(x), -1), *two))
        return reference.softmax(reference.linear(x, *three))

    return Subject(
        network,
        images(np.random.default_rng(2), 16),
        {"scaling": scaling_of(units), "task": "classification", "output_names": ("ring", "line", "dot")},
        lambda x, draws, seed, _: reference.samples(forward, sites, units, x, draws, seed),
        lambda samples: np.abs(samples).max(),
    )


def paths() -> Subject:
    """Four steps ahead from returns, with a Student-t noise that the network gives the scale of; calibrated."""
    network = spread(Forecaster(hidden=4, learned_noise=True), 3, 0.7)
    sites, (head,) = sites_of(network), plain_of(network)
    units = Units(0.0, 0.0625, 0.0, 0.03125, returns=True)

    def forward(weights: reference.Weights, x: np.ndarray) -> np.ndarray:
        return reference.linear(reference.lstm_last(x, *weights[0]), *head)

    def rolled(x: np.ndarray, draws: Sequence[int], seed: int, noise: float) -> np.ndarray:
        return reference.paths(forward, sites, units, x, draws, seed, HORIZON, DEGREES, noise)

    noise = Noise("student-t", DEGREES)
    return Subject(
        network,
        series(np.random.default_rng(3), 16, 8),
        {"scaling": scaling_of(units), "task": "forecast", "noise": noise, "horizon": HORIZON},
        rolled,
        lambda samples: np.ptp(samples, axis=0).max(),
        FACTORS,
    )


def spread(network: nn.Module, seed: int, size: float) -> nn.Module:
    """The network with a posterior wide enough for every random number to show: its means are of that size."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            if name.endswith("_rho"):
                parameter.uniform_(math.log(math.expm1(size / 5)), math.log(math.expm1(size)), generator=random)
            elif name.endswith("_mu") or "sampler" not in name:
                parameter.normal_(0, size, generator=random)
    return network


def sites_of(network: nn.Module) -> list[Site]:
    """μ and σ of the Bayesian layers, in the order of their calls, as the file holds them: σ rounded to float32."""
    sites = []
    for layer in network.modules():
        parts = [part for part in ("weight", "weight_ih", "weight_hh", "bias") if hasattr(layer, f"{part}_mu")]
        mu, rho = ([numpy(getattr(layer, f"{part}_{kind}")) for part in parts] for kind in ("mu", "rho"))
        if parts:
            sigma = tuple(np.log1p(np.exp(tensor)).astype(np.float32).astype(np.float64) for tensor in rho)
            sites.append(Site(tuple(mu), sigma))
    return sites


def plain_of(network: nn.Module) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(numpy(layer.weight), numpy(layer.bias)) for layer in network.modules() if type(layer) is nn.Linear]


def numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)


def scaling_of(units: Units) -> Scaling:
    values = "returns" if units.returns else "levels"
    return Scaling((units.input_mean,), (units.input_scale,), (units.output_mean,), (units.output_scale,), values)


def series(random: np.random.Generator, batch: int, steps: int) -> np.ndarray:
    """Windows [batch, steps, 1] of random walks around 50, in 64ths, which JSON and float32 hold exactly."""
    steps_taken = random.normal(0, 1.5, (batch, steps, 1)).cumsum(axis=1)
    return np.round((50 + steps_taken) * 64) / 64


def images(random: np.random.Generator, batch: int) -> np.ndarray:
    return random.integers(0, 17, (batch, 1, 8, 8)).astype(np.float64)


SUBJECTS = {"lstm": lstm, "convolution": convolution, "paths": paths}
_RANDOM = np.random.default_rng(4)
CASES = [
    # One row of the tutorial's window, so that hosts can time the tutorial's artifact on the same input.
    Case("lstm", "lstm", series(_RANDOM, 1, 21), 42, (0.5, 0.9)),
    # Another number of rows, steps and draws, and a seed that a double cannot hold.
    Case("lstm, other axes", "lstm", series(_RANDOM, 3, 5), -(2**53) - 1, (0.95,), draws=[7, 0, 2**32 - 1]),
    Case("convolution", "convolution", images(_RANDOM, 3), -42, (0.5, 0.9)),
    # A level that was calibrated, one between such, one beyond.
    Case("paths", "paths", series(_RANDOM, 2, 8), 2**62 + 3, (0.8, 0.9, 0.99), noise=1),
    Case("paths, mean", "paths", series(_RANDOM, 2, 8), 2**62 + 3, (0.8, 0.9, 0.99), noise=0),
]


def document(subjects: dict[str, Subject]) -> dict[str, Any]:
    """The content of conformance.json."""
    draws, seed = [0, 1, 17, 2**31, 2**32 - 1, 2**32 + 17], -(2**40) + 7
    words = reference.words(draws, seed, STREAM, QUARTER)
    return {
        "format": "murho.conformance",
        "schema": 1,
        "tolerance": TOLERANCE,
        "spacing": SPACING,
        "generator": {
            "seed": str(seed),
            "draws": draws,
            "stream": STREAM,
            "shape": list(words.shape),
            "words": words.ravel().tolist(),
        },
        "cases": [case_document(case, subjects[case.artifact]) for case in CASES],
    }


def case_document(case: Case, subject: Subject) -> dict[str, Any]:
    levels = np.array(case.levels, np.float32).astype(np.float64)  # as the artifact gets them
    samples = subject.samples(case.x, case.draws, case.seed, 0.0 if case.noise is None else case.noise)
    factors = subject.factors if case.noise != 0 else ()
    found = reference.summary(samples, levels, CALIBRATED if factors else (0.5,), factors)
    # The draws' mean and quantiles move by no more than the samples do, the std by no more than √(S / (S - 1)) times as
    # much. An end that is stretched by f from the median is (1 - f) medians and f ends.
    limit = TOLERANCE * subject.amplitude(samples) + SPACING * np.abs(samples).max()
    largest = max((factor for row in factors for factor in row), default=1.0)
    limits = {"std": limit * np.sqrt(len(samples) / (len(samples) - 1))}
    limits |= dict.fromkeys(("lower", "upper"), limit * max(1.0, 2 * largest - 1))
    return {
        "name": case.name,
        "artifact": case.artifact,
        "inputs": {"x": array(case.x)},
        "draws": case.draws,
        "seed": str(case.seed),
        "levels": list(case.levels),
        "noise": case.noise,
        "expected": {
            name: array(values) | {"limit": float(limits.get(name, limit))}
            for name, values in ({"samples": samples} | vars(found)).items()
        },
    }


def array(values: np.ndarray) -> dict[str, Any]:
    return {"shape": list(values.shape), "data": values.ravel().tolist()}


def export(name: str, subject: Subject) -> None:
    """Write the artifact in every format that murho has."""
    example = subject.example.astype(np.float32)
    for suffix, function in WRITERS.items():
        writer = getattr(murho.export, function, None)
        if writer is None:
            continue
        path = FOLDER / (name + suffix)
        writer(subject.network, path, example, levels=(0.9,), **subject.options)
        if subject.factors:
            write(with_calibration(read(path), Calibration(CALIBRATED, subject.factors, rows=0)), path)


class Words(nn.Module):
    """(draws int64 [S], seed int64) -> words int64 [S, 4, QUARTER], from the same function as an artifact's normals."""

    def forward(self, draws: Tensor, seed: Tensor) -> Tensor:
        x, y, z, w = torch_words(draws, seed, 3, 120)
        return torch.stack([x, y, z, w], dim=1).to(torch.int64) & 0xFFFFFFFF


def export_words() -> None:
    example = (torch.arange(5), torch.tensor(0))
    module = Words()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit")  # deprecated, and works
        torch.jit.script(module).save(str(FOLDER / "generator.pt"))
    program = torch.export.export(module, example, dynamic_shapes={"draws": {0: torch.export.Dim.DYNAMIC}, "seed": {}})
    torch.export.save(program, FOLDER / "generator.pt2")
    onnx.save(words_model(), FOLDER / "generator.onnx")


def words_model() -> onnx.ModelProto:
    info, n = helper.make_tensor_value_info, helper.make_tensor("n", TensorProto.INT64, [1], [4 * QUARTER])
    graph = helper.make_graph(
        [helper.make_node("Words", ["draws", "seed", "n"], ["words"], domain="murho", stream=STREAM)],
        "words",
        [info("draws", TensorProto.INT64, ["S"]), info("seed", TensorProto.INT64, [])],
        [info("words", TensorProto.INT64, ["S", 4, QUARTER])],
        [n],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("murho", 1)]
    function = onnx.parser.parse_function(onnx_words())
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json-only", action="store_true")
    subjects = {name: make() for name, make in SUBJECTS.items()}
    if not parser.parse_args().json_only:
        export_words()
        for name, subject in subjects.items():
            export(name, subject)
    (FOLDER / "conformance.json").write_text(json.dumps(document(subjects)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
