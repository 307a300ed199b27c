"""Keep what was drawn: the weights of draw 17 under seed 0 are the same in every call."""

from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forking import renewed_in_a_child

Arrays = tuple[NDArray[Any], ...]
Key = tuple[int, bytes]
"""Seed, and the draws as bytes."""

REMEMBERED = 4096  # keys


class Kept:
    """Arrays by seed and draws, up to a number of bytes; safe to use from several threads.

    Arrays are kept when they come for the second time: who takes a new seed for every call needs no memory for it.
    What was used longest ago goes first, but nothing goes for another chunk of the same seed: of a call that does not
    fit, the first chunks stay, where going round would keep none of use.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._arrays: OrderedDict[Key, Arrays] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self.renew()
        renewed_in_a_child(self)

    def renew(self) -> None:
        self._lock = Lock()

    def get(self, key: Key) -> Arrays | None:
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key)

    def put(self, key: Key, arrays: Arrays) -> None:
        size = _size(arrays)
        with self._lock:
            if key in self._arrays or size > self._limit or not self._come_again(key):
                return
            while self._bytes + size > self._limit:
                oldest = next(iter(self._arrays))
                if oldest[0] == key[0]:
                    return
                self._bytes -= _size(self._arrays.pop(oldest))
            self._arrays[key] = arrays
            self._bytes += size

    def _come_again(self, key: Key) -> bool:
        name = hash(key)
        if name in self._seen:
            return True
        self._seen[name] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return False


def _size(arrays: Arrays) -> int:
    return sum(np.asarray(array).nbytes for array in arrays)
