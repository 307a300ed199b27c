"""How far files are off BLiTZ in float64, in units of what BLiTZ's own float32 is off: the proof's multiple, measured.

Run: python benchmarks/yardstick.py [--count 20]. Networks that magnify float32's rounding are drawn at random, exported
to ONNX, and run by ONNX Runtime's nodes, by murho's compiled code and by torch; the proof's verdict is left out. Takes
some five seconds of a core for each of the five kinds of network and each of the count.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from blitz.modules import BayesianGRU, BayesianLinear, BayesianLSTM
from cases import Forward
from rich.progress import track
from torch import Tensor, nn

from murho.export import to_onnx, writer
from murho.export.generator import normals
from murho.export.montecarlo import PLAIN, MonteCarloNetwork
from murho.export.proof import _shapes
from murho.export.subject import Subject
from murho.export.yardstick import MOST_PASSES, SEED, Yardstick, names_of
from murho.runtime.artifact import read
from murho.runtime.compare import MULTIPLE, TOLERANCE, relative_error
from murho.runtime.engines import open_engine

WIDE = {"posterior_rho_init": -3.0}


def grown(layer: nn.Module, factor: float) -> nn.Module:
    """A layer with larger means."""
    for name, module in layer.named_modules():
        if name.endswith("_sampler"):
            module.mu.data *= factor
    return layer


def deep(random: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    width, factor = int(random.integers(16, 33)), random.uniform(5.5, 7.0)
    inner = [part for _ in range(10) for part in (grown(BayesianLinear(width, width, **WIDE), factor), nn.Tanh())]
    return nn.Sequential(BayesianLinear(8, width, **WIDE), *inner, BayesianLinear(width, 1, **WIDE)), (8,)


def wide(random: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    features, shift = int(random.integers(100, 1000)), random.uniform(10, 100)
    layers = {"first": BayesianLinear(features, 16, **WIDE), "head": BayesianLinear(16, 1, **WIDE)}
    return Forward(lambda net, x: net.head(torch.sin(net.first(x + shift))), **layers), (features,)


def front(random: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    features, factor = int(random.integers(16, 200)), 10 ** random.uniform(1, 3)
    one, other = nn.Linear(features, 16), nn.Linear(features, 16)
    other.load_state_dict(one.state_dict())
    layers = {"one": one, "other": other, "head": BayesianLinear(16, 1, **WIDE)}
    return Forward(lambda net, x: net.head(factor * (net.one(x) - net.other(x + 1e-3))), **layers), (features,)


def recurrent(cls: Any, factors: tuple[float, float]) -> Callable[..., tuple[nn.Module, tuple[int, ...]]]:
    def build(random: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
        layers = {"first": grown(cls(1, 16, **WIDE), random.uniform(*factors)), "head": BayesianLinear(16, 1, **WIDE)}
        return Forward(lambda net, x: net.head(net.first(x)[0][:, -1]), **layers), (100, 1)

    return build


KINDS = {
    "deep": deep,
    "wide sums": wide,
    "fixed front": front,
    "LSTM": recurrent(BayesianLSTM, (11, 14)),
    "GRU": recurrent(BayesianGRU, (13, 16)),
}


def ratios(kind: str, number: int, folder: Path) -> Iterator[tuple[str, float, float, float]]:
    """(form, its error, its ratio to the first pass of BLiTZ's float32, to the largest of all) of one network."""
    torch.manual_seed(number)
    network, sizes = KINDS[kind](np.random.default_rng(number))
    x = np.random.default_rng((number, 1)).standard_normal((5, *sizes), dtype=np.float32)
    subjects: list[Subject] = []

    def unproven(subject: Subject, _artifact: Any) -> dict[str, Any]:
        subjects.append(subject)
        return {}

    with patch.object(writer, "prove", unproven):
        to_onnx(network.eval(), folder / "a.onnx", x)
    (subject,) = subjects
    yardstick = Yardstick(subject, _shapes(subject))
    folded = MonteCarloNetwork(subject.network, subject.posteriors, subject.plan, PLAIN)
    engines = {
        name: open_engine(read(folder / "a.onnx"), "cpu", compiled=c) for name, c in (("nodes", False), ("C", True))
    }
    errors = dict.fromkeys((*engines, "torch"), 0.0)
    for case in yardstick.cases:
        names, (want,), (units,) = names_of(case.draws), case.want.values(), case.units.values()
        with torch.inference_mode():
            answers = {"torch": folded.samples(*case.inputs, torch.from_numpy(names), torch.tensor(SEED)).numpy()}
        for name, engine in engines.items():
            (answers[name],) = engine.samples(tuple(v.numpy() for v in case.inputs), names, SEED, observed=True)
        for name, got in answers.items():
            errors[name] = max(errors[name], relative_error(got, want, *units, yardstick.largest["output"])[0])
    first = yardstick.float32_error or 0.0
    while yardstick.refine():
        pass
    for form, error in errors.items():
        yield form, error, error / first, error / (yardstick.float32_error or 0.0)


def noise_units() -> dict[str, float]:
    """Root mean square errors of a weight's scatter σ ⊙ ε, in units of 2^-24 of σ: of BLiTZ's float32 and of ours."""
    n = 2**20
    exact = normals([0], SEED, 0, n)[0]
    rho = torch.linspace(-8, 2, n, dtype=torch.float64).float()
    sigma = torch.nn.functional.softplus(rho.double())
    theirs = torch.log1p(torch.exp(rho)) * torch.from_numpy(exact).float()
    noise = PLAIN.sample_weights(torch.tensor([0]), torch.tensor(SEED), torch.zeros(n), torch.ones(n), 0)[0]
    ours = sigma.float() * noise
    want = sigma * torch.from_numpy(exact)

    def units(got: Tensor) -> float:
        return float(((got.double() - want) / sigma).square().mean().sqrt()) * 2**24

    return {"BLiTZ": units(theirs), "ours": units(ours)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="networks of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scatter = noise_units()
    print(f"a weight's scatter, in 2^-24 of σ: BLiTZ {scatter['BLiTZ']:.2f}, ours {scatter['ours']:.2f}")
    rows = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in KINDS:
            for number in track(range(arguments.count), kind):
                rows += [(kind, *row) for row in ratios(kind, number, Path(folder))]
    for kind in (*KINDS, "all"):
        chosen = [row for row in rows if kind in ("all", row[0])]
        coarse = sum(row[2] > TOLERANCE for row in chosen)
        once, often = (np.array([row[k] for row in chosen]) for k in (3, 4))
        shown = [f"{np.quantile(ratio, q):.2f}" for ratio in (once, often) for q in (0.5, 0.99, 1.0)]
        print(
            f"{kind}: {len(chosen)} errors, {coarse} above {TOLERANCE:.0e}; to one pass of BLiTZ's float32: median "
            f"{shown[0]}, 99 % {shown[1]}, largest {shown[2]}, above {MULTIPLE:g} {np.mean(once > MULTIPLE):.1%}; to "
            f"the largest of {MOST_PASSES}: median {shown[3]}, 99 % {shown[4]}, largest {shown[5]}, above {MULTIPLE:g} "
            f"{np.mean(often > MULTIPLE):.1%}"
        )


if __name__ == "__main__":
    main()
