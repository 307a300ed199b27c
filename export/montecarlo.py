"""A BLiTZ network's Monte-Carlo form: all draws in one forward pass, with the artifact's signature.

The user's network is neither changed nor deep-copied (BLiTZ's live tensors break deepcopy). Its module tree is rebuilt
with BLiTZ's layers replaced by their twins; every other module shares its code and has its own float32 tensors.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.contract import CALIBRATION_SLOTS, SMALLEST_SCALE, Noise, Scaling
from ..runtime.errors import ExportError
from . import kernels
from .arguments import ONE_INPUT, Arguments
from .blame import Blame
from .layers import Folding, Kernels, SiteRecord, make_twin, repeated_per_draw
from .posterior import Posterior
from .signature import Input
from .unregistered import exchange, reaches_out

PLAIN = Kernels(**{field.name: getattr(kernels, field.name) for field in fields(Kernels)})

PRIMES = (3, 5, 7, 11, 13, 17, 19, 23)


@dataclass(frozen=True)
class Plan:
    """How a network is folded: what is asked for, and what trial runs learnt."""

    scaling: Scaling
    local: bool = False
    """Sample outputs in place of weights wherever that keeps the law of each row."""
    arguments: Arguments = ONE_INPUT
    """How the network's forward is called with the inputs."""
    outputs: tuple[str, ...] = ()
    """Names of what the network returns: the first ones of a tuple, or all of a dict's."""
    softmax: bool = False
    """Whether the first output are logits, to become class probabilities."""
    noise: Noise | None = None
    """Observation noise of the first output."""
    storage: str = "float32"
    """How the file keeps the posterior: "float32", or "half" for μ in float16 and log σ in 8 bits."""
    horizon: int = 1
    """Steps to go by feeding each draw's prediction back as the next value of the window."""
    streaming: bool = False
    """Whether recurrent layers go on from the states of the call before."""
    states: tuple[int, ...] = ()
    """Widths of those states."""
    per_draw: bool = False
    """Whether the inputs must be repeated for every draw at the start."""
    writes: bool = False
    """Whether the forward changes its inputs in place, and so must be given copies."""
    sites: tuple[SiteRecord, ...] | None = None
    """None before the trial run."""
    shared: tuple[bool, ...] = ()
    """For each output: whether it is the same for every draw."""
    precise: bool = False
    """Whether the network's own forward is known to run in float64, so that it is the truth there."""
    width: int = 0
    """Values per row of the first output if it is [B, O] and no class probability: its intervals can be calibrated."""

    @property
    def switch(self) -> tuple[Tensor, ...]:
        """The last argument of a network with noise, to add it."""
        return (torch.ones(()),) if self.noise else ()


class MonteCarloNetwork(nn.Module):
    """x [B, …] raw units (or several inputs), draws int64 [S], seed int64, levels [K] -> the outputs.

    With observation noise it takes a further argument: 1 to add the noise, 0 to leave it out; a stream takes its states
    [S, B, H] last. For each output of the network: samples [S, B, …], mean, std, lower, upper; then the next states.
    """

    input_mean: Tensor
    input_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor
    noise_scale: Tensor
    noise_on: Tensor
    calibration_levels: Tensor
    calibration_factors: Tensor

    def __init__(self, network: nn.Module, posteriors: dict[str, Posterior], plan: Plan, kernels: Kernels) -> None:
        """A plan without sites makes the next pass a trial run, which records them."""
        super().__init__()
        self.folding = Folding(kernels, plan.local, plan.sites, plan.streaming)
        self.network = _rebuild(network, posteriors, self.folding).eval()
        self.plan = plan
        scaling = plan.scaling
        for name in ("input_mean", "input_scale", "output_mean", "output_scale"):
            self.register_buffer(name, _constant(getattr(scaling, name)))
        self.scaled_input = scaling.input_mean != (0.0,) or scaling.input_scale != (1.0,)
        self.scaled_output = scaling.output_mean != (0.0,) or scaling.output_scale != (1.0,)
        if plan.noise and not plan.noise.learned:
            self.register_buffer("noise_scale", _constant(plan.noise.scale))
        if plan.width:
            self.register_buffer("noise_on", torch.ones(()))
            self.register_buffer("calibration_levels", torch.full((CALIBRATION_SLOTS,), 0.5))
            self.register_buffer("calibration_factors", torch.ones(CALIBRATION_SLOTS, plan.width))
        for k, tensor in enumerate(plan.arguments.tensors):
            self.register_buffer(f"constant{k}", tensor.float() if tensor.is_floating_point() else tensor)
        self.found: list[bool] = []

    def all_samples(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Samples [S, B, …] of each output, for (inputs …, draws, seed), the noise's switch and states if any."""
        plan = self.plan
        arguments, states = _cut(arguments, len(plan.states))
        arguments, switch = _cut(arguments, len(plan.switch))
        *inputs, draws, seed = arguments
        noise = None
        if plan.noise and plan.sites is not None:
            unit = self.folding.kernels.observation_noise(draws, seed, plan.width, plan.noise.degrees)
            noise = unit.unsqueeze(1) * switch[0]  # [S, 1, O]: the same for every row of a draw
        self.folding.begin(draws, seed, states)
        if plan.horizon == 1 or plan.sites is None:
            return self._step(inputs, noise)
        count, batch = draws.shape[0], inputs[0].shape[0]
        window = repeated_per_draw(inputs[0], count)  # from the second step on each draw has a window of its own
        steps = []
        for k in range(plan.horizon):
            y = self._step([window], None if noise is None else noise[:, :, k : k + 1], repeated=True)[0]
            steps.append(y)
            window = torch.cat([window[:, 1:], y.reshape(count * batch, 1, 1)], dim=1)
        return (torch.cat(steps, dim=2),)

    def _step(self, inputs: list[Tensor], noise: Tensor | None, repeated: bool = False) -> tuple[Tensor, ...]:
        """One pass of the network. `repeated`: the inputs hold rows [S·B, …] already."""
        x, *others = [v.clone() for v in inputs] if self.plan.writes else inputs
        count = self.folding.draws.shape[0]
        batch = x.reshape(count, -1, *x.shape[1:]).shape[1] if repeated else x.shape[0]
        self.folding.begin_pass(batch)
        last = None
        if self.plan.scaling.values != "levels":
            last = x[:, -1]
            x = x - last.unsqueeze(1)  # also for returns: x / last - 1 would lose what little they are to rounding
            if self.plan.scaling.values == "returns":
                x = x / last.unsqueeze(1)
        if self.scaled_input:
            mean, scale = self.input_mean, self.input_scale
            x = (x - (mean.reshape(-1) if x.dim() == 1 else mean)) / (scale.reshape(-1) if x.dim() == 1 else scale)
        inputs, arguments = [x, *others], self.plan.arguments
        if self.plan.per_draw and not repeated:
            inputs = [
                v if same else repeated_per_draw(v, count) for v, same in zip(inputs, arguments.shared, strict=True)
            ]
        tensors = [getattr(self, f"constant{k}") for k in range(len(arguments.tensors))]
        results = outputs_of(arguments.call(self.network, inputs, tensors), self.plan.outputs)
        if self.plan.sites is None:
            self.found = [y.shape[0] == batch for y in results.values()]
        shared = self.found or self.plan.shared
        unfolded = [
            y.unsqueeze(0).expand(count, *y.shape) if same else y.reshape(count, batch, *y.shape[1:])
            for y, same in zip(results.values(), shared, strict=True)
        ]
        if last is not None:
            last = last.reshape(count, batch, -1) if repeated else last
        return self._in_raw_units(self._with_noise(unfolded[0], noise), last), *unfolded[1:]

    def _with_noise(self, y: Tensor, noise: Tensor | None) -> Tensor:
        """Predictions [S, B, O], in the network's units, from its output; with noise [S, 1, O] if given."""
        if self.plan.noise is None:
            return y
        scale: Tensor
        if self.plan.noise.learned:
            y, r = torch.chunk(y, 2, dim=-1)
            scale = torch.nn.functional.softplus(r) + SMALLEST_SCALE
        else:
            scale = self.noise_scale
        return y if noise is None else y + scale * noise

    def _in_raw_units(self, y: Tensor, last: Tensor | None) -> Tensor:
        if self.plan.softmax:
            y = torch.softmax(y, dim=-1)
        if self.scaled_output:
            y = y * self.output_scale + self.output_mean
        if last is None:
            return y
        last = last[..., :1]
        return last + (y if self.plan.scaling.values == "differences" else last * y)

    def samples(self, *arguments: Tensor) -> Any:
        """The samples of the network's output; a tuple of them, and of the next states, where there are several."""
        results = (*self.all_samples(*arguments), *self.folding.next_states)
        return results if len(results) > 1 else results[0]

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        kernels = self.folding.kernels
        arguments, states = _cut(arguments, len(self.plan.states))
        arguments, switch = _cut(arguments, len(self.plan.switch))
        *others, levels = arguments
        results = self.all_samples(*others, *switch, *states)
        outputs = [[y, *kernels.summary(y, levels)] for y in results]
        if self.plan.width:
            first = outputs[0]
            (on,) = switch or (self.noise_on,)
            ends = first[0], first[3], first[4]
            first[3:] = kernels.stretch(*ends, levels, on, self.calibration_levels, self.calibration_factors)
        return (*(part for parts in outputs for part in parts), *self.folding.next_states)


def _cut(arguments: tuple[Tensor, ...], count: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """All but the last `count` arguments, and those."""
    end = len(arguments) - count
    return arguments[:end], arguments[end:]


def _constant(values: Sequence[float]) -> Tensor:
    """A tensor of values [F]; [1, 1] for a single one, which ONNX Runtime spreads over [..., 1] 40 times as fast."""
    tensor = torch.tensor(values, dtype=torch.float32)
    return tensor.reshape(1, 1) if len(values) == 1 else tensor


def outputs_of(result: Any, names: Sequence[str]) -> dict[str, Tensor]:
    """What a network returned, by name: of a dict all entries, or those named; of a tuple the first ones.

    Without names, a tensor is "output", and so is the first part of an (output, state) pair.
    """
    if isinstance(result, dict):
        missing = [name for name in names if name not in result]
        if missing:
            raise ExportError(f"The network returns no {', '.join(missing)}; it returns {', '.join(map(str, result))}.")
        found = {name: result[name] for name in names} if names else {str(key): value for key, value in result.items()}
    else:
        parts = list(_flat(result)) if isinstance(result, tuple | list) else [result]
        if not names and isinstance(result, tuple | list) and len(result) != 2:
            raise ExportError(
                f"The network returns {len(result)} values. Name those to export, in order: outputs=('first', …)."
            )
        if len(names) > len(parts):
            raise ExportError(f"outputs names {len(names)} values, but the network returns {len(parts)}.")
        found = dict(zip(names or ("output",), parts, strict=False))
    for name, value in found.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise ExportError(
                f"The network's forward must return float tensors, alone, as (output, state), or in a tuple or dict; "
                f"{name!r} is {kind}. Wrap it in a module that returns the prediction."
            )
    return found


def _flat(parts: Any) -> Any:
    for part in parts:
        if isinstance(part, tuple | list):
            yield from _flat(part)
        else:
            yield part


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Keep torch's transformer layers from their fused pass, which reads the weights of the layers inside itself."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def trial_run(network: nn.Module, posteriors: dict[str, Posterior], plan: Plan, signature: Sequence[Input]) -> Plan:
    """Run the folded network and complete the plan: sites, outputs, and whether inputs must be repeated per draw.

    At first everything before the first Bayesian layer is computed once for all draws. Where a branch makes that
    impossible (a skip connection around the first Bayesian layer adds [B, …] to [S·B, …]), inputs are repeated instead.
    """
    batch, count = _trial_sizes(signature, plan.arguments.tensors)
    first: Exception | None = None
    blamed = ""
    for per_draw in (False, True) if plan.horizon == 1 else (True,):
        attempt = replace(plan, per_draw=per_draw)
        folded = MonteCarloNetwork(network, posteriors, attempt, PLAIN)
        rows = [one.rows(batch).clone() for one in signature]
        before = [x._version for x in rows]
        try:
            with torch.no_grad(), unfused_attention(), Blame(folded.network) as blame:
                folded.samples(*rows, torch.arange(count), torch.tensor(0), *plan.switch)
        except Exception as error:  # whatever the user's forward raises when it is given S·B rows
            if first is None:
                first, blamed = error, blame.culprit
            continue
        states = tuple(state.shape[2] for state in folded.folding.next_states)
        writes = [x._version for x in rows] != before
        sites, shared = tuple(folded.folding.sites), tuple(folded.found)
        return replace(attempt, writes=writes, sites=sites, shared=shared, states=states)
    assert first is not None
    if isinstance(first, ExportError):
        raise first
    raise ExportError(
        f"{blamed} cannot run with the draws folded into the batch axis ({type(first).__name__}: {first}). "
        "A forward must treat rows independently, all at once and not in a loop over them, and take the batch's length "
        "from its input."
    ) from first


def _trial_sizes(signature: Sequence[Input], constants: Sequence[Tensor]) -> tuple[int, int]:
    """Numbers of rows and of draws that tell both, folded into the first axis, from what is no batch, and from time."""
    sizes = [one.example.numel() if one.shared else one.example[0].numel() for one in signature]
    sizes += [tensor.numel() for tensor in constants]
    batch, draws, *_ = [prime for prime in PRIMES if all(size % prime for size in sizes)] + [29, 31]
    return batch, draws


def _rebuild(network: nn.Module, posteriors: dict[str, Posterior], folding: Folding) -> nn.Module:
    done: dict[nn.Module, nn.Module] = {}
    layers = {posterior.module for posterior in posteriors.values()}
    shallow: list[nn.Module] = []

    def rebuilt(module: nn.Module, name: str) -> nn.Module:
        if module in done:  # shared modules stay shared
            return done[module]
        if name in posteriors:
            twin = make_twin(posteriors[name], folding)
        elif not any(part in layers for part in module.modules()) and not reaches_out(module):
            twin = _copied(module)
        else:
            twin = copy.copy(module)
            shallow.append(twin)
            twin.__dict__["_parameters"] = {key: _own(value) for key, value in module._parameters.items()}
            twin.__dict__["_buffers"] = {key: _own(value) for key, value in module._buffers.items()}
            children = ((key, child, f"{name}.{key}" if name else key) for key, child in module._modules.items())
            twin.__dict__["_modules"] = {
                key: None if child is None else rebuilt(child, path) for key, child, path in children
            }
        done[module] = twin
        return twin

    def twin_of(module: nn.Module) -> nn.Module:
        if module not in done:  # one that torch does not know of
            done[module] = _copied(module).requires_grad_(False)
        return done[module]

    twin = rebuilt(network, "").requires_grad_(False)
    for part in shallow:
        exchange(part, twin_of)
    return twin


def _copied(module: nn.Module) -> nn.Module:
    """A deep copy, in float32, also of a module that keeps computed tensors, which deepcopy refuses: a pruned one."""
    computed = (
        value
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    )
    return copy.deepcopy(module, {id(value): value.detach().clone() for value in computed}).to("cpu", torch.float32)


def _own(value: Tensor | None) -> Tensor | None:
    if value is None:
        return None
    copied = value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype, copy=True)
    return nn.Parameter(copied) if isinstance(value, nn.Parameter) else copied
