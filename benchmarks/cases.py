"""One small network for each BLiTZ layer, each of its options, and each way of building a network around them.

The parity matrix (parity.py) and the tests export them all, as ONNX and as TorchScript.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from blitz.modules.weight_sampler import PriorWeightDistribution, TrainableRandomDistribution
from blitz.utils import variational_estimator
from blitz.utils.layer_wrappers import Flipout, Radial
from torch import Tensor, nn
from torch.nn.functional import conv_transpose1d

import murho
from murho.export import register_layer

RHO = {"posterior_rho_init": -2.0}  # σ = 0.13 beside weights of 0.1: noise matters
TOKENS = 12
CONVOLUTIONS: dict[int, Any] = {1: BayesianConv1d, 2: BayesianConv2d, 3: BayesianConv3d}


@dataclass(frozen=True)
class Case:
    """A network, a batch for it, and how it is exported."""

    build: Callable[[], nn.Module]
    example: Any
    """As `to_onnx` takes it."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `to_onnx`."""
    undo: Callable[[], None] = lambda: None
    """Takes back what building has changed in BLiTZ itself."""

    @contextmanager
    def network(self) -> Iterator[nn.Module]:
        """The same network every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = self.build()
        try:
            yield built
        finally:
            self.undo()


@variational_estimator
class Forward(nn.Module):
    """A network whose forward is given: `forward(network, *inputs)`."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        return self._forward(self, *inputs, **named)


def rows(*sizes: int, batch: int = 5) -> np.ndarray:
    """Standard normal, float32 [batch, *sizes]."""
    return np.random.default_rng(0).standard_normal((batch, *sizes), dtype=np.float32)


def tokens(*sizes: int, batch: int = 5) -> np.ndarray:
    """Int64 [batch, *sizes], each token among them."""
    return (np.random.default_rng(0).permutation(batch * int(np.prod(sizes))) % TOKENS).reshape(batch, *sizes)


def linear(inputs: int, outputs: int, **more: Any) -> nn.Module:
    return BayesianLinear(inputs, outputs, **RHO, **more)


def frozen(layer: Any) -> nn.Module:
    layer.freeze = True
    return layer


def mlp() -> nn.Module:
    return nn.Sequential(linear(3, 6), nn.Tanh(), linear(6, 2))


# Linear


def linears() -> dict[str, Case]:
    def over_steps() -> nn.Module:
        return nn.Sequential(linear(3, 4), nn.Tanh(), linear(4, 2))

    def last_step() -> nn.Module:
        head = nn.Sequential(linear(4, 5), nn.ReLU(), linear(5, 2))
        return Forward(lambda net, x: net.head(net.lstm(x)[0][:, -1]), lstm=BayesianLSTM(2, 4, **RHO), head=head)

    return {
        "Linear": Case(mlp, rows(3)),
        "Linear, no bias": Case(
            lambda: nn.Sequential(linear(3, 6, bias=False), nn.Tanh(), linear(6, 2, bias=False)), rows(3)
        ),
        "Linear over steps": Case(over_steps, rows(6, 3)),
        "Linear over two axes": Case(over_steps, rows(2, 4, 3)),
        "Linear, local sampling": Case(mlp, rows(3), {"sampling": "local"}),
        "Linear, no bias, local sampling": Case(
            lambda: nn.Sequential(linear(3, 6, bias=False), nn.Tanh(), linear(6, 2, bias=False)),
            rows(3),
            {"sampling": "local"},
        ),
        "Linear behind an LSTM, local sampling": Case(last_step, rows(5, 2), {"sampling": "local"}),
    }


# Convolutions


def convolutions(rank: int) -> dict[str, Case]:
    """Each option twice in a network: on an input that all draws share, and behind another Bayesian layer."""
    kernels = {1: 3, 2: (3, 2), 3: (2, 3, 2)}[rank]
    even = {1: 4, 2: (4, 3), 3: (2, 3, 2)}[rank]  # "same" then pads one side more than the other
    several: dict[str, Any] = {1: 2, 2: (2, 1), 3: (1, 2, 1)}[rank]
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "stride": {"stride": several},
        "padding": {"padding": several},
        'padding "same"': {"padding": "same", "kernel_size": even},
        "dilation": {"dilation": several},
        "groups": {"groups": 2},
        "no bias": {"bias": False},
        "all options": {"stride": 2, "padding": several, "dilation": several, "groups": 2, "bias": False},
    }
    space = {1: (13,), 2: (9, 8), 3: (5, 10, 5)}[rank]

    def build(**chosen: Any) -> nn.Module:
        settings = {"kernel_size": kernels, **RHO, **chosen}
        cls = CONVOLUTIONS[rank]
        return nn.Sequential(cls(2, 4, **settings), nn.Tanh(), cls(4, 2, **settings))

    return {
        f"Conv{rank}d, {name}": Case(lambda chosen=chosen: build(**chosen), rows(2, *space, batch=4))
        for name, chosen in options.items()
    }


# Embedding


def embeddings() -> dict[str, Case]:
    def build(**options: Any) -> nn.Module:
        return nn.Sequential(BayesianEmbedding(TOKENS, 4, **RHO, **options), nn.Tanh(), linear(4, 2))

    def drawn_tokens() -> nn.Module:
        return Forward(
            lambda net, x: net.embedding(net.choice(x).argmax(dim=-1)),
            choice=linear(3, TOKENS),
            embedding=BayesianEmbedding(TOKENS, 2, **RHO),
        )

    return {
        "Embedding": Case(build, tokens(6)),
        "Embedding, padding_idx": Case(lambda: build(padding_idx=0), tokens(6)),
        "Embedding, max_norm": Case(lambda: build(max_norm=0.3), tokens(6)),
        "Embedding, max_norm, norm_type": Case(lambda: build(max_norm=0.5, norm_type=1.0), tokens(6)),
        "Embedding, every option": Case(lambda: build(padding_idx=3, max_norm=0.2, norm_type=3.0), tokens(6)),
        "Embedding of tokens that differ by draw": Case(drawn_tokens, rows(4, 3)),
    }


# Recurrent layers


def recurrent() -> dict[str, Case]:
    def one(layer: nn.Module) -> nn.Module:
        return Forward(lambda net, x: net.head(net.layer(x)[0][:, -1]), layer=layer, head=linear(4, 2))

    def every_step(layer: nn.Module) -> nn.Module:
        return Forward(lambda net, x: net.layer(x)[0], layer=layer)

    def states(cls: Any) -> nn.Module:
        def forward(net: Any, x: Tensor) -> Any:
            start = torch.tanh(net.start(x[:, 0]))
            first, state = net.one(x, (start, 0.5 * start) if cls is BayesianLSTM else start)
            second, state = net.two(first, state)
            return second, state

        return Forward(forward, start=nn.Linear(2, 4), one=cls(2, 4, **RHO), two=cls(4, 4, **RHO))

    made: dict[str, Case] = {}
    for cls, name, several in (
        (BayesianLSTM, "LSTM", ("output", "h", "c")),
        (BayesianGRU, "GRU", ("output", "h")),
    ):
        options: dict[str, dict[str, Any]] = {"": {}, ", no bias": {"bias": False}}
        if cls is BayesianLSTM:
            options |= {", peephole": {"peephole": True}, ", peephole, no bias": {"peephole": True, "bias": False}}
            options |= {", sharpen=True": {"sharpen": True}}
        for label, chosen in options.items():
            made[f"{name}{label}"] = Case(lambda cls=cls, chosen=chosen: one(cls(2, 4, **RHO, **chosen)), rows(6, 2))
        made[f"{name}, every step"] = Case(lambda cls=cls: every_step(cls(2, 4, **RHO)), rows(6, 2))
        made[f"{name}, states passed in and returned"] = Case(
            lambda cls=cls: states(cls), rows(6, 2), {"outputs": several}
        )
    return made


# Frozen layers beside sampling ones


def partly_frozen() -> dict[str, Case]:
    def between(layer: nn.Module, *flat: nn.Module) -> nn.Module:
        return nn.Sequential(frozen(layer), *flat)

    def sequence(cls: Any) -> nn.Module:
        def forward(net: Any, x: Tensor) -> Tensor:
            return net.after(net.frozen(net.before(x)[0])[0])[0]

        return Forward(forward, before=cls(2, 3, **RHO), frozen=frozen(cls(3, 4, **RHO)), after=cls(4, 2, **RHO))

    cases = {
        "Linear frozen first": Case(lambda: between(linear(3, 4), nn.Tanh(), linear(4, 2)), rows(3)),
        "Linear frozen last": Case(lambda: nn.Sequential(linear(3, 4), nn.Tanh(), frozen(linear(4, 2))), rows(3)),
        "Embedding frozen, max_norm": Case(
            lambda: between(BayesianEmbedding(TOKENS, 4, max_norm=0.2, **RHO), linear(4, 2)), tokens(6)
        ),
        "LSTM frozen between two": Case(lambda: sequence(BayesianLSTM), rows(5, 2)),
        "LSTM frozen, peephole": Case(
            lambda: Forward(
                lambda net, x: net.head(net.lstm(x)[0]),
                lstm=frozen(BayesianLSTM(2, 3, peephole=True, **RHO)),
                head=linear(3, 2),
            ),
            rows(5, 2),
        ),
        "GRU frozen between two": Case(lambda: sequence(BayesianGRU), rows(5, 2)),
    }
    for rank, cls in CONVOLUTIONS.items():
        kernel = 2 if rank == 1 else (2,) * rank

        def both(cls: Any = cls, kernel: Any = kernel) -> nn.Module:
            options = {"kernel_size": kernel, "padding": 1, **RHO}
            return nn.Sequential(
                frozen(cls(2, 3, **options)), nn.ReLU(), cls(3, 2, **options), frozen(cls(2, 2, **options))
            )

        cases[f"Conv{rank}d frozen around a sampling one"] = Case(both, rows(2, *(4,) * rank))
    return cases


# Ways to build a network


class Block(nn.Module):
    """Residual, with a deterministic branch beside."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(linear(size, size), nn.ReLU())
        self.side = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x) + torch.sigmoid(self.side(x))


def moped() -> nn.Module:
    network = Forward(lambda net, x: net.two(torch.tanh(net.one(x))), one=linear(3, 6), two=linear(6, 2))
    network.MOPED_(delta=0.5)
    return network


def copied_and_trained() -> nn.Module:
    network = copy.deepcopy(mlp())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.ones(4, 3)).square().mean().backward()
    optimizer.step()
    return network


def structures() -> dict[str, Case]:
    def twice() -> nn.Module:
        return Forward(lambda net, x: net.out(net.same(torch.tanh(net.same(x)))), same=linear(4, 4), out=linear(4, 2))

    def shared() -> nn.Module:
        def forward(net: Any, x: Tensor) -> Tensor:
            return torch.cat([net.left(net.same(x)), torch.tanh(net.same(2 * x))], dim=1)

        return Forward(forward, same=linear(4, 3), left=linear(3, 2))

    def one_module_two_names() -> nn.Module:
        layer = linear(3, 3)
        return nn.Sequential(layer, nn.Tanh(), layer, linear(3, 2))

    def module_list() -> nn.Module:
        def forward(net: Any, x: Tensor) -> Tensor:
            for layer in net.layers:
                x = torch.relu(layer(x))
            return net.out(x)

        layers = nn.ModuleList([linear(3, 4), nn.Linear(4, 4), linear(4, 4)])
        return Forward(forward, layers=layers, out=linear(4, 1))

    def around() -> nn.Module:
        return Forward(lambda net, x: net.head(x + torch.tanh(net.inner(x))), inner=linear(3, 3), head=nn.Linear(3, 2))

    def beside() -> nn.Module:
        return Forward(
            lambda net, x: torch.cat([net.bayesian(x), net.plain(x)], dim=-1),
            bayesian=linear(3, 2),
            plain=nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
        )

    def mixed() -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(2, 4, 3, padding=1),
            nn.BatchNorm1d(4),
            nn.ReLU(),
            BayesianConv1d(4, 4, 3, padding=1, **RHO),
            nn.MaxPool1d(2),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.LayerNorm(16),
            linear(16, 2),
        ).eval()

    return {
        "a layer called twice": Case(twice, rows(4)),
        "an LSTM called twice": Case(
            lambda: Forward(lambda net, x: net.lstm(net.lstm(x)[0])[0][:, -1], lstm=BayesianLSTM(3, 3, **RHO)),
            rows(5, 3),
        ),
        "a layer shared between branches": Case(shared, rows(4)),
        "a layer under two names": Case(one_module_two_names, rows(3)),
        "nested modules": Case(
            lambda: nn.Sequential(nn.Linear(3, 4), nn.Sequential(Block(4), nn.Sequential(Block(4))), linear(4, 2)),
            rows(3),
        ),
        "Sequential": Case(
            lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), linear(8, 4), nn.GELU(), nn.Linear(4, 4), linear(4, 2)),
            rows(3),
        ),
        "Sequential of layers of every kind": Case(mixed, rows(2, 8)),
        "ModuleList": Case(module_list, rows(3)),
        "a residual branch around": Case(around, rows(3)),
        "a parallel branch without a Bayesian layer": Case(beside, rows(3)),
        "MOPED_": Case(moped, rows(3)),
        "double precision": Case(lambda: mlp().double(), rows(3)),
        "deep-copied and trained": Case(copied_and_trained, rows(3)),
        "Flipout(Linear)": Case(
            lambda: nn.Sequential(Flipout(BayesianLinear)(3, 4, **RHO), nn.Tanh(), linear(4, 2)),
            rows(3),
            {"flipout": "plain"},
        ),
        "Flipout(Conv2d)": Case(
            lambda: nn.Sequential(Flipout(BayesianConv2d)(2, 3, (2, 2), **RHO), nn.Flatten(), nn.Linear(27, 2)),
            rows(2, 4, 4),
            {"flipout": "plain"},
        ),
        "Flipout(LSTM)": Case(
            lambda: Forward(lambda net, x: net.lstm(x)[0], lstm=Flipout(BayesianLSTM)(2, 3, **RHO)),
            rows(5, 2),
            {"flipout": "plain"},
        ),
        "Radial(Linear)": Case(
            lambda: nn.Sequential(Radial(BayesianLinear)(3, 4, **RHO), nn.Tanh(), linear(4, 2)),
            rows(3),
            undo=lambda: delattr(BayesianLinear, "sample"),
        ),
        "a layer of the user's own": Case(own_layer, rows(3, 5)),
        "scaled": Case(
            mlp,
            rows(3) * 5 + 20,
            {"scaling": murho.Scaling((20.0, 21.0, 19.0), (5.0, 4.0, 6.0), (100.0, -3.0), (10.0, 0.5))},
        ),
    }


# Inputs and outputs


def signatures() -> dict[str, Case]:
    def two_inputs() -> nn.Module:
        return Forward(
            lambda net, x, other: net.head(torch.cat([torch.tanh(net.left(x)), net.right(other)], dim=1)),
            left=linear(3, 4),
            right=nn.Linear(2, 3),
            head=linear(7, 2),
        )

    def by_name() -> nn.Module:
        def forward(net: Any, window: Tensor, words: Tensor) -> Tensor:
            sequence, _ = net.lstm(torch.cat([window, net.embedding(words)], dim=-1))
            return net.head(sequence[:, -1])

        return Forward(
            forward,
            embedding=BayesianEmbedding(TOKENS, 3, **RHO),
            lstm=BayesianLSTM(5, 4, **RHO),
            head=linear(4, 1),
        )

    def several(as_dict: bool) -> nn.Module:
        def forward(net: Any, x: Tensor) -> Any:
            same = net.plain(x)
            early = torch.relu(net.one(same))
            late = net.two(early)
            return {"late": late, "early": early, "same": same} if as_dict else (late, (early, same))

        return Forward(forward, plain=nn.Linear(3, 4), one=linear(4, 5), two=linear(5, 2))

    def classes(probabilities: bool) -> nn.Module:
        layers = [linear(4, 8), nn.ReLU(), linear(8, 3)]
        return nn.Sequential(*layers, *([nn.Softmax(dim=-1)] if probabilities else []))

    return {
        "two inputs, a tuple": Case(two_inputs, (rows(3), rows(2) + 1)),
        "two inputs, a dict of values and tokens": Case(by_name, {"window": rows(6, 2), "words": tokens(6)}),
        "three outputs, a tuple": Case(lambda: several(False), rows(3), {"outputs": ("late", "early", "same")}),
        "three outputs, a dict": Case(lambda: several(True), rows(3)),
        "one output of a dict": Case(lambda: several(True), rows(3), {"outputs": ("early",)}),
        "classification, logits": Case(lambda: classes(False), rows(4), {"task": "classification"}),
        "classification, probabilities": Case(lambda: classes(True), rows(4), {"task": "classification"}),
    }


# A layer of the user's own


class BayesianUpsample(BayesianModule):
    """A transposed convolution whose stride is its kernel: [B, C, L] -> [B, O, L · K]."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.freeze = False
        self.kernel = kernel
        for name, shape in (("weight", (inputs, outputs, kernel)), ("bias", (outputs,))):
            mu, rho = 0.3 * torch.randn(shape), torch.full(shape, -2.0) + torch.randn(shape)
            setattr(self, f"{name}_sampler", TrainableRandomDistribution(nn.Parameter(mu), nn.Parameter(rho)))
        self.prior = PriorWeightDistribution()
        self.log_prior, self.log_variational_posterior = 0, 0

    def forward(self, x: Tensor) -> Tensor:
        if self.freeze:
            return conv_transpose1d(x, self.weight_sampler.mu, self.bias_sampler.mu, stride=self.kernel)
        weight, bias = self.weight_sampler.sample(), self.bias_sampler.sample()
        self.log_prior = self.prior.log_prior(weight) + self.prior.log_prior(bias)
        self.log_variational_posterior = self.weight_sampler.log_posterior() + self.bias_sampler.log_posterior()
        return conv_transpose1d(x, weight, bias, stride=self.kernel)


@register_layer(BayesianUpsample, tensors=("weight", "bias"))
def upsample(layer: BayesianUpsample, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Without overlap each input value writes K outputs of its own."""
    weight, bias = weights["weight"], weights["bias"]
    y = torch.einsum("sbil,siok->sbolk", x.expand(weight.shape[0], *x.shape[1:]), weight)
    return y.flatten(-2) + bias[:, None, :, None]


def own_layer() -> nn.Module:
    return nn.Sequential(BayesianUpsample(3, 4, 2), nn.Tanh(), BayesianUpsample(4, 2, 3))


# The networks of BLiTZ's examples


def boston() -> nn.Module:
    """Its regressor of house prices from 13 features."""
    return nn.Sequential(linear(13, 512), nn.ReLU(), linear(512, 1))


def lenet() -> nn.Module:
    """Its classifier of 28 × 28 digits."""
    return nn.Sequential(
        BayesianConv2d(1, 6, (5, 5), **RHO),
        nn.ReLU(),
        nn.MaxPool2d(2),
        BayesianConv2d(6, 16, (5, 5), **RHO),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        linear(256, 120),
        nn.ReLU(),
        linear(120, 84),
        nn.ReLU(),
        linear(84, 10),
    )


def vgg11(share: int = 16) -> nn.Module:
    """Its VGG11 for small images (32 × 32 in colour), with a `share`-th of the filters."""
    layers: list[nn.Module] = []
    channels = 3
    for filters in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        if not filters:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [BayesianConv2d(channels, filters // share, (3, 3), padding=1, **RHO), nn.ReLU()]
        channels = filters // share
    dense = [linear(channels, channels), nn.ReLU(), linear(channels, channels), nn.ReLU(), linear(channels, 10)]
    return nn.Sequential(nn.Sequential(*layers), nn.Flatten(), nn.Sequential(*dense))


def examples() -> dict[str, Case]:
    return {
        "BLiTZ's Boston regressor": Case(boston, rows(13)),
        "BLiTZ's LeNet, 28 × 28": Case(lenet, rows(1, 28, 28, batch=3), {"task": "classification"}),
        "BLiTZ's VGG11, 32 × 32, narrow": Case(vgg11, rows(3, 32, 32, batch=2), {"task": "classification"}),
    }


CASES: dict[str, Case] = {
    **linears(),
    **{name: case for rank in CONVOLUTIONS for name, case in convolutions(rank).items()},
    **embeddings(),
    **recurrent(),
    **partly_frozen(),
    **structures(),
    **signatures(),
    **examples(),
}
