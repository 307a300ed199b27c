"""Counters that differ in one bit give independent words: a short form of benchmarks/generator_study.py."""

from collections.abc import Callable

import first_generator
import numpy as np
import pytest
import reference
from numpy.typing import NDArray

PAIRS = 2**13
MOST = 6 / np.sqrt(PAIRS)
"""Six standard errors of a correlation of zero. Among 128 · 32 of them one is beyond with a chance of 8e-6."""
Words = Callable[[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]], NDArray[np.uint32]]
"""Words [4, N] of elements, draws, upper and lower halves of seed xor stream · 2^32, each [N]."""


def present(
    element: NDArray[np.uint64], draw: NDArray[np.uint64], high: NDArray[np.uint64], low: NDArray[np.uint64]
) -> NDArray[np.uint32]:
    """The present generator's, as docs/generator.md defines them, in numpy."""
    x, y = (v.astype(np.uint32) * np.uint32(1664525) + np.uint32(1013904223) for v in (element, draw))
    x = x ^ (x >> np.uint32(16))
    y = (y ^ (y >> np.uint32(16))) * np.uint32(0x7FEB352D)
    y = (y ^ (y >> np.uint32(15))) * np.uint32(0x846CA68B)
    y = y ^ (y >> np.uint32(16))
    key = (high << np.uint64(32) | low) + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    key = key ^ (key >> np.uint64(31))
    z, w = (key >> np.uint64(32)).astype(np.uint32), key.astype(np.uint32)
    for last in (False, True):
        x = x + y * w
        y = y + z * x
        z = z + x * y
        w = w + y * z
        if not last:
            x, y, z, w = (v ^ (v >> np.uint32(16)) for v in (x, y, z, w))
    return np.stack([x, y, z, w])


def test_these_words_are_the_generators() -> None:
    for seed, stream in ((0, 0), (2**40 + 3, 5), (-1, 2**31)):
        state = (seed ^ stream << 32) % 2**64
        ones = np.ones(50, np.uint64)
        found = present(np.arange(50, dtype=np.uint64), 7 * ones, ones * (state >> 32), ones * (state % 2**32))
        np.testing.assert_array_equal(found, reference.words([7], seed, stream, 50)[0])


def dependent(words: Words, bit: int) -> bool:
    """Whether pairs of counters that differ in this of their 128 bits show it in normals, squares or equal words."""
    random = np.random.default_rng(bit)
    counters = random.integers(2**32, size=(4, PAIRS), dtype=np.uint64)
    # Half of the pairs as a network has them: low elements, draws, streams and seeds.
    counters[:, ::2] %= np.array([[1024], [4096], [32], [256]], np.uint64)
    changed = counters.copy()
    changed[bit // 32] ^= np.uint64(1 << bit % 32)
    one, other = words(*counters), words(*changed)
    if ((one >> np.uint32(8)) == (other >> np.uint32(8))).sum() > 3:  # 0.002 are expected
        return True
    values = [np.concatenate([z, (z**2 - 1) / np.sqrt(2)]) for z in (normals(one), normals(other))]
    products = (values[0] @ values[1].T / PAIRS).reshape(2, 4, 2, 4)
    return bool(max(np.abs(products[0, :, 0]).max(), np.abs(products[1, :, 1]).max()) > MOST)


def normals(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Normals [4, N] of words [4, N]."""
    u = (words >> np.uint32(8)) * 2.0**-24 + 2.0**-25
    near, far = np.sqrt(-2 * np.log(u[0])), np.sqrt(-2 * np.log(u[2]))
    one, other = 2 * np.pi * u[1], 2 * np.pi * u[3]
    return np.stack([near * np.cos(one), near * np.sin(one), far * np.cos(other), far * np.sin(other)])


@pytest.mark.parametrize("counter", range(4), ids=["element", "draw", "stream", "seed"])
def test_no_single_bit_shows(counter: int) -> None:
    assert not [bit for bit in range(32 * counter, 32 * counter + 32) if dependent(present, bit)]


def test_the_first_generators_bits_show() -> None:
    """Streams 2^31 apart, as those of noise and site 0, and 2^30 down to 2^27."""
    shown = {bit for bit in range(128) if dependent(first_generator.words, bit)}
    assert set(range(91, 96)) <= shown
