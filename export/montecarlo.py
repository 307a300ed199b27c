"""A BLiTZ network's Monte-Carlo form: all draws in one forward pass, with the artifact's signature.

The user's network is neither changed nor deep-copied (BLiTZ's live tensors break deepcopy). Its module tree is rebuilt
with BLiTZ's layers replaced by their twins; every other module shares its code and has its own float32 tensors.
"""

import copy
from typing import Any

import torch
from blitz.modules.base_bayesian_module import BayesianModule
from torch import Tensor, nn

from ..runtime.contract import Scaling
from ..runtime.errors import ExportError
from .kernels import gru, linear, lstm, summary
from .layers import Folding, Kernels, SiteRecord, make_twin
from .posterior import Posterior

PLAIN = Kernels(linear, lstm, gru, summary)

# No product of two of these equals another: every size of an axis tells where it comes from.
TRIAL_DRAWS, TRIAL_BATCH = 5, 3


class MonteCarloNetwork(nn.Module):
    """x [B, …] raw units, draws int64 [S], seed int64, levels [K] -> samples, mean, std, lower, upper."""

    input_mean: Tensor
    input_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        posteriors: dict[str, Posterior],
        scaling: Scaling,
        kernels: Kernels,
        per_draw: bool = False,
        sites: list[SiteRecord] | None = None,
    ) -> None:
        """`per_draw` repeats x for every draw at the start, where the user's code needs all rows to be there.

        Without `sites` the next pass is a trial run, which records them.
        """
        super().__init__()
        self.folding = Folding(kernels, sites)
        self.network = _rebuild(network, posteriors, self.folding).eval()
        self.per_draw = per_draw
        for name in ("input_mean", "input_scale", "output_mean", "output_scale"):
            self.register_buffer(name, torch.tensor(getattr(scaling, name), dtype=torch.float32))
        self.relative = scaling.relative
        self.scaled_input = scaling.input_mean != (0.0,) or scaling.input_scale != (1.0,)
        self.scaled_output = scaling.output_mean != (0.0,) or scaling.output_scale != (1.0,)

    def samples(self, x: Tensor, draws: Tensor, seed: Tensor) -> Tensor:
        """Samples [S, B, …] alone."""
        count, batch = draws.shape[0], x.shape[0]
        self.folding.begin(draws, seed, batch)
        last = x[:, -1] if self.relative else None
        if last is not None:
            x = x - last.unsqueeze(1)
        if self.scaled_input:
            x = (x - self.input_mean) / self.input_scale
        if self.per_draw:
            x = x.unsqueeze(0).expand(count, *x.shape).reshape(-1, *x.shape[1:])
        y = first_output(self.network(x))
        if self.scaled_output:
            y = y * self.output_scale + self.output_mean
        y = y.reshape(count, batch, *y.shape[1:])
        return y if last is None else y + last[:, :1]

    def forward(
        self, x: Tensor, draws: Tensor, seed: Tensor, levels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        samples = self.samples(x, draws, seed)
        mean, std, lower, upper = self.folding.kernels.summary(samples, levels)
        return samples, mean, std, lower, upper


def first_output(result: Any) -> Tensor:
    """The prediction of a network that returns a tensor, or (output, state)."""
    if isinstance(result, tuple | list) and len(result) == 2:
        result = result[0]
    if not isinstance(result, Tensor) or not result.is_floating_point():
        raise ExportError(
            "The network's forward must return a float tensor or (output, state), but returns "
            f"{type(result).__name__}. Wrap it in a module that returns the prediction."
        )
    return result


def trial_run(
    network: nn.Module, posteriors: dict[str, Posterior], scaling: Scaling, x: Tensor
) -> tuple[bool, list[SiteRecord]]:
    """Run the folded network once: (whether x must be repeated per draw, the sites that were passed).

    At first everything before the first Bayesian layer is computed once for all draws. Where a branch makes that
    impossible (a skip connection around the first Bayesian layer adds [B, …] to [S·B, …]), x is repeated instead.
    """
    x = repeat_rows(x, TRIAL_BATCH)
    draws, seed = torch.arange(TRIAL_DRAWS), torch.tensor(0)
    first: Exception | None = None
    for per_draw in (False, True):
        folded = MonteCarloNetwork(network, posteriors, scaling, PLAIN, per_draw)
        try:
            with torch.no_grad():
                folded.samples(x, draws, seed)
        except Exception as error:  # whatever the user's forward raises when it is given S·B rows
            first = first or error
            continue
        return per_draw, folded.folding.sites
    assert first is not None
    if isinstance(first, ExportError):
        raise first
    raise ExportError(
        f"The network cannot run with the draws folded into its batch axis ({type(first).__name__}: {first}). "
        "Its forward must treat rows independently and take the batch's length from its input."
    ) from first


def repeat_rows(x: Tensor, rows: int) -> Tensor:
    """The rows of x again and again, until there are `rows` of them."""
    return x[torch.arange(rows) % len(x)]


def _rebuild(network: nn.Module, posteriors: dict[str, Posterior], folding: Folding) -> nn.Module:
    done: dict[nn.Module, nn.Module] = {}

    def rebuilt(module: nn.Module, name: str) -> nn.Module:
        if module in done:  # shared modules stay shared
            return done[module]
        if name in posteriors:
            twin = make_twin(posteriors[name], module, folding)
        elif not any(isinstance(part, BayesianModule) for part in module.modules()):
            twin = copy.deepcopy(module).to("cpu", torch.float32)
        else:
            twin = copy.copy(module)
            twin.__dict__["_parameters"] = {key: _own(value) for key, value in module._parameters.items()}
            twin.__dict__["_buffers"] = {key: _own(value) for key, value in module._buffers.items()}
            children = ((key, child, f"{name}.{key}" if name else key) for key, child in module._modules.items())
            twin.__dict__["_modules"] = {
                key: None if child is None else rebuilt(child, path) for key, child, path in children
            }
        done[module] = twin
        return twin

    return rebuilt(network, "").requires_grad_(False)


def _own(value: Tensor | None) -> Tensor | None:
    if value is None:
        return None
    copied = value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype, copy=True)
    return nn.Parameter(copied) if isinstance(value, nn.Parameter) else copied
