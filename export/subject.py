"""What is being exported: a network, its posteriors, and what trial runs learnt of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from ..runtime import checks
from ..runtime.contract import OUTPUTS
from ..runtime.errors import ExportError, InputError
from . import diagnosis
from .arguments import read_arguments
from .axes import NOTHING_FOUND, Asked, Found, find_axes
from .categories import find_limits
from .modes import note_modes
from .montecarlo import Plan, trial_run
from .posterior import Posterior
from .recognition import read_layers
from .reference import Reference
from .refusals import Refusals, raise_all
from .shared import find_shared
from .signature import Input

Example = Any
"""What forward takes: an array or tensor, a tuple by place, a dict by name; see `to_onnx`."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and everything that exporting and proving it need to know."""

    network: nn.Module
    posteriors: dict[str, Posterior]
    plan: Plan
    signature: tuple[Input, ...]
    outputs: dict[str, NDArray[np.float64]]
    """What BLiTZ returned for the example, by name, [1, B, …] in raw units."""
    found: Found = NOTHING_FOUND
    """What is known of the axes, once trials have learnt it; then `signature` is its."""

    @property
    def examples(self) -> tuple[Tensor, ...]:
        return tuple(one.example for one in self.signature)

    @property
    def lengths(self) -> tuple[Mapping[str, int], ...]:
        """Lengths of the free axes at which the file is proven, by the axes' names; the first are the example's."""
        return self.found.lengths

    @property
    def site_sizes(self) -> list[int]:
        """Random numbers per draw of each site."""
        return [
            self.posteriors[site.layer].width if site.local else len(self.posteriors[site.layer].mu)
            for site in self.plan.sites or ()
        ]

    @property
    def reference(self) -> Reference:
        return Reference(self.network, self.posteriors, self.plan)

    def inputs(self, batch: int, lengths: Mapping[str, int] | None = None) -> tuple[Tensor, ...]:
        """Rows like the example's, none equal to it: raw units [batch, …], free axes of the lengths given by name."""
        made = []
        for one in self.signature:
            x = one.rows(batch, lengths)
            if one.is_float:
                rows = x.reshape(-1, x.shape[-1] if x.dim() > 1 else 1)
                spread = rows.std(dim=0) if len(rows) > 1 else torch.ones(rows.shape[-1])  # columns may differ in size
                generator = torch.Generator().manual_seed(batch)
                moved = x + 0.1 * spread * torch.randn(x.shape, generator=generator)
                known = one.limit if isinstance(one.limit, tuple) else (None,)
                x = torch.where(torch.tensor([limit is None for limit in known]), moved, x)  # categories stay
            elif one.shared and x.dim():
                x = x.roll(batch, dims=-1)  # other values, of which none is new
            made.append(x)
        return tuple(made)

    def row(self, inputs: Sequence[NDArray[Any]], number: int) -> tuple[NDArray[Any], ...]:
        """The inputs of one row alone."""
        return tuple(x if one.shared else x[number : number + 1] for x, one in zip(inputs, self.signature, strict=True))


def examine(
    network: nn.Module,
    example: Example,
    plan: Plan,
    task: str = "regression",
    flipout: str = "refuse",
    asked: Asked = Asked(),  # noqa: B008 - frozen
    constants: Mapping[str, Any] | None = None,
    shared_inputs: Sequence[str] = (),
) -> Subject:
    """Read a network's posteriors and run it a few times on the example, raw units, to learn its sites and free axes.

    `asked` is what the caller says of the axes; `constants` and `shared_inputs` are those of `to_onnx`.

    Raises ExportError for a network that cannot be exported, InputError for arguments that are none.
    """
    posteriors, refused = read_modules(network, flipout, plan.storage)
    raise_all(refused.values())
    signature, arguments = read_arguments(network, example, constants or {}, shared_inputs)
    _check_random(posteriors)
    signature, arguments = find_shared(network, posteriors, plan, signature, arguments)
    examples = tuple(one.example for one in signature)
    plan = replace(plan, arguments=arguments)
    refusals = Refusals()
    with refusals:
        _check(network, posteriors, plan, examples, task)
    note_modes(network)
    with refusals:
        subject = _tried(Subject(network, posteriors, plan, signature, {}), examples, task, asked)
    refusals.raise_all()
    return subject


def _tried(untried: Subject, examples: Sequence[Tensor], task: str, asked: Asked) -> Subject:
    """Run the network a few times on the example, and note what that says of it."""
    network, posteriors, plan, signature = untried.network, untried.posteriors, untried.plan, untried.signature
    try:
        unscaled = replace(plan.scaling, output_mean=(0.0,), output_scale=(1.0,))
        alone = replace(untried, plan=replace(plan, scaling=unscaled, noise=None, horizon=1))
        outputs = alone.reference.free(examples, 1, seed=0)  # in the network's own shape
        limits = find_limits(network, posteriors, signature, lambda x: alone.reference.free(x, 1, seed=0))
        signature = tuple(replace(one, limit=limit) for one, limit in zip(signature, limits, strict=True))
        untried, alone = (replace(subject, signature=signature) for subject in (untried, alone))
    except ExportError:
        raise
    except Exception as error:  # whatever the user's forward raises
        raise diagnosis.fails_on_example(error, network, examples) from error
    _check_output_names(outputs)
    diagnosis.check_rows(alone.reference, alone.inputs, len(examples[0]))
    diagnosis.check_nothing_caught(alone.reference, alone.inputs)
    _check_finite(outputs)
    if task == "classification":
        plan = replace(plan, softmax=_needs_softmax(outputs))
    else:
        plan = replace(plan, width=_width(plan, outputs))
    _check_output_scaling(plan, outputs)
    try:
        plan = trial_run(network, posteriors, replace(plan, outputs=tuple(outputs)), signature)
    except ExportError as error:
        raise diagnosis.cannot_fold(error, alone.reference, alone.inputs) from error
    if not plan.sites:
        raise ExportError("The network's forward never calls one of its sampling BLiTZ layers.")
    if all(plan.shared):
        raise ExportError("No output of the network depends on a sampling BLiTZ layer: all draws would be the same.")
    refusals = Refusals()
    with refusals:
        if plan.streaming and not plan.states:
            raise ExportError("A stream needs a BayesianLSTM or BayesianGRU, whose state it carries on; there is none.")
    with refusals:
        if plan.local and not any(site.local for site in plan.sites):
            raise ExportError(
                'sampling="local" needs a BayesianLinear whose input is [rows, features], one row for each of the '
                'batch; the network has none. Use sampling="weights".'
            )
    subject = replace(untried, plan=plan)
    outputs = subject.reference.free(examples, 1, seed=0)
    subject = replace(subject, plan=replace(plan, precise=_runs_in_float64(subject)))
    with refusals:
        _check_repeatable(subject)
    with refusals:
        found = _find_axes(subject, asked)
        subject = with_axes(replace(subject, outputs=outputs), found)
        if found.asked and plan.width and _width_follows(subject):
            if plan.noise:
                raise ExportError(
                    "The number of values that the network predicts follows an axis that free= leaves free, but "
                    "observation noise needs a fixed number. Leave free= or noise= out."
                )
            subject = replace(subject, plan=replace(plan, width=0))
    refusals.raise_all()
    return subject


def _width_follows(subject: Subject) -> bool:
    """Whether the first output's [B, O] last axis is as long as a free axis lets it be."""
    widths = {
        next(iter(subject.reference.free(subject.inputs(1, lengths), 1, seed=0).values())).shape[2:]
        for lengths in subject.lengths[:2]
    }
    return len(widths) > 1


def with_axes(subject: Subject, found: Found) -> Subject:
    """The subject with its free axes. Raises ExportError where it needs others."""
    plan = subject.plan
    if plan.streaming and (not found.signature or not all(1 in one.free for one in found.signature)):
        why = "".join(f" {fixed.explained}" for fixed in found.fixed)
        raise ExportError(f"A stream reads one step at a time, but the network reads inputs of a fixed length.{why}")
    return replace(subject, signature=found.signature, found=found)


def _find_axes(subject: Subject, asked: Asked) -> Found:
    def shapes(inputs: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: y.shape[1:] for name, y in subject.reference.free(inputs, 1, seed=0).items()}

    layers = [posterior.module for posterior in subject.posteriors.values()]
    return find_axes(subject.signature, asked, shapes, layers, follows=subject.plan.width > 0)


def uncompiled(network: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given, whose code can be read; any other as it is.

    Raises ExportError for a network, or a part of one, whose code is compiled already.
    """
    while isinstance(network, OptimizedModule):
        network = network._orig_mod
    if isinstance(network, nn.Module):
        compiled = {
            name: "torch.compile" if isinstance(module, OptimizedModule) else "torch.jit"
            for name, module in network.named_modules()
            if isinstance(module, OptimizedModule | torch.jit.ScriptModule)
        }
        if compiled:
            raise ExportError(
                *(
                    f"{f'Module {name!r}' if name else 'The network'} was compiled by {how}, so its layers cannot be "
                    "exchanged. Pass the network as it was before."
                    for name, how in compiled.items()
                )
            )
    return network


def read_modules(
    network: nn.Module, flipout: str = "refuse", storage: str = "float32"
) -> tuple[dict[str, Posterior], dict[str, ExportError]]:
    """The posterior of each Bayesian layer by dotted name, and why any other module cannot be exported."""
    posteriors, refused = read_layers(network, flipout, storage)
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            refused[name] = ExportError(
                f"Module {name!r} is a {type(module).__name__} without running statistics: it normalises by the batch "
                "at hand, so a row's answer depends on the rows beside it. Train it with track_running_stats=True."
            )
    return posteriors, refused


def _check_random(posteriors: dict[str, Posterior]) -> None:
    if not posteriors:
        raise ExportError(
            "The network has no BLiTZ layer, so there is nothing to sample. Use torch.onnx for a deterministic network."
        )
    if all(posterior.frozen for posterior in posteriors.values()):
        raise ExportError(
            "Every BLiTZ layer of the network is frozen, so all draws would be the same. Call unfreeze_() first."
        )
    if not any(posterior.sigma.any() for posterior in posteriors.values() if not posterior.frozen):
        raise ExportError(
            "σ is 0 for every weight of the network that is not frozen (ρ is -∞, or near it), so all draws would be "
            "the same. Leave some weight a σ, or use torch.onnx for a deterministic network."
        )


def _check(
    network: nn.Module, posteriors: dict[str, Posterior], plan: Plan, examples: Sequence[Tensor], task: str
) -> None:
    scaling = plan.scaling
    if scaling.values != "levels" and examples[0].dim() != 3:
        raise InputError(
            f"A scaling of {scaling.values} needs windows [batch, time, feature]; example has shape "
            f"{tuple(examples[0].shape)}."
        )
    features = max(len(scaling.input_mean), len(scaling.input_scale))
    if features not in (1, examples[0].shape[-1] if examples[0].dim() > 1 else 1):
        raise InputError(
            f"scaling's input_mean and input_scale have {features} values, but example has "
            f"{examples[0].shape[-1] if examples[0].dim() > 1 else 1} along its last axis, {tuple(examples[0].shape)}."
        )
    if scaling.values == "returns" and (near := examples[0][:, -1].abs() < checks.FLOAT32_TINY).any():
        raise InputError(
            f"Row {int(near.any(dim=1).nonzero()[0])} of example has a last value of 0, of which there are no returns. "
            "Leave such rows out."
        )
    if (plan.horizon > 1 or plan.noise) and task == "classification":
        raise InputError("Class probabilities have no observation noise and no path. Leave noise and path out.")
    if plan.streaming and (plan.horizon > 1 or scaling.values != "levels"):
        raise InputError(
            "A stream goes on from its states, so it can neither feed a path back nor take values from the last row "
            'of a window. Leave horizon out, and prepare the data with values="levels".'
        )
    if plan.horizon > 1 and (len(examples) > 1 or examples[0].dim() != 3 or examples[0].shape[2] != 1):
        raise InputError(
            "A path feeds one predicted value back as the next input: it needs a network with the one input "
            f"[batch, time, 1]; example has shape {', '.join(str(tuple(x.shape)) for x in examples)}."
        )
    if not examples[0].is_floating_point() and (scaling.input_mean, scaling.input_scale) != ((0.0,), (1.0,)):
        raise InputError("Tokens (an integer input) cannot be scaled. Leave scaling's input_mean and input_scale out.")
    if task == "classification" and (scaling.output_mean, scaling.output_scale) != ((0.0,), (1.0,)):
        raise InputError("Class probabilities cannot be scaled. Leave scaling's output_mean and output_scale out.")
    fixed = [name for name, module in network.named_modules() if isinstance(module, nn.RNNBase)]
    fixed += [name for name, posterior in posteriors.items() if posterior.frozen and posterior.kind.recurrent]
    if plan.streaming and fixed:
        raise ExportError(
            *(
                f"Layer {name!r} is a recurrent layer that samples no weights: a stream cannot carry it on."
                for name in fixed
            )
        )


def _width(plan: Plan, outputs: dict[str, NDArray[np.float64]]) -> int:
    """Values per row that the artifact gives for the network's first output [B, O], which has this shape in BLiTZ.

    0 for an output of another shape, whose intervals cannot be calibrated.
    """
    y = next(iter(outputs.values()))
    width = y.shape[2] if y.ndim == 3 else 0
    shown = f"[{', '.join(['batch', *map(str, y.shape[2:])])}]"
    if plan.noise and not width:
        raise ExportError(f"Observation noise needs an output [batch, values]; the network returns {shown}.")
    if plan.noise and plan.noise.learned:
        if width % 2:
            raise ExportError(
                "A network that says its own noise returns a prediction and a scale for each value, [batch, "
                f"2 · values]; this one returns {shown}."
            )
        width //= 2
    if plan.horizon == 1:
        if plan.noise and not plan.noise.learned and len(plan.noise.scale) not in (1, width):
            raise ExportError(f"The noise has {len(plan.noise.scale)} scales, but the network predicts {width} values.")
        return width
    if width != 1 or len(outputs) > 1:
        raise ExportError(f"A path needs a network that predicts the next value alone, [batch, 1]; it returns {shown}.")
    return plan.horizon


def _check_output_names(names: Iterable[str]) -> None:
    if taken := [name for name in names if name in OUTPUTS]:
        raise InputError(
            f"An output cannot be called {taken[0]!r}: every artifact has {', '.join(OUTPUTS)} of each output. Name "
            "those of a tuple otherwise, as in outputs=('mu', 'sigma'); of a dict, rename the key in forward."
        )


def _check_finite(outputs: dict[str, NDArray[np.float64]]) -> None:
    for name, y in outputs.items():
        if not np.isfinite(y).all():
            raise ExportError(
                f"The network's own {name} for the example is not finite (NaN or infinity), before murho touches it. "
                "Look at its weights, and whether scaling is what it was trained with."
            )


def _check_output_scaling(plan: Plan, outputs: dict[str, NDArray[np.float64]]) -> None:
    y = next(iter(outputs.values()))  # [1, B, …]
    width = y.shape[-1] if y.ndim > 2 else 1
    if plan.noise and plan.noise.learned:
        width //= 2
    values = max(len(plan.scaling.output_mean), len(plan.scaling.output_scale))
    if values not in (1, width):
        raise InputError(
            f"scaling's output_mean and output_scale have {values} values, but the network predicts {width} along its "
            "last axis."
        )


def _needs_softmax(outputs: dict[str, NDArray[np.float64]]) -> bool:
    """Whether the first output are logits: not already probabilities that sum to 1."""
    y = next(iter(outputs.values()))
    if y.ndim < 3 or y.shape[-1] < 2:
        raise ExportError(
            f"A classification needs a value for each of at least two classes, [B, classes], but the network returns "
            f"{list(y.shape[1:])}. For two classes from one logit return torch.cat([torch.zeros_like(z), z], dim=-1)."
        )
    return not ((y >= 0).all() and np.allclose(y.sum(axis=-1), 1, rtol=0, atol=1e-4))


def _runs_in_float64(subject: Subject) -> bool:
    try:
        subject.reference.given(subject.examples, [0], lambda _draw, _stream, n: np.zeros(n), False, torch.float64)
    except Exception:  # whatever the user's forward raises; it asks for float32 in a way that cannot be widened
        return False
    return True


def _check_repeatable(subject: Subject) -> None:
    """A network that draws randomness beside BLiTZ's would be frozen by the export."""
    twice = subject.reference.given(subject.examples, [0, 0], lambda _draw, _stream, n: np.zeros(n), observed=False)
    if any(not np.array_equal(one, again) for one, again in twice.values()):
        reason = diagnosis.unrepeatable(subject.reference, subject.examples)
        raise ExportError(reason or "The network gives two answers for the same weights and inputs.")
