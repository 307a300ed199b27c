"""The proof that a finished file says what BLiTZ says: exactly for equal noise, in law for free noise, and alive."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from ..runtime.artifact import Artifact
from ..runtime.compare import MULTIPLE, TOLERANCE, largest_value, relative_error
from ..runtime.contract import NOISE_INPUT, Card
from ..runtime.engines import Engine, first_states, open_engine
from ..runtime.errors import ArtifactError, ExportError, MurhoError
from ..runtime.planner import VECTOR, chunk_size, in_chunks
from . import diagnosis
from .axes import LengthError
from .diagnosis import FormatError
from .independence import check_streams
from .montecarlo import PLAIN, MonteCarloNetwork
from .progress import stage
from .readback import check_weights
from .recognition import read_posteriors
from .reference import generator_epsilon, numpy_epsilon, one_thread
from .subject import Subject
from .yardstick import LARGE, SEED, Case, Yardstick, case_of, names_of, units_of

LAW_DRAWS = 1000
LAW_WEIGHTS = 5 * 10**8  # a large network gets fewer draws, so that BLiTZ samples about this many weights in all
LAW_VALUES = 20
UNTIED = 0.95  # share of different values among draws that a closed ReLU did not make equal
LAW_LEVEL = 1e-6  # an export fails by chance once in a million; σ off by a third is far beyond
ROUNDING_DRAWS = 256
ROUNDING_LEVEL = 0.95


def prove(subject: Subject, artifact: Artifact) -> dict[str, Any]:
    """Compare a finished file with BLiTZ and return the report. Raises ExportError where they differ."""
    with one_thread():
        return _proven(subject, artifact)


def _proven(subject: Subject, artifact: Artifact) -> dict[str, Any]:
    engine = open_engine(artifact, "cpu", compiled=False)
    try:
        stage("Proving: BLiTZ's answers with the same noise")
        report: dict[str, Any] = {"weights": check_weights(subject, engine, artifact)}
        yardstick = Yardstick(subject, _shapes(subject))
        report["exact"] = _exact(subject, engine, yardstick)
        stage("Proving: the law of BLiTZ's own sampling")
        report["law"] = law(subject, engine, yardstick=yardstick)
        stage("Proving: every draw another, every row alone")
        report["alive"] = _alive(subject, engine)
        report["rows"] = _alone(subject, engine, yardstick)
        report["streams"] = check_streams(len(subject.site_sizes), subject.plan.noise is not None, SEED)
        if subject.plan.noise:
            stage("Proving: the law with observation noise")
            report["law_with_noise"] = law(subject, engine, observed=True, yardstick=yardstick)
        if subject.plan.states:
            stage("Proving: row by row")
            report["streamed"] = _streamed(subject, engine, yardstick)
        if subject.plan.storage != "float32":
            stage("Measuring what rounded storage changes")
            report["storage"] = _rounding(subject, engine)
        name = engine.name
        del engine  # and what it holds of memory
        if artifact.format == "onnx":
            stage("Proving: the file in one piece, as other hosts run it")
            _whole(subject, artifact, yardstick)
    except ArtifactError as error:
        reason = diagnosis.difference(subject.reference, subject.inputs) or _CHANGED
        raise FormatError(
            f"The exported file fails at another number of rows, steps or draws than it was traced with ({error}). "
            f"{reason}"
        ) from error
    except MurhoError:
        raise
    except Exception as error:  # the user's forward, or the file, fails at a size that the example did not have
        raise ExportError(
            f"The network or the exported file fails at another number of rows, steps or draws than the example's "
            f"({type(error).__name__}: {str(error).strip()[:300]}). Its forward must treat rows independently, and "
            "take every size that may change from its input."
        ) from error
    return {"passed": True, "engine": name, **report}


def _shapes(subject: Subject) -> list[tuple[int, int, Mapping[str, int]]]:
    """Draws and rows: draws fewer, more and many more than a vector holds; and all lengths of free axes to prove."""
    sizes = [(2, 1), (17, 4), (5 if _is_large(subject) else 33, 2)]
    lengths = list(subject.lengths)
    sizes += [(3, 3)] * (len(lengths) - len(sizes))
    lengths += lengths[:1] * (len(sizes) - len(lengths))
    return [(*size, length) for size, length in zip(sizes, lengths, strict=True)]


def _is_large(subject: Subject) -> bool:
    return sum(subject.site_sizes) > LARGE


def _at_once(subject: Subject, rows: int, draws: int) -> int:
    """Draws to ask the file for in one call, as the runtime would: all of a large network do not fit into memory."""
    sizes = zip(subject.site_sizes, subject.plan.sites or (), strict=True)
    return chunk_size(draws, max(4 * (4 * n + 2 * rows * site.elements) for n, site in sizes), 1)


def _exact(subject: Subject, engine: Engine, yardstick: Yardstick) -> dict[str, Any]:
    def compared(case: Case) -> dict[str, Any]:
        got = engine.samples(tuple(x.numpy() for x in case.inputs), names_of(case.draws), SEED, observed=True)
        steps = next(iter(case.lengths.values()), None)
        row: dict[str, Any] = {"draws": case.draws, "batch": case.rows, "steps": steps}
        for (name, want), ours in zip(case.want.items(), got, strict=True):
            units, largest = case.units[name], yardstick.largest[name]
            error, allowed = yardstick.compare(name, ours, want, units, case.lengths, largest)
            if error > allowed:
                reason = _reason(subject)
                raise (FormatError if reason == _CHANGED else ExportError)(
                    f"The exported file disagrees with BLiTZ at equal noise by {error:.2g} of the largest value "
                    f"(allowed: {allowed:.2g}), with {case.draws} draws of {case.rows} rows. {reason}"
                )
            if error >= row.get("error", 0.0):  # of several outputs the one that differs most
                row |= {"error": error, "allowed": allowed}
        return row

    cases = []
    for case in yardstick.cases:
        try:
            cases.append(compared(case))
        except Exception as error:
            if case.lengths == subject.lengths[0]:
                raise
            # Raises the defect that is one at the example's lengths too.
            compared(case_of(subject, case.draws, case.rows, subject.lengths[0]))
            shown = " and ".join(f"{name} = {n}" for name, n in case.lengths.items())
            raise LengthError(
                f"with {shown} the file differs from BLiTZ, or fails, where it does not at the example's length"
            ) from error
    return {
        "truth": "float64" if subject.plan.precise else "float32",
        "float32_error": yardstick.float32_error,
        "multiple": MULTIPLE,
        "allowed": max(yardstick.tolerance(name) for name in yardstick.largest),
        "largest_error": max(row["error"] for row in cases),
        "cases": cases,
    }


def law(
    subject: Subject,
    engine: Engine,
    draws: int | None = None,
    level: float = LAW_LEVEL,
    values: int = LAW_VALUES,
    observed: bool = False,
    yardstick: Yardstick | None = None,
) -> dict[str, Any]:
    """Two-sample Kolmogorov-Smirnov tests of the artifact's samples against BLiTZ's own sampling.

    On each of up to `values` predicted values of each output twice: on the samples, and on their distance from the
    common median. The second sees a wrong spread, to which the first is nearly blind (σ off by 20 % moves the
    distribution function by 0.05 at most, of the distances by 0.1). Observation noise is left out, since it would hide
    the weights' part, unless `observed`: then weights and noise are tested together, against numpy's generator, since
    BLiTZ knows nothing of noise. `level` is the chance to fail a true artifact in any of the tests. `draws` are 1000
    unless given, fewer (at least 200) for a path and for a network of more than 500,000 weights. What float32 may be
    off by a `yardstick` counts where many draws have one value.
    """
    if draws is None:
        weights = sum(len(subject.posteriors[site.layer].mu) for site in subject.plan.sites or ())
        draws = max(200, min(LAW_DRAWS, LAW_WEIGHTS // weights) // subject.plan.horizon)
    inputs = subject.inputs(min(values, max(2, len(subject.examples[0]))))
    arrays = tuple(x.numpy() for x in inputs)
    chunk = _at_once(subject, len(arrays[0]), draws)
    names = np.arange(draws, dtype=np.int64)
    ours = in_chunks(lambda part: engine.samples(arrays, part, SEED, observed), names, chunk)
    if observed:
        theirs = subject.reference.given(inputs, range(draws), numpy_epsilon(SEED), precision=torch.float32)
    else:
        theirs = subject.reference.free(inputs, draws, SEED)
    columns = []
    for k, ((name, wanted), shared) in enumerate(zip(theirs.items(), subject.plan.shared, strict=True)):
        if not shared:
            one, other = ours[k].reshape(draws, -1), wanted.astype(np.float32).reshape(draws, -1)
            spread = np.linspace(0, one.shape[1] - 1, min(values, one.shape[1])).astype(int)  # of all rows
            largest = np.full(len(spread), np.abs(wanted).max())
            apart = largest * (yardstick.tolerance(name) if yardstick and yardstick.loose(name) else 0.0)
            columns.append((one[:, spread], other[:, spread], largest, apart))
    one, other, largest, apart = (np.concatenate(parts, axis=-1) for parts in zip(*columns, strict=True))
    return compare_laws(one, other, level, largest, apart)


def compare_laws(
    ours: NDArray[Any],
    theirs: NDArray[Any],
    level: float,
    largest: NDArray[Any] | None = None,
    apart: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """The tests of `law` on samples [S, values]; `largest` [values] is the size of the output that each is part of.

    Values that lie within 16 of float32's spacings at that size count as equal. A closed ReLU gives many draws one
    value, and BLiTZ the same value with another rounding: a plain test would tell the two apart. Where a value comes
    often, those within `apart` [values] count as equal too.
    """
    largest = np.abs(theirs).max(axis=0) if largest is None else largest
    rounding = 16 * np.spacing(largest.astype(np.float32)).astype(np.float64)
    if apart is not None:
        tied = np.array([len(np.unique(column)) < UNTIED * len(column) for column in theirs.T])
        rounding = np.where(tied, np.maximum(rounding, apart), rounding)
    smallest = 1.0
    for column in range(ours.shape[1]):
        a, b = ours[:, column].astype(np.float64), theirs[:, column].astype(np.float64)
        middle = np.median(np.concatenate([a, b]))
        for p, q in ((a, b), (np.abs(a - middle), np.abs(b - middle))):
            smallest = min(smallest, _p_value(p, q, rounding[column]))
    tests = 2 * ours.shape[1]
    report = {"draws": len(ours), "tests": tests, "smallest_p": smallest, "threshold": level / tests}
    if smallest < level / tests:
        raise ExportError(
            f"The exported file samples another distribution than BLiTZ: p = {smallest:.2g} in the strictest of "
            f"{tests} Kolmogorov-Smirnov tests (threshold {level / tests:.2g})."
        )
    return report


def _p_value(a: NDArray[np.float64], b: NDArray[np.float64], rounding: float) -> float:
    """Two-sided Kolmogorov-Smirnov test that a and b are of one law, up to `rounding` on any value."""
    above = stats.ks_2samp(a, b - rounding, alternative="greater", method="asymp").pvalue
    below = stats.ks_2samp(b, a - rounding, alternative="greater", method="asymp").pvalue
    return min(1.0, 2 * float(min(above, below)))


def _rounding(subject: Subject, engine: Engine) -> dict[str, Any]:
    """How far the file, whose posterior is rounded, is from the trained network, at equal noise.

    `samples` is the largest difference of two samples, relative to the largest network output. `ends` and `largest_end`
    are the median and the largest change of an interval's ends over rows and outputs, as a share of its width;
    intervals that are no wider than rounding noise do not count.
    """
    trained = MonteCarloNetwork(subject.network, read_posteriors(subject.network, "plain"), subject.plan, PLAIN)
    inputs = subject.inputs(min(LAW_VALUES, max(2, len(subject.examples[0]))))
    arrays = tuple(x.numpy() for x in inputs)

    def before(draws: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
        with torch.inference_mode():
            samples = trained.all_samples(
                *inputs, torch.from_numpy(draws), torch.tensor(SEED), *_last(subject, len(draws), len(arrays[0]))
            )
        return tuple(y.numpy() for y in samples)

    draws = np.arange(ROUNDING_DRAWS, dtype=np.int64)
    wanted = in_chunks(before, draws, VECTOR)
    got = in_chunks(lambda names: engine.samples(arrays, names, SEED, observed=True), draws, VECTOR)
    samples, shares = 0.0, [np.zeros(0)]
    for ours, theirs, units in zip(got, wanted, units_of(subject, arrays[0]), strict=True):
        samples = max(samples, relative_error(ours, theirs.astype(np.float64), *units)[0])
        tails = ((1 - ROUNDING_LEVEL) / 2, (1 + ROUNDING_LEVEL) / 2)
        ends, others = (np.quantile(y.astype(np.float64), tails, axis=0) for y in (theirs, ours))
        width = ends[1] - ends[0]
        seen = width > 16 * np.spacing(np.abs(theirs).max())
        shares.append((np.abs(others - ends).max(axis=0)[seen] / width[seen]).ravel())
    share = np.concatenate(shares)
    return {
        "draws": len(draws),
        "rows": len(arrays[0]),
        "level": ROUNDING_LEVEL,
        "samples": samples,
        "ends": float(np.median(share)) if share.size else 0.0,
        "largest_end": float(share.max(initial=0.0)),
    }


def _last(subject: Subject, draws: int, rows: int) -> tuple[Tensor, ...]:
    """What a folded network takes after the seed: the noise's switch, and a stream's first states."""
    return (*subject.plan.switch, *(torch.zeros(draws, rows, width) for width in subject.plan.states))


def _alone(subject: Subject, engine: Engine, yardstick: Yardstick) -> dict[str, Any]:
    """A row's answer must be the one that it gets alone: the runtime may ask for the rows of a batch in blocks.

    Where rows are mixed behind a Bayesian layer, draws are too, and the comparison with BLiTZ finds it; before the
    first one it cannot, since BLiTZ mixes the same rows.
    """
    case = max(yardstick.cases, key=lambda case: case.rows)
    inputs, draws = tuple(x.numpy() for x in case.inputs), names_of(case.draws)
    together = engine.samples(inputs, draws, SEED, observed=True)
    report = {"rows": len(inputs[0]), "error": 0.0, "allowed": TOLERANCE}
    for row in range(len(inputs[0])):
        one = subject.row(inputs, row)
        alone = engine.samples(one, draws, SEED, observed=True)
        for name, got, among, units in zip(case.want, alone, together, units_of(subject, one[0]), strict=True):
            largest, row_among = largest_value(among, *case.units[name]), among[:, row : row + 1]
            error, allowed = yardstick.compare(name, got, row_among, units, case.lengths, largest, forms=2)
            if error > allowed:
                raise ExportError(
                    f"The answer to a row changes by {error:.2g} of the largest value (allowed: {allowed:.2g}) with "
                    f"the rows beside it. {_reason(subject)}"
                )
            if error >= report["error"]:
                report |= {"error": error, "allowed": allowed}
    return report


def _alive(subject: Subject, engine: Engine) -> dict[str, Any]:
    inputs = tuple(x.numpy() for x in subject.inputs(2))
    draws = np.arange(16, dtype=np.int64)
    one, again, other = (
        np.concatenate([y.reshape(len(draws), -1) for y in engine.samples(inputs, draws, seed, observed=False)], axis=1)
        for seed in (1, 1, 2)
    )
    if np.array_equal(one, other):
        blitz = subject.reference.free(subject.inputs(2), len(draws), SEED).values()
        if all(np.array_equal(samples, np.broadcast_to(samples[0], samples.shape)) for samples in blitz):
            raise ExportError(
                "On the example all draws give the same answer, in BLiTZ too (a closed ReLU behind every Bayesian "
                "layer, perhaps), so nothing can be proven. Pass an example on which the network's answers vary."
            )
    if not np.array_equal(one, again):
        raise ExportError("The exported file gives two answers for the same draws and seed.")
    if np.array_equal(one, other):
        raise ExportError("The exported file gives the same answer for two seeds: its noise is frozen.")
    if len(np.unique(one, axis=0)) < 2:
        raise ExportError("The exported file gives the same answer for all draws: its noise is frozen.")
    return {"draws": len(draws), "seeds": 2}


def _whole(subject: Subject, artifact: Artifact, yardstick: Yardstick) -> None:
    """The runtime cuts an ONNX file, and has compiled code for parts of it; other hosts run the whole. Both must agree.

    Not to the last bit: functions are computed in other ways, and ONNX Runtime fuses a layer's transposed weights into
    the product only where it sees both.
    """
    cases = [(tuple(x.numpy() for x in case.inputs), names_of(case.draws)) for case in yardstick.cases]
    in_one_piece = whole(artifact.content, artifact.card)
    wanted = [in_one_piece(*case) for case in cases]
    del in_one_piece  # and the memory that it holds
    engine = open_engine(artifact, "cpu")
    for case, (inputs, names), results in zip(yardstick.cases, cases, wanted, strict=True):
        theirs = [value for name, value in results.items() if name.rpartition(".")[2] == "samples"]
        for chunk in (VECTOR,) if _is_large(subject) else (VECTOR, 3 * VECTOR):  # several calls with a rest, and one
            ours = in_chunks(lambda part: engine.samples(inputs, part, SEED, observed=True), names, chunk)  # noqa: B023
            for (name, units), got, want in zip(case.units.items(), ours, theirs, strict=True):
                error, allowed = yardstick.compare(name, got, want, units, case.lengths, forms=2)
                if error > allowed:
                    raise FormatError(
                        f"The file's samples in one piece differ from those in murho's runtime by {error:.2g} of the "
                        f"largest value (allowed: {allowed:.2g}), with {case.draws} draws of {case.rows} rows: ONNX "
                        "Runtime computes otherwise when it fuses the whole."
                    )


def whole(
    content: bytes, card: Card
) -> Callable[[Sequence[NDArray[Any]], NDArray[np.int64]], dict[str, NDArray[np.float32]]]:
    """A function of inputs and draws: results by name of a file that ONNX Runtime runs in one piece, as any host would.

    With noise if it has any.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def results(inputs: Sequence[NDArray[Any]], draws: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        feeds = dict(zip((array.name for array in card.inputs), inputs, strict=True))
        feeds |= {"draws": draws, "seed": np.array(SEED), "levels": np.array([0.5], dtype=np.float32)}
        states = first_states(card.states, len(draws), len(inputs[0]))
        feeds |= {array.name: state for array, state in zip(card.states, states, strict=True)}
        if card.noise:
            feeds[NOISE_INPUT] = np.array(1, dtype=np.float32)
        names = (value.name for value in session.get_outputs())
        # Copies: what ONNX Runtime returns keeps all memory of its session.
        return {name: value.copy() for name, value in zip(names, session.run(None, feeds), strict=True)}

    return results


def _streamed(subject: Subject, engine: Engine, yardstick: Yardstick) -> dict[str, Any]:
    """A stream's answer to each row is BLiTZ's answer to the whole sequence so far, at equal noise."""
    draws, steps = names_of(3), 4
    (lengths, *_) = subject.lengths
    inputs = subject.inputs(2, dict.fromkeys(lengths, steps))
    states: tuple[NDArray[np.float32], ...] | None = None
    errors = []
    for step in range(steps):
        row = tuple(x[:, step : step + 1].numpy() for x in inputs)
        ours, states = engine.step(row, draws, SEED, observed=False, states=states)
        so_far = [x[:, : step + 1] for x in inputs]
        theirs = subject.reference.given(so_far, draws, generator_epsilon(SEED), observed=False)
        units = units_of(subject, inputs[0].numpy())
        for (name, raw), got, own in zip(theirs.items(), ours, units, strict=True):
            raw = raw if raw.shape == got.shape else raw[:, :, -1:]  # of a whole sequence's answers the newest
            error, allowed = yardstick.compare(name, got, raw, own)
            errors.append(error)
            if error > allowed:
                raise ExportError(
                    f"Fed row by row the network gives another answer than for the whole sequence, by {error:.2g} of "
                    f"the largest value (allowed: {allowed:.2g}) at row {step + 1}: it looks back in another way than "
                    "by the states of its BayesianLSTM and BayesianGRU layers. Export it without streaming."
                )
    return {"steps": steps, "largest_error": max(errors)}


def _reason(subject: Subject) -> str:
    """Why the network and a file of it differ, in words."""
    return diagnosis.difference(subject.reference, subject.inputs) or _locate(subject)


_CHANGED = "The network itself is not to blame: what torch wrote to this format computes something else."


def _locate(subject: Subject) -> str:
    """Which module is the first to differ between BLiTZ and the folded network, in words."""
    batch, draws = 3, [0, 1]
    inputs = subject.inputs(batch)
    folded = MonteCarloNetwork(subject.network, subject.posteriors, subject.plan, PLAIN)
    with _recorded(folded.network) as ours:
        folded.samples(*inputs, torch.tensor(draws), torch.tensor(SEED), *_last(subject, len(draws), batch))
    with _recorded(subject.network) as theirs:
        subject.reference.given(inputs, draws, generator_epsilon(SEED))
    with _recorded(subject.network) as rough:
        subject.reference.given(inputs, draws, generator_epsilon(SEED), precision=torch.float32)
    calls = len(theirs) // len(draws)
    for call, (name, output) in enumerate(theirs[:calls]):
        if call >= len(ours) or ours[call][0] != name:
            return f"Module {name!r} is not called in the same order when the draws are folded into the batch axis."
        want, float32 = (torch.stack([passes[call + calls * k][1] for k in draws]) for passes in (theirs, rough))
        allowed = max(TOLERANCE * want.abs().max(), MULTIPLE * (float32 - want).abs().max())
        got = ours[call][1]
        got = got.reshape(len(draws), batch, *got.shape[1:]) if len(got) == len(draws) * batch else got[None]
        if got.shape[1:] != output.shape or (got - want).abs().max() > allowed:
            where = f"Module {name!r}" if name else "The network's own forward"
            return (
                f"{where} is the first that differs once the draws are folded into the batch axis: it mixes "
                "rows of the batch, or depends on their number."
            )
    return _CHANGED


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
