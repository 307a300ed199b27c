"""Random networks of BLiTZ's layers. `random_parity.py` holds their exports to BLiTZ.

A network is a `Spec`, which prints as an expression that can be pasted back: `build(Spec(...))`. Any nesting of blocks
is a network: a block makes of its input what it needs (a recurrent layer reads an image as a sequence).
"""

import copy
import importlib.util
import inspect
import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from blitz.modules import (
    BayesianConv1d,
    BayesianConv2d,
    BayesianConv3d,
    BayesianEmbedding,
    BayesianGRU,
    BayesianLinear,
    BayesianLSTM,
)
from blitz.modules.base_bayesian_module import BayesianModule
from hypothesis import strategies as st
from torch import Tensor, nn

import murho

RHO = {"posterior_rho_init": -2.0}  # σ = 0.13 beside weights of 0.1: noise matters
SCALING = murho.Scaling((0.5,), (2.0,), (-1.0,), (3.0,))
TOKENS = 11
DEPTH = 6
"""Most calls of Bayesian layers in one network."""
BAYESIAN_CONVOLUTIONS = {1: BayesianConv1d, 2: BayesianConv2d, 3: BayesianConv3d}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES: dict[str, tuple[int, ...]] = {
    "rows": (5,),
    "map1": (4, 9),
    "map2": (2, 7, 6),
    "map3": (2, 5, 4, 5),
    "sequence": (4, 3),
    "tokens": (5,),
    "columns": (3,),
    "ids": (),
}
"""The forms of an input, and the sizes of the example after the batch."""
WHOLE_NUMBERS = ("tokens", "columns", "ids")
FIXED = ("lag", "filled", "steps", "reshape", "convolution")
"""What fixes the number of steps of a sequence."""


@dataclass(frozen=True)
class Linear:
    out: int
    bias: bool = True


@dataclass(frozen=True)
class Convolution:
    out: int
    kernel: int = 1
    stride: int = 1
    padding: int | str = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Embedding:
    out: int
    padding: bool = False
    max_norm: float | None = None


@dataclass(frozen=True)
class Recurrent:
    """`layers` layers, one upon the other."""

    kind: str
    hidden: int
    bias: bool = True
    peephole: bool = False
    layers: int = 1
    hand_on: bool = False
    """Whether a layer starts in the state that the one before it ended in."""
    start: str = "zeros"
    """The first layer's state: zeros, or of the first step by a "plain" or a "bayesian" linear layer."""
    take: str = "sequence"
    """The answer: the sequence, its "last" step, or the last "state"."""


@dataclass(frozen=True)
class Plain:
    """One of torch's own modules."""

    kind: str


@dataclass(frozen=True)
class Nested:
    body: "tuple[Block, ...]"
    how: str = "sequential"


@dataclass(frozen=True)
class Residual:
    body: "tuple[Block, ...]"


@dataclass(frozen=True)
class Parallel:
    left: "tuple[Block, ...]"
    right: "tuple[Block, ...]"
    join: str = "add"


@dataclass(frozen=True)
class Twice:
    """The same modules called twice: one call after the other, or beside it where the sizes do not allow that."""

    body: "tuple[Block, ...]"


Block = Linear | Convolution | Embedding | Recurrent | Plain | Nested | Residual | Parallel | Twice


@dataclass(frozen=True)
class Spec:
    """A network, and how it is exported."""

    form: str
    blocks: tuple[Block, ...]
    head: int = 0
    """Outputs of a torch linear layer at the end; 0 for none."""
    frozen: frozenset[int] = frozenset()
    """Which of the Bayesian layers, in the order they are made, are frozen."""
    second: str = ""
    """A second input, passed by its "place" or its "name"."""
    returns: str = "tensor"
    """A tensor, a "pair" (output, state), a "tuple" of three, or a "dict" of three."""
    classes: str = ""
    """For a classification what the network returns: "logits" or "probabilities"."""
    scaled: bool = False
    local: bool = False
    fixed: str = ""
    """Of a sequence: what fixes the number of its steps, of `FIXED`."""
    shared: str = ""
    """An input that all rows share: a "table" of scales and shifts, or a "mask" of steps by steps."""
    constant: str = ""
    """A number that forward takes: in the "example", or said as an "option"."""
    layers: str = ""
    """"subclassed" with other defaults, or "pasted" into another module, in place of BLiTZ's own."""
    pruned: bool = False
    """ρ = -inf for a third of the weights."""
    training: bool = False
    """Left in training mode."""
    untied: str = ""
    """"copied" or "double": what unties BLiTZ's two copies of μ and ρ; the samplers' then move on, as in training."""
    seed: int = 0


@dataclass(frozen=True)
class Built:
    spec: Spec
    network: nn.Module
    example: Any
    options: dict[str, Any]
    features: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The example's tensors, by the names of forward's arguments."""
        if isinstance(self.example, dict):
            return {name: part for name, part in self.example.items() if isinstance(part, Tensor)}
        return {"x": self.example[0], "other": self.example[1]} if self.spec.second else {"x": self.example}

    @property
    def constants(self) -> dict[str, float]:
        return {"scale": 0.5} if self.spec.constant else {}


class Run(nn.Module):
    """Blocks one after another, from a ModuleList."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Branches(nn.Module):
    """Two branches of one input, added, or joined along the features."""

    def __init__(self, left: nn.Module, right: nn.Module, join: str) -> None:
        super().__init__()
        self.left, self.right, self.join = left, right, join

    def forward(self, x: Tensor) -> Tensor:
        return joined(self.left(x), self.right(x), self.join)


class Again(nn.Module):
    def __init__(self, body: nn.Module, chained: bool) -> None:
        super().__init__()
        self.body, self.chained = body, chained  # else beside each other

    def forward(self, x: Tensor) -> Tensor:
        once = self.body(x)
        if self.chained:
            return self.body(torch.tanh(once))
        return joined(once, self.body(torch.tanh(x) if x.is_floating_point() else x), "cat")


class Steps(nn.Module):
    """Recurrent layers with their states."""

    def __init__(self, spec: Recurrent, layers: list[nn.Module], start: nn.Module | None) -> None:
        super().__init__()
        self.layers, self.start = nn.ModuleList(layers), start
        self.lstm, self.hand_on, self.take = spec.kind == "lstm", spec.hand_on, spec.take

    def forward(self, x: Tensor) -> Tensor:
        state = None
        if self.start is not None:
            h = torch.tanh(self.start(x[:, 0]))
            state = (h, torch.zeros_like(x[:, 0, :1]).expand(-1, h.shape[-1])) if self.lstm else h
        for layer in self.layers:
            x, state = layer(x, state if self.hand_on or layer is self.layers[0] else None)
        if self.take == "state":
            return state[1] if self.lstm else state
        return x[:, -1] if self.take == "last" else x


class Shaped(nn.Module):
    """A change of shape before or after a module."""

    def __init__(self, module: nn.Module, before: str = "", after: str = "") -> None:
        super().__init__()
        self.module, self.before, self.after = module, before, after

    def forward(self, x: Tensor) -> Tensor:
        return reshaped(self.module(reshaped(x, self.before)), self.after)


class FixedTime(nn.Module):
    """A sequence [B, 4, 3] read in a way that allows no other number of steps; the answer is a sequence too."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.steps = how, SIZES["sequence"][0]
        self.convolution = nn.Conv1d(self.steps, self.steps, 1) if how == "convolution" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.convolution is not None:
            return self.convolution(x)
        if self.how == "lag":
            return x - x[:, -self.steps].unsqueeze(1)
        if self.how == "steps":
            return torch.stack([torch.tanh(x[:, step] * (step + 1)) for step in range(self.steps)], dim=1)
        if self.how == "reshape":
            return x.reshape(-1, x.shape[2], self.steps)
        filled = x.new_zeros(x.shape[0], self.steps, x.shape[2])
        for step in range(self.steps):
            filled[:, step] = x[:, step] * (step + 1)
        return filled


class Columns(nn.Module):
    """Categories [B, C], or ids [B], by an embedding for each column, side by side: [B, F]."""

    def __init__(self, embeddings: list[nn.Module]) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(embeddings)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 1:
            return self.embeddings[0](x)
        return torch.cat([embedding(x[:, k]) for k, embedding in enumerate(self.embeddings)], dim=1)


def with_shared(x: Tensor, shared: Tensor, how: str) -> Tensor:
    """x, and what all rows share: a mask [T, T] of an attention over steps, or scales and shifts [2, F]."""
    if how == "mask":
        return torch.softmax(x @ x.transpose(1, 2) + shared, dim=-1) @ x
    return x * shared[0] + shared[1]


class Whole(nn.Module):
    """The whole network: body, second input, head, and what is returned."""

    def __init__(self, spec: Spec, first: nn.Module, rest: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.first, self.rest, self.head = first, rest, head
        self.side: nn.Module | None = None
        self.join = ""
        self.returns, self.probabilities = spec.returns, spec.classes == "probabilities"
        self.shared = spec.shared

    def forward(self, x: Tensor, other: Tensor | None = None, shared: Tensor | None = None, scale: float = 1.0) -> Any:
        if shared is not None:
            x = with_shared(x, shared, self.shared)
        early = self.first(x) * scale
        late = self.rest(early)
        if self.side is not None and other is not None:
            late = joined(late, self.side(other), self.join)
        y = self.head(late)
        if self.probabilities:
            y = torch.softmax(y, dim=-1)
        if self.returns == "pair":
            return y, late
        if self.returns == "tuple":
            return y, (early, late)
        return {"y": y, "early": early, "late": late} if self.returns == "dict" else y


def _with_other_defaults(cls: Any) -> Any:
    class Own(cls):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"prior_sigma_1": 1.0, "prior_pi": 0.5, **options})

    return Own


@cache
def _pasted(file: str) -> ModuleType:
    """BLiTZ's module once more, as if its source stood in another project."""
    spec = importlib.util.spec_from_file_location(f"pasted_{Path(file).stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def as_kept(cls: Any, how: str) -> Any:
    """A BLiTZ layer's class as projects keep it."""
    if how == "pasted":
        return getattr(_pasted(inspect.getfile(cls)), cls.__name__)
    return _with_other_defaults(cls) if how == "subclassed" else cls


def reshaped(x: Tensor, how: str) -> Tensor:
    if how == "swap":  # [B, T, F] <-> [B, F, T]
        return x.transpose(1, 2)
    if how == "channel":  # [B, F] -> [B, 1, F]
        return x.unsqueeze(1)
    if how == "step":  # [B, F] -> [B, F, 1]
        return x.unsqueeze(2)
    if how == "flat":  # [B, C, …] -> [B, positions, C]
        return x.flatten(2).transpose(1, 2)
    return x


def rows(x: Tensor) -> Tensor:
    """[B, …] -> [B, F]: of a sequence or signal the last entry, of an image all values."""
    return x if x.dim() == 2 else x[:, -1] if x.dim() == 3 else x.flatten(1)


def fitting(one: Tensor, other: Tensor, how: str) -> str:
    """How to join what has these shapes: "add" or "cat" as asked for, or as "rows" where the shapes differ."""
    return how if one.shape[1:] == other.shape[1:] else "rows"  # decided here: tracers refuse a branch on sizes


def joined(one: Tensor, other: Tensor, how: str) -> Tensor:
    """Their sum, or both side by side."""
    if how == "rows":
        return torch.cat([rows(one), rows(other)], dim=1)
    return one + other if how == "add" else torch.cat([one, other], dim=1 if one.dim() > 3 else -1)


class Builder:
    """Makes modules block by block, running each to learn the sizes that the next one sees."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.features: Counter[str] = Counter()
        self.layers: list[Any] = []

    def sequence(self, blocks: tuple[Block, ...], x: Tensor) -> tuple[nn.Module, Tensor]:
        """`x` is a batch [3, …] that flows through while the network is made."""
        made: list[nn.Module] = []
        for block in blocks:
            module, x = self.block(block, x)
            made.append(module)
        return nn.Sequential(*made), x

    def block(self, block: Block, x: Tensor) -> tuple[nn.Module, Tensor]:
        if not x.is_floating_point() and not isinstance(block, Embedding | Nested | Residual | Parallel | Twice):
            embedding = nn.Embedding(TOKENS, 4)
            module, y = self.block(block, embedding(x))
            return nn.Sequential(embedding, module), y
        make: dict[type, Callable[[Any, Tensor], nn.Module]] = {
            Linear: self.linear,
            Convolution: self.convolution,
            Embedding: self.embedding,
            Recurrent: self.recurrent,
            Plain: self.plain,
            Nested: self.nested,
            Residual: self.residual,
            Parallel: self.parallel,
            Twice: self.twice,
        }
        self.features[type(block).__name__.lower()] += 1
        module = make[type(block)](block, x).eval()
        return module, self.flow(module, x)

    @staticmethod
    def adapter(y: Tensor, x: Tensor) -> nn.Module:
        """Makes y [B, …] of x's shape, if they differ in the features alone: the last axis, or the channels."""
        differ = [axis for axis, (a, b) in enumerate(zip(y.shape, x.shape, strict=False)) if a != b]
        if y.dim() == x.dim() and differ == [x.dim() - 1]:
            return nn.Linear(y.shape[-1], x.shape[-1])
        if y.dim() == x.dim() > 2 and differ == [1]:
            return CONVOLUTIONS[x.dim() - 2](y.shape[1], x.shape[1], 1)
        return nn.Identity()

    @staticmethod
    def flow(module: nn.Module, x: Tensor) -> Tensor:
        with warnings.catch_warnings(), torch.no_grad(), sampling_as_zero(module):
            return module(x)

    def register(self, layer: Any, *features: str) -> nn.Module:
        if len(self.layers) in self.spec.frozen:
            layer.freeze = True
            features = (*features, "frozen")
        self.layers.append(layer)
        name = next(cls.__name__ for cls in type(layer).__mro__ if cls.__name__.startswith("Bayesian"))
        self.features.update([name, *(f"{name} {feature}" for feature in features)])
        return layer

    def kept(self, cls: Any) -> Any:
        return as_kept(cls, self.spec.layers)

    def linear(self, block: Linear, x: Tensor) -> nn.Module:
        made = self.kept(BayesianLinear)(x.shape[-1], block.out, bias=block.bias, **RHO)
        return self.register(made, *([] if block.bias else ["no bias"]), f"on {x.dim()} axes")

    def convolution(self, block: Convolution, x: Tensor) -> nn.Module:
        before, after = ("channel", "") if x.dim() == 2 else ("", "")
        sequence = self.spec.form in ("sequence", "tokens") and x.dim() == 3
        if sequence:
            before, after = "swap", "swap"
        options = _convolution_options(block, tuple(reshaped(x, before).shape[1:]), keep_length=sequence)
        rank = reshaped(x, before).dim() - 2
        named = [f"{key} {value}" for key, value in options.items() if key in ("padding",) and isinstance(value, str)]
        for key, usual in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1), ("bias", True)):
            if not isinstance(options[key], str) and np.max(options[key]) != usual:
                named.append("no bias" if key == "bias" else key)
        return Shaped(self.register(self.kept(BAYESIAN_CONVOLUTIONS[rank])(**options, **RHO), *named), before, after)

    def prefix(self, x: Tensor) -> nn.Module:
        """What makes of the input what the blocks read."""
        spec = self.spec
        if spec.form in ("columns", "ids"):
            bayesian = spec.seed % 2 == 0
            embedding: Any = self.kept(BayesianEmbedding) if bayesian else nn.Embedding
            made = [embedding(TOKENS, 2 + k, **(RHO if bayesian else {})) for k in range(math.prod(SIZES[spec.form]))]
            return Columns([self.register(layer, spec.form) if bayesian else layer for layer in made])
        return FixedTime(spec.fixed) if spec.fixed else nn.Identity()

    def embedding(self, block: Embedding, x: Tensor) -> nn.Module:
        if x.is_floating_point():
            return nn.Identity()
        padding = 0 if block.padding else None
        made = self.kept(BayesianEmbedding)(TOKENS, block.out, padding_idx=padding, max_norm=block.max_norm, **RHO)
        named = ["padding_idx"] * block.padding + ["max_norm"] * (block.max_norm is not None)
        return self.register(made, *named)

    def recurrent(self, block: Recurrent, x: Tensor) -> nn.Module:
        before = {2: "step", 3: ""}.get(x.dim(), "flat")
        size, layers = reshaped(x, before).shape[-1], []
        start: nn.Module | None = None
        if block.start == "plain":
            start = nn.Linear(size, block.hidden)
        elif block.start == "bayesian":
            start = self.register(self.kept(BayesianLinear)(size, block.hidden, **RHO), "for a state")
        named = ([] if block.bias else ["no bias"]) + ["hand on"] * (block.hand_on and block.layers > 1)
        for _ in range(block.layers):
            if block.kind == "lstm":
                made: Any = self.kept(BayesianLSTM)(size, block.hidden, bias=block.bias, peephole=block.peephole, **RHO)
                named_lstm = [*named, *(["peephole"] * block.peephole)]
                layers.append(self.register(made, *named_lstm, f"take {block.take}"))
            else:
                made = self.kept(BayesianGRU)(size, block.hidden, bias=block.bias, **RHO)
                layers.append(self.register(made, *named, f"take {block.take}"))
            size = block.hidden
        return Shaped(Steps(block, layers, start), before)

    def plain(self, block: Plain, x: Tensor) -> nn.Module:
        self.features[f"torch {block.kind}"] += 1
        kind, form = block.kind, tuple(x.shape[1:])
        rank = len(form) - 1
        if kind == "conv":
            before = {0: "channel"}.get(rank, "")
            rank, channels = max(rank, 1), 1 if rank == 0 else form[0]
            if self.spec.form in ("sequence", "tokens") and len(form) == 2:
                before, channels = "swap", form[1]
            after = "swap" if before == "swap" else ""
            return Shaped(CONVOLUTIONS[rank](channels, 3, 3, padding=1), before, after)
        if kind == "batchnorm":
            swap = self.spec.form in ("sequence", "tokens") and len(form) == 2
            norm = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank]
            made = norm(form[1] if swap else form[0])
            nn.init.normal_(made.running_mean, std=0.2)
            nn.init.uniform_(made.running_var, 0.5, 2)
            return Shaped(made, *(("swap", "swap") if swap else ()))
        if kind == "maxpool":
            pools = {2: nn.MaxPool1d, 3: nn.MaxPool2d, 4: nn.MaxPool3d}
            fits = len(form) in pools and min(form[1:]) >= 2
            return pools[len(form)](2) if fits else nn.Identity()
        if kind == "flatten":
            free = self.spec.form in ("sequence", "tokens") and len(form) == 2
            return nn.Identity() if free else nn.Flatten()
        simple: dict[str, Callable[[], nn.Module]] = {
            "linear": lambda: nn.Linear(form[-1], 5),
            "layernorm": lambda: nn.LayerNorm(form[-1]),
            "relu": nn.ReLU,
            "tanh": nn.Tanh,
            "gelu": nn.GELU,
            "dropout": lambda: nn.Dropout(0.3),
        }
        return simple[kind]()

    def nested(self, block: Nested, x: Tensor) -> nn.Module:
        body, _ = self.sequence(block.body, x)
        self.features[f"nested {block.how}"] += 1
        return Run(list(body)) if block.how == "modulelist" else body

    def residual(self, block: Residual, x: Tensor) -> nn.Module:
        before = len(self.layers)
        first = nn.Identity() if x.is_floating_point() else nn.Embedding(TOKENS, 4)
        body, _ = self.sequence(block.body, first(x))
        self.features["residual over bayesian"] += len(self.layers) > before
        around = self.flow(first, x)
        body = nn.Sequential(body, self.adapter(self.flow(body, around), around))
        how = fitting(self.flow(body, around), around, "add")
        self.features["residual added"] += how == "add"
        return nn.Sequential(first, Branches(body, nn.Identity(), how))

    def parallel(self, block: Parallel, x: Tensor) -> nn.Module:
        counts = [len(self.layers)]
        branches, ends = [], []
        for blocks in (block.left, block.right):
            branch, y = self.sequence(blocks or (Plain("linear"),), x)
            branches.append(branch)
            ends.append(y)
            counts.append(len(self.layers))
        one_sided = (counts[0] == counts[1]) != (counts[1] == counts[2])
        self.features["parallel, one side plain"] += one_sided
        return Branches(branches[0], branches[1], fitting(ends[0], ends[1], block.join))

    def twice(self, block: Twice, x: Tensor) -> nn.Module:
        body, y = self.sequence(block.body, x)
        if x.is_floating_point():
            body = nn.Sequential(body, self.adapter(y, x))
        chained = x.is_floating_point() and self.flow(body, x).shape == x.shape
        self.features["twice in a row" if chained else "shared between branches"] += 1
        return Again(body, chained)


def _convolution_options(block: Convolution, form: tuple[int, ...], keep_length: bool) -> dict[str, Any]:
    """The options of a BLiTZ convolution for an input [B, *form]: the block's, made to fit."""
    channels, *sizes = form
    groups = block.groups if channels % block.groups == 0 else 1
    stride, padding, dilation, kernel = block.stride, block.padding, block.dilation, block.kernel
    if keep_length or padding == "same":
        stride, padding = 1, "same"
    around = 0 if isinstance(padding, str) else padding
    fits = [kernel if padding == "same" or n + 2 * around > dilation * (kernel - 1) else 1 for n in sizes]
    several = len(sizes) > 1
    return {
        "in_channels": channels,
        "out_channels": math.ceil(block.out / groups) * groups,
        "kernel_size": tuple(fits) if several else fits[0],
        "stride": (stride,) + (1,) * (len(sizes) - 1) if several else stride,  # another one for each axis
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": block.bias,
    }


def build(spec: Spec) -> Built:
    """The network in eval mode, its example [9, …] in raw units, and the options of its export."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        builder = Builder(spec)
        size = SIZES[spec.form]
        x = torch.randint(TOKENS, (9, *size)) if spec.form in WHOLE_NUMBERS else torch.randn(9, *size)
        prefix = builder.prefix(x).eval()
        first, y = builder.sequence(spec.blocks[:1], builder.flow(prefix, x))
        rest, y = builder.sequence(spec.blocks[1:], y)
        other, how = torch.randn(9, 3), ""
        side: nn.Module | None = None
        if spec.second:
            side, z = builder.sequence((Plain("linear"), Plain("tanh")), other)
            how = fitting(y, z, "cat")
            y = joined(y, z, how)
        width = max(spec.head, 2) if spec.classes else spec.head
        head = nn.Linear(y.shape[-1], width) if width else nn.Identity()
        network: nn.Module = Whole(spec, nn.Sequential(prefix, first), rest, head)
        network.side, network.join = side, how
        network.train(spec.training)
        if spec.pruned:
            with torch.no_grad():
                for name, rho in network.named_parameters():
                    if name.endswith("_sampler.rho"):
                        rho.masked_fill_(torch.rand(rho.shape) < 1 / 3, -math.inf)
        if spec.untied == "copied":
            network = copy.deepcopy(network)
        if spec.untied == "double":
            network = network.double()
        if spec.untied:
            with torch.no_grad():
                for name, parameter in network.named_parameters():
                    if name.endswith("_sampler.mu"):
                        parameter += 0.05 * torch.randn_like(parameter)
        options: dict[str, Any] = {}
        named: dict[str, Any] = {"x": x} | ({"other": other} if spec.second else {})
        if spec.shared:
            mask = torch.triu(torch.full((size[0], size[0]), -3.0), diagonal=1) if spec.shared == "mask" else None
            named["shared"] = torch.stack([torch.rand(size[-1]), torch.randn(size[-1])]) if mask is None else mask
            options["shared_inputs"] = ("shared",)
        if spec.constant == "example":
            named["scale"] = 0.5
        elif spec.constant:
            options["constants"] = {"scale": 0.5}
        example: Any = named
        if not spec.shared and spec.constant != "example" and spec.second != "name":
            example = tuple(named.values()) if spec.second else x
        if spec.returns == "tuple":
            options["outputs"] = ("y", "early", "late")
        if spec.scaled and not spec.classes and spec.form not in WHOLE_NUMBERS:
            options["scaling"] = SCALING
        if spec.classes:
            options["task"] = "classification"
        features = [*builder.features.elements(), f"form {spec.form}", f"returns {spec.returns}"]
        for name in ("second", "classes", "untied", "fixed", "shared", "constant", "layers"):
            features += [f"{name} {getattr(spec, name)}"] * bool(getattr(spec, name))
        features += ["scaled"] * ("scaling" in options) + ["pruned"] * spec.pruned + ["training mode"] * spec.training
        return Built(spec, network, example, options, tuple(features))


class sampling_as_zero:  # noqa: N801 - reads as a verb where it is used
    """While a network is made, its layers compute with their means: BLiTZ's random state and live tensors stay away."""

    def __init__(self, module: nn.Module) -> None:
        self.layers = [part for part in module.modules() if isinstance(part, BayesianModule)]

    def __enter__(self) -> None:
        self.before = [(layer.freeze, getattr(layer, "use_bias", None)) for layer in self.layers]
        for layer in self.layers:
            layer.freeze = layer.use_bias = True  # BLiTZ's GRU without bias fails

    def __exit__(self, *_: object) -> None:
        for layer, before in zip(self.layers, self.before, strict=True):
            layer.freeze, layer.use_bias = before
            if layer.use_bias is None:
                del layer.use_bias


# Drawing networks.

PLAIN_KINDS = ("relu", "tanh", "gelu", "linear", "conv", "layernorm", "batchnorm", "maxpool", "flatten", "dropout")
sizes = st.integers(1, 6)

linears = st.builds(Linear, sizes, st.booleans())
convolutions = st.builds(
    Convolution,
    sizes,
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.sampled_from([0, 1, 2, "same"]),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 4),
    bias=st.booleans(),
)
embeddings = st.builds(Embedding, sizes, st.booleans(), st.sampled_from([None, 0.4, 1.0]))
recurrents = st.builds(
    Recurrent,
    st.sampled_from(["lstm", "gru"]),
    sizes,
    bias=st.sampled_from([True, True, False]),
    peephole=st.booleans(),
    hand_on=st.booleans(),
    start=st.sampled_from(["zeros", "zeros", "plain", "bayesian"]),
    take=st.sampled_from(["sequence", "last", "state"]),
)
plains = st.builds(Plain, st.sampled_from(PLAIN_KINDS))
FAVOURITES = {
    "rows": (linears, linears, convolutions, recurrents),
    "map1": (convolutions, convolutions, linears, recurrents),
    "map2": (convolutions, convolutions, convolutions, linears),
    "map3": (convolutions, convolutions, convolutions, linears),
    "sequence": (recurrents, recurrents, linears, convolutions),
    "tokens": (recurrents, recurrents, linears, convolutions),
    "columns": (linears, linears, linears, convolutions),
    "ids": (linears, linears, linears, convolutions),
}


@st.composite
def bodies(draw: Any, form: str, calls: int, nesting: int = 2) -> tuple[Block, ...]:
    """Blocks with at most so many Bayesian calls."""
    made: list[Block] = []
    while calls > 0:
        made += draw(st.lists(plains, max_size=1))
        ways = ["layer", "layer"] if nesting == 0 else ["layer", "layer", "nested", "residual", "parallel", "twice"]
        way = draw(st.sampled_from(ways))
        if way == "layer" or (way == "twice" and calls == 1):
            block: Block = draw(st.one_of(*FAVOURITES[form]))
            if isinstance(block, Recurrent):
                extra = block.start == "bayesian"
                if calls == 1:
                    block = replace(block, start="zeros") if extra else block
                else:
                    block = replace(block, layers=draw(st.integers(1, min(calls - extra, 3))))
            made.append(block)
            calls -= bayesian_calls((block,))
            continue
        share = draw(st.integers(1, calls // 2 if way == "twice" else calls))
        inner = draw(bodies(form, share, nesting - 1))
        if way == "parallel":
            other = draw(st.integers(0, calls - share))
            right = draw(bodies(form, other, nesting - 1)) or draw(st.lists(plains, max_size=2))
            made.append(Parallel(inner, tuple(right), draw(st.sampled_from(["add", "cat"]))))
        elif way == "nested":
            made.append(Nested(inner, draw(st.sampled_from(["sequential", "modulelist"]))))
        else:
            made.append(Residual(inner) if way == "residual" else Twice(inner))
        calls -= max(1, bayesian_calls(made[-1:]))
    return tuple(made)


@st.composite
def specs(draw: Any, form: str | None = None) -> Spec:
    """Networks of 1 to 6 calls of Bayesian layers."""
    if form is None:
        form = draw(st.sampled_from(sorted(SIZES)))
    calls = draw(st.integers(1, DEPTH))
    start: tuple[Block, ...] = ()
    if form == "tokens" and draw(st.integers(0, 3)):
        start = (draw(embeddings),)
        if calls > 1 and draw(st.integers(0, 3)) == 3:
            start = (Parallel(start, (draw(embeddings),), draw(st.sampled_from(["add", "cat"]))),)
    blocks = start + draw(bodies(form, max(0, calls - bayesian_calls(start))))
    spec = Spec(
        form,
        blocks,
        head=draw(st.sampled_from([0, 2, 3])),
        second=draw(st.sampled_from(["", "", "", "", "place", "name"])),
        returns=draw(st.sampled_from(["tensor", "tensor", "tensor", "pair", "tuple", "dict"])),
        classes=draw(st.sampled_from(["", "", "", "", "logits", "probabilities"])),
        scaled=draw(st.sampled_from([False, False, False, True])),
        local=draw(st.sampled_from([False, False, True])),
        fixed=draw(st.sampled_from(["", "", *FIXED])) if form == "sequence" else "",
        shared="" if form in WHOLE_NUMBERS else draw(st.sampled_from(["", "", "", "", "table", "mask"])),
        constant=draw(st.sampled_from(["", "", "", "", "example", "option"])),
        layers=draw(st.sampled_from(["", "", "", "subclassed", "pasted"])),
        pruned=draw(st.integers(0, 5)) == 0,
        training=draw(st.integers(0, 3)) == 0,
        untied=draw(st.sampled_from(["", "", "", "", "copied", "double"])),
        seed=draw(st.integers(0, 9)),
    )
    if spec.shared == "mask" and form != "sequence":
        spec = replace(spec, shared="table")
    if spec.untied == "double" and not _survives_double(blocks):
        spec = replace(spec, untied="copied")
    layers = bayesian_layers(blocks)
    if layers > 1 and draw(st.integers(0, 2)) == 2:
        awake = draw(st.integers(0, layers - 1))
        others = [k for k in range(layers) if k != awake]
        spec = replace(spec, frozen=draw(st.frozensets(st.sampled_from(others), min_size=1)))
    return spec


def parts_of(block: Block) -> tuple[Block, ...]:
    if isinstance(block, Parallel):
        return block.left + block.right
    return block.body if isinstance(block, Nested | Residual | Twice) else ()


def bayesian_layers(blocks: Any) -> int:
    """How many Bayesian layers blocks have, an embedding of floats counted as one."""
    own = {Linear: 1, Convolution: 1, Embedding: 1}
    return sum(
        block.layers + (block.start == "bayesian")
        if isinstance(block, Recurrent)
        else own.get(type(block), 0) + bayesian_layers(parts_of(block))
        for block in blocks
    )


def bayesian_calls(blocks: Any) -> int:
    """How often they are called."""
    return sum(
        (2 if isinstance(block, Twice) else 1) * (bayesian_calls(parts_of(block)) or bayesian_layers((block,)))
        if parts_of(block)
        else bayesian_layers((block,))
        for block in blocks
    )


def _survives_double(blocks: Any) -> bool:
    """BLiTZ's recurrent layers, and its linear ones without bias, make float32 zeros: they fail in double precision."""
    return all(
        not isinstance(block, Recurrent) and (not isinstance(block, Linear) or block.bias) and _survives_double(parts)
        for block in blocks
        for parts in (parts_of(block),)
    )
