"""Draw weights by compiled code in place of the file's own nodes: several times as fast, equal to float32 rounding.

The half of a file that draws (see `split`) is cut once more. μ and σ are constants, computed when the file is loaded;
the weights μ + σ ⊙ ε follow from them by `compiled/draw.c`; the nodes behind that, such as a transposition, stay
ONNX's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .graph import KIND, MAKES, READS, attribute, makers, nodes, part
from .kept import Arrays
from .parts import Opened, Part, _compiled
from .protobuf import strings

Sampler = Callable[[NDArray[np.int64], int], Arrays]
"""Draws [S] and a seed -> what is drawn, each [S, …]."""


@dataclass(frozen=True)
class _Site:
    weights: str
    """Name of the tensor [S, n] that is made."""
    number: int
    mu: str
    sigma: str


def by_nodes(half: bytes, drawn: Sequence[str], opened: Opened) -> Sampler:
    """A sampler for the half that draws, by its own nodes; its arrays are those of `drawn`."""
    session = opened(half)
    return lambda draws, seed: tuple(session.run(drawn, {"draws": draws, "seed": np.array(seed, dtype=np.int64)}))


def compiled(half: bytes, drawn: Sequence[str], opened: Opened, views: Mapping[str, tuple[int, int]]) -> Sampler | None:
    """The same by compiled code; None where there is none, or no weights are drawn.

    `views` names drawn arrays that need no memory of their own where they are a site's weights, reshaped to these sizes
    for each draw and transposed.
    """
    view = memoryview(half)
    every = nodes(view)
    sites = [_site(node) for node in every if _draws_weights(node)]
    if _compiled is None or not sites:
        return None
    constants = list(dict.fromkeys(name for site in sites for name in (site.mu, site.sigma)))
    values = opened(part(view, makers(every, constants), [], constants)).run(constants, {})
    posterior = {name: np.ascontiguousarray(value) for name, value in zip(constants, values, strict=True)}
    weights = [site.weights for site in sites]
    sources = {name: _only_transposed(every, name) for name in views}
    seen = {name: source for name, source in sources.items() if source in weights}
    further = [name for name in drawn if name not in weights and name not in seen]
    behind = [node for node in makers(every, further) if not _draws_weights(node)]
    finish = Part(opened(part(view, behind, weights, further)), further) if further else None

    def sample(draws: NDArray[np.int64], seed: int) -> Arrays:
        made: dict[str, NDArray[np.float32]] = {}
        for site in sites:
            mu, sigma = posterior[site.mu], posterior[site.sigma]
            made[site.weights] = np.empty((len(draws), len(mu)), dtype=np.float32)
            _compiled.draw(draws, seed, site.number, mu, sigma, made[site.weights])
        if finish:
            made |= finish({"draws": draws, "seed": np.array(seed, dtype=np.int64)} | made)
        for name, source in seen.items():
            made[name] = made[source].reshape(-1, *views[name]).transpose(0, 2, 1)
        return tuple(made[name] for name in drawn)

    return sample


def _draws_weights(node: memoryview) -> bool:
    """For the draws of a call, that is: a frozen layer has a single one of its own."""
    return strings(node, KIND) == ["BayesianWeights"] and strings(node, READS)[:2] == ["draws", "seed"]


def _only_transposed(nodes: Sequence[memoryview], name: str) -> str:
    """The site's weights that a tensor is but for a reshape and a transposition; "" where it is more."""
    chain = makers(nodes, [name])[-3:]
    if [strings(node, KIND)[0] for node in chain] != ["BayesianWeights", "Reshape", "Transpose"]:
        return ""
    return strings(chain[1], READS)[0]


def _site(node: memoryview) -> _Site:
    _, _, mu, sigma = strings(node, READS)
    (weights,) = strings(node, MAKES)
    return _Site(weights, attribute(node, "site"), mu, sigma)
