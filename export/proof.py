"""The proof that a finished file says what BLiTZ says: exactly for equal noise, in law for free noise, and alive."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor, nn

from ..runtime.engines import Engine
from ..runtime.errors import ExportError, MurhoError
from .generator import normals
from .montecarlo import PLAIN, MonteCarloNetwork
from .reference import free_samples, generator_noise, given_samples
from .subject import Subject

TOLERANCE = 1e-5  # of the largest value: float32 arithmetic in another order
LAW_DRAWS = 1000
LAW_VALUES = 20
LAW_LEVEL = 1e-6  # an export fails by chance once in a million; σ off by a third is far beyond
SEED = 20240229


def prove(subject: Subject, engine: Engine) -> dict[str, Any]:
    """Compare a finished file with BLiTZ and return the report. Raises ExportError where they differ."""
    try:
        report = {"exact": _exact(subject, engine), "law": law(subject, engine), "alive": _alive(subject, engine)}
    except MurhoError:
        raise
    except Exception as error:  # the user's forward, or the file, fails at a size that the example did not have
        raise ExportError(
            f"The network or the exported file fails at another number of rows, steps or draws than the example's "
            f"({type(error).__name__}: {str(error).strip()[:300]}). Its forward must treat rows independently, and "
            "take every size that may change from its input."
        ) from error
    return {"passed": True, "engine": engine.name, **report}


def relative_error(got: NDArray[Any], raw: NDArray[Any], want: NDArray[Any], scale: ArrayLike) -> tuple[float, float]:
    """(error, allowed) of samples `got` against the same in float64, relative to the largest network output.

    `want` are the network's outputs, `raw` the same in raw units, `scale` the raw units of one network unit.

    Compared in the network's units, where an offset cannot hide an error. Allowed are 1e-5, and what float32 must lose
    by storing the value in raw units: half a spacing at each of two steps.
    """
    largest = np.abs(want).max(initial=np.finfo(np.float32).tiny)
    error = (np.abs(got.astype(np.float64) - raw) / np.asarray(scale)).max() / largest
    spacing = float(np.spacing(np.float32(np.abs(raw).max(initial=0))) / np.min(scale) / largest)
    return float(error) if np.isfinite(error) else float("inf"), TOLERANCE + spacing


def _exact(subject: Subject, engine: Engine) -> dict[str, Any]:
    steps = subject.example.shape[1] if subject.time_axis else None
    cases: list[dict[str, Any]] = []
    for draws, batch, length in ((2, 1, steps), (17, 4, steps and steps + 3), (33, 2, steps and 1)):
        x = subject.inputs(batch, length)
        names = np.arange(7, 7 + draws, dtype=np.int64)
        got = engine.samples(x.numpy(), names, SEED)
        want = given_samples(subject.network, subject.posteriors, subject.scaled(x), names, generator_noise(SEED))
        same_shape = got.shape == want.shape
        raw, scale = subject.raw(want, x), subject.scaling.output_scale
        error, allowed = relative_error(got, raw, want, scale) if same_shape else (float("inf"), TOLERANCE)
        if error > allowed:
            raise ExportError(
                f"The exported file disagrees with BLiTZ at equal noise by {error:.2g} of the largest value (allowed: "
                f"{allowed:.2g}), with {draws} draws of {batch} rows. {_locate(subject)}"
            )
        cases.append({"draws": draws, "batch": batch, "steps": length, "error": error, "allowed": allowed})
    return {"largest_error": max(case["error"] for case in cases), "cases": cases}


def law(
    subject: Subject, engine: Engine, draws: int = LAW_DRAWS, level: float = LAW_LEVEL, values: int = LAW_VALUES
) -> dict[str, Any]:
    """Two-sample Kolmogorov-Smirnov tests of the artifact's samples against BLiTZ's own sampling.

    On each of up to `values` predicted values twice: on the samples, and on their distance from the common median.
    The second sees a wrong spread, to which the first is nearly blind (σ off by 20 % moves the distribution function by
    0.05 at most, of the distances by 0.1). `level` is the chance to fail a true artifact in any of the tests.
    """
    x = subject.inputs(min(values, max(2, len(subject.example))))
    ours = engine.samples(x.numpy(), np.arange(draws, dtype=np.int64), SEED).reshape(draws, -1)[:, :values]
    outputs = free_samples(subject.network, subject.scaled(x), draws, SEED)
    theirs = subject.raw(outputs, x).astype(np.float32).reshape(draws, -1)[:, :values]
    return compare_laws(ours, theirs, level)


def compare_laws(ours: NDArray[Any], theirs: NDArray[Any], level: float) -> dict[str, Any]:
    """The tests of `law` on samples [S, values]."""
    smallest = 1.0
    for column in range(ours.shape[1]):
        a, b = ours[:, column].astype(np.float64), theirs[:, column].astype(np.float64)
        middle = np.median(np.concatenate([a, b]))
        for p, q in ((a, b), (np.abs(a - middle), np.abs(b - middle))):
            smallest = min(smallest, float(stats.ks_2samp(p, q, method="asymp").pvalue))
    tests = 2 * ours.shape[1]
    report = {"draws": len(ours), "tests": tests, "smallest_p": smallest, "threshold": level / tests}
    if smallest < level / tests:
        raise ExportError(
            f"The exported file samples another distribution than BLiTZ: p = {smallest:.2g} in the strictest of "
            f"{tests} Kolmogorov-Smirnov tests (threshold {level / tests:.2g})."
        )
    return report


def _alive(subject: Subject, engine: Engine) -> dict[str, Any]:
    x = subject.inputs(2).numpy()
    draws = np.arange(16, dtype=np.int64)
    one, again, other = (engine.samples(x, draws, seed) for seed in (1, 1, 2))
    if not np.array_equal(one, again):
        raise ExportError("The exported file gives two answers for the same draws and seed.")
    if np.array_equal(one, other):
        raise ExportError("The exported file gives the same answer for two seeds: its noise is frozen.")
    if len(np.unique(one.reshape(len(draws), -1), axis=0)) < 2:
        raise ExportError("The exported file gives the same answer for all draws: its noise is frozen.")
    sizes = [len(subject.posteriors[site.layer].mu) for site in subject.sites]
    common = min(min(sizes), 64)
    noise = [normals(np.arange(256), SEED, site, common).ravel() for site in range(min(len(sizes), 16))]
    between = np.abs(np.corrcoef(noise))[np.triu_indices(len(noise), 1)] if len(noise) > 1 else np.zeros(1)
    bound = 6 / np.sqrt(256 * common)  # six standard errors of a correlation of zero
    if between.max() > bound:
        raise ExportError(f"The noise of two sites correlates: r = {between.max():.3f}, allowed {bound:.3f}.")
    return {"sites": len(sizes), "largest_site_correlation": float(between.max()), "bound": bound}


def _locate(subject: Subject) -> str:
    """Which module is the first to differ between BLiTZ and the folded network, in words."""
    batch, draws = 3, [0, 1]
    x = subject.inputs(batch)
    folded = MonteCarloNetwork(subject.network, subject.posteriors, subject.scaling, PLAIN, subject.per_draw)
    with _recorded(folded.network) as ours:
        folded.samples(x, torch.tensor(draws), torch.tensor(SEED))
    with _recorded(subject.network) as theirs:
        given_samples(subject.network, subject.posteriors, subject.scaled(x), draws, generator_noise(SEED))
    calls = len(theirs) // len(draws)
    for call, (name, output) in enumerate(theirs[:calls]):
        if call >= len(ours) or ours[call][0] != name:
            return f"Module {name!r} is not called in the same order when the draws are folded into the batch axis."
        want = torch.stack([theirs[call + calls * draw][1] for draw in draws])
        got = ours[call][1]
        got = got.reshape(len(draws), batch, *got.shape[1:]) if len(got) == len(draws) * batch else got[None]
        if got.shape[1:] != output.shape or (got - want).abs().max() > TOLERANCE * want.abs().max():
            return (
                f"Module {name!r} is the first that differs once the draws are folded into the batch axis: it mixes "
                "rows of the batch, or depends on their number."
            )
    return "The folded network itself agrees with BLiTZ, so the file format's exporter changed it; please report this."


class _recorded:  # noqa: N801 - reads as a verb where it is used
    """Record (dotted name, float64 output) of every module call inside a network, innermost first."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __enter__(self) -> list[tuple[str, Tensor]]:
        records: list[tuple[str, Tensor]] = []

        def note(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                output = output[0] if isinstance(output, tuple) else output
                if isinstance(output, Tensor) and output.dim():
                    records.append((name, output.detach().double()))

            return hook

        names = [
            (n, m)
            for n, m in self._network.named_modules()
            if not any(part in n for part in ("_sampler", "_prior", "recurrent"))
        ]
        self._handles = [module.register_forward_hook(note(name)) for name, module in names]
        return records

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
