"""What an artifact must answer, in plain numpy and float64, written from docs/design.md without any of murho's code.

S draws, B batch, T time, F features, H hidden units, O outputs, K levels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.uint64]

BITS = np.uint64(0xFFFFFFFF)
NOISE_STREAM = 2**31
SMALLEST_SCALE = 0.001


# The generator: SplitMix64 (Steele, Lea & Flood, 2014), lowbias32 (Wellons, 2018), pcg4d (Jarzynski & Olano, JCGT 9(3),
# 2020), then Box & Muller (1958).


def words(draws: Sequence[int], seed: int, stream: int, quarter: int) -> Integers:
    """The output words x, y, z, w, [S, 4, quarter], each from 0 to 2^32 - 1."""
    v = np.empty((4, len(draws), quarter), dtype=np.uint64)
    v[0] = np.arange(quarter)
    v[1] = np.array([draw % 2**32 for draw in draws], dtype=np.uint64)[:, np.newaxis]
    v[:2] = (v[:2] * np.uint64(1664525) + np.uint64(1013904223)) & BITS
    v[:2] ^= v[:2] >> np.uint64(16)
    for factor, shift in ((0x7FEB352D, 15), (0x846CA68B, 16)):
        v[1] = (v[1] * np.uint64(factor)) & BITS
        v[1] ^= v[1] >> np.uint64(shift)
    v[2], v[3] = divmod(splitmix64((seed ^ stream << 32) % 2**64), 2**32)
    _mix(v)
    v ^= v >> np.uint64(16)
    _mix(v)
    return np.moveaxis(v, 0, 1)


def splitmix64(state: int) -> int:
    """The first number from this state; both from 0 to 2^64 - 1."""
    v = (state + 0x9E3779B97F4A7C15) % 2**64
    v = (v ^ v >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    v = (v ^ v >> 27) * 0x94D049BB133111EB % 2**64
    return v ^ v >> 31


def _mix(v: Integers) -> None:
    for target, a, b in ((0, 1, 3), (1, 2, 0), (2, 0, 1), (3, 1, 2)):
        v[target] = (v[target] + v[a] * v[b]) & BITS


def normals(draws: Sequence[int], seed: int, stream: int, n: int) -> Floats:
    """Standard normals [S, n]. The uniforms are rounded to float32, which is part of the generator's definition."""
    top = (words(draws, seed, stream, -(-n // 4)) >> np.uint64(8)).astype(np.float32)
    uniform = (top * np.float32(2**-24) + np.float32(2**-25)).astype(np.float64)
    lanes = []
    for radius, turn in ((0, 1), (2, 3)):
        length, angle = np.sqrt(-2 * np.log(uniform[:, radius])), 2 * np.pi * uniform[:, turn]
        lanes += [length * np.cos(angle), length * np.sin(angle)]
    return np.concatenate(lanes, axis=1)[:, :n]


# The posterior, and one draw of it.


@dataclass(frozen=True)
class Site:
    """One call of a Bayesian layer: means and standard deviations of its tensors, in the posterior's order."""

    mu: tuple[Floats, ...]
    sigma: tuple[Floats, ...]

    def sampled(self, draw: int, seed: int, stream: int) -> list[Floats]:
        """The tensors' weights in one draw."""
        sizes = [tensor.size for tensor in self.mu]
        epsilon = np.split(normals([draw], seed, stream, sum(sizes))[0], np.cumsum(sizes)[:-1])
        return [m + s * e.reshape(m.shape) for m, s, e in zip(self.mu, self.sigma, epsilon, strict=True)]


Weights = list[list[Floats]]
"""One draw's tensors, site by site."""
Network = Callable[[Weights, Floats], Floats]
"""Predictions [B, O] from one draw's weights and inputs [B, …], both in the network's units."""


def draw_of(sites: Sequence[Site], draw: int, seed: int) -> Weights:
    return [site.sampled(draw, seed, stream) for stream, site in enumerate(sites)]


# Layers.


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def lstm_last(x: Floats, weight_ih: Floats, weight_hh: Floats, bias: Floats) -> Floats:
    """The last hidden state [B, H] for x [B, T, F]; gates in the order input, forget, cell, output."""
    hidden = weight_hh.shape[0]
    h = c = np.zeros((len(x), hidden))
    for step in range(x.shape[1]):
        gates = x[:, step] @ weight_ih + h @ weight_hh + bias
        i, f, g, o = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def linear(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """x [B, I] with weight [O, I]."""
    return x @ weight.T + bias


def convolution(x: Floats, weight: Floats, bias: Floats, padding: int) -> Floats:
    """x [B, C, height, width] with weight [O, C, k, k], stride 1."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    size = weight.shape[2]
    height, width = x.shape[2] - size + 1, x.shape[3] - size + 1
    y = np.empty((len(x), len(weight), height, width))
    for row in range(height):
        for column in range(width):
            patch = x[:, :, row : row + size, column : column + size]
            y[:, :, row, column] = np.einsum("bcij,ocij->bo", patch, weight) + bias
    return y


def relu(x: Floats) -> Floats:
    return np.maximum(x, 0)


def pooled(x: Floats) -> Floats:
    """The largest of each 2 × 2 pixels."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5))


def softmax(x: Floats) -> Floats:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# Samples.


@dataclass(frozen=True)
class Units:
    """Between raw and the network's units: one mean and scale of the input and of the output."""

    input_mean: float = 0.0
    input_scale: float = 1.0
    output_mean: float = 0.0
    output_scale: float = 1.0
    returns: bool = False
    """The network reads and predicts changes relative to the window's last row."""

    def read(self, x: Floats) -> Floats:
        seen = x / x[:, -1:] - 1 if self.returns else x
        return (seen - self.input_mean) / self.input_scale

    def raw(self, y: Floats, x: Floats) -> Floats:
        y = y * self.output_scale + self.output_mean
        return x[:, -1] * (1 + y) if self.returns else y


def samples(
    network: Network, sites: Sequence[Site], units: Units, x: Floats, draws: Sequence[int], seed: int
) -> Floats:
    """[S, B, O] in raw units, without observation noise."""
    return np.stack([units.raw(network(draw_of(sites, draw, seed), units.read(x)), x) for draw in draws])


def paths(
    network: Network,
    sites: Sequence[Site],
    units: Units,
    x: Floats,
    draws: Sequence[int],
    seed: int,
    horizon: int,
    degrees: int,
    noise: float,
) -> Floats:
    """[S, B, horizon]: each draw's prediction, with its noise, becomes the next value of its window [B, T, 1].

    The network gives [B, 2]: a prediction and the scale of its noise, before the softplus. The noise is Student-t with
    `degrees`, and counts `noise` times: 1 or 0.
    """
    unit = student_t(normals(draws, seed, NOISE_STREAM, horizon * (degrees + 1)), degrees)
    answers = []
    for draw, epsilon in zip(draws, unit, strict=True):
        weights, window, path = draw_of(sites, draw, seed), x, []
        for step in range(horizon):
            y, r = np.split(network(weights, units.read(window)), 2, axis=1)
            scale = np.log1p(np.exp(r)) + SMALLEST_SCALE
            y = units.raw(y + noise * scale * epsilon[step], window)
            path.append(y)
            window = np.concatenate([window[:, 1:], y[:, np.newaxis]], axis=1)
        answers.append(np.concatenate(path, axis=1))
    return np.stack(answers)


def student_t(z: Floats, degrees: int) -> Floats:
    """[S, O] from normals [S, O · (degrees + 1)]: the first O, over the root mean square of `degrees` others."""
    blocks = z.reshape(len(z), degrees + 1, -1)
    return blocks[:, 0] / np.sqrt(np.mean(blocks[:, 1:] ** 2, axis=1))


# Statistics.


@dataclass(frozen=True)
class Summary:
    mean: Floats
    std: Floats
    lower: Floats
    upper: Floats


def summary(
    values: Floats, levels: Floats, calibrated: Sequence[float] = (0.5,), factors: Sequence[Sequence[float]] = ()
) -> Summary:
    """Of samples [S, B, O] at levels [K]: ends [K, B, O], stretched by `factors` [L, O] of the levels `calibrated` [L].

    Between those levels factors are interpolated, beyond them they stay.
    """
    table = np.array(factors or np.ones((1, values.shape[2])))
    factor = np.stack([np.interp(levels, calibrated, column) for column in table.T], axis=1)[:, np.newaxis]
    median = np.quantile(values, 0.5, axis=0)
    lower, upper = (np.quantile(values, (1 + sign * levels) / 2, axis=0) for sign in (-1, 1))
    return Summary(
        mean=values.mean(axis=0),
        std=values.std(axis=0, ddof=1),
        lower=median - factor * (median - lower),
        upper=median + factor * (upper - median),
    )
