"""A network in which modules that cannot be exported have stand-ins, so that the rest of it can be looked at."""

import copy
from collections.abc import Collection
from typing import Any

import torch
from blitz.modules import BayesianLinear
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .kinds import is_layer


def with_stand_ins(network: nn.Module, refused: Collection[str]) -> nn.Module:
    """The network, its code and tensors shared, with stand-ins for the modules of these dotted names."""
    done: dict[nn.Module, nn.Module] = {}
    for module in map(network.get_submodule, refused):
        done[module] = _StandIn(module) if is_layer(module) else nn.Identity()

    def copied(module: nn.Module) -> nn.Module:
        if module not in done:
            if is_layer(module):
                done[module] = module
            else:
                done[module] = twin = copy.copy(module)
                children = module._modules.items()
                twin.__dict__["_modules"] = {key: child if child is None else copied(child) for key, child in children}
        return done[module]

    return copied(network)


class _StandIn(nn.Module):
    """Computes what its layer does under one seed, which is a fixed layer, and adds a number that is sampled."""

    zero: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._aside = (layer,)  # in a tuple: it must not be found as a layer of the network
        own = next((p for p in layer.parameters() if p.is_floating_point()), torch.zeros(()))
        self.register_buffer("zero", torch.zeros((), dtype=own.dtype, device=own.device))
        self.sampled = BayesianLinear(1, 1).to(own)
        self.sampled.posterior_rho_init = None  # nothing is to be said of its training

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_aside":
                raise
            return getattr(self._aside[0], name)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        (layer,) = self._aside
        own = next((p for p in layer.parameters() if p.is_floating_point()), self.zero)
        inputs, named = _mapped(lambda x: x.to(own), (inputs, named))  # a folded network computes in float32
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            result = layer(*inputs, **named)
        floats = [x for x in pytree.tree_leaves(result) if isinstance(x, Tensor) and x.is_floating_point() and x.dim()]
        if not floats:
            return result
        first = floats[0]
        number = self.sampled(self.zero.new_zeros(len(first), 1))

        def finished(y: Tensor) -> Tensor:
            y = torch.nan_to_num(y.to(self.zero))
            if y.dim() and len(y) == len(first):
                y = y.repeat(len(number) // len(y), *(1 for _ in y.shape[1:]))  # the number is another for each draw
                y = y + number.reshape(-1, *(1 for _ in y.shape[1:]))
            return y

        return _mapped(finished, result)


def _mapped(function: Any, tree: Any) -> Any:
    """The same tree, with `function` applied to each of its float tensors."""
    return pytree.tree_map(lambda x: function(x) if isinstance(x, Tensor) and x.is_floating_point() else x, tree)
