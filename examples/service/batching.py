"""Micro-batching: requests that ask the same of different rows share one call of the model.

A row's answer does not depend on the rows beside it, so nobody can tell: the answers only come sooner under load.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

Inputs = tuple[NDArray[Any], ...]


class BusyError(Exception):
    """More is waiting than the service promises to answer in good time."""


@dataclass
class Request:
    inputs: Inputs
    """One array [rows, …] for each input of the network."""
    cost: int
    answer: asyncio.Future[tuple[Any, slice]]

    @property
    def rows(self) -> int:
        return len(self.inputs[0])


@dataclass
class Group:
    """Requests that may share a call, oldest first."""

    requests: deque[Request] = field(default_factory=deque)
    full: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, most_rows: int, most_cost: int) -> list[Request]:
        """The oldest requests, of so many rows and so much cost in all; a larger one alone."""
        batch: list[Request] = []
        rows = cost = 0
        while self.requests:
            request = self.requests[0]
            if request.answer.done():  # its requester has gone
                self.requests.popleft()
                continue
            rows, cost = rows + request.rows, cost + request.cost
            if batch and (rows > most_rows or cost > most_cost):
                break
            batch.append(self.requests.popleft())
        return batch


class Batcher:
    """Calls `model(key, inputs)` on a thread of its own, once for all requests that came with the same key.

    The first request of a key waits `window` seconds for others, unless `batch_rows` rows or `batch_cost` are there
    before, which are the most that a call gets, but for a single request that is larger. One call runs at a time; while
    it runs, the next batch grows. At most `waiting_cost` waits or is computed at once. Where a call of several requests
    fails each is asked alone. `called(rows, requests)` hears of every call. `shared` says of each input whether
    all rows of a call share it; requests of one key have the same one.
    """

    def __init__(
        self,
        model: Callable[[Any, Inputs], Any],
        window: float,
        batch_rows: int,
        batch_cost: int,
        waiting_cost: int,
        called: Callable[[int, int], None] = lambda rows, requests: None,
        shared: Sequence[bool] = (),
    ) -> None:
        self._model, self._window, self._shared = model, window, shared
        self._batch_rows, self._batch_cost, self._waiting_cost = batch_rows, batch_cost, waiting_cost
        self._called = called
        self._groups: dict[Hashable, Group] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop itself holds tasks only weakly
        self._free = asyncio.Semaphore(1)
        self._thread = ThreadPoolExecutor(1, "batch")
        self.waiting = 0
        """The cost of what waits or is computed."""

    async def ask(self, key: Hashable, inputs: Inputs, cost: int) -> tuple[Any, slice]:
        """The model's answer to the batch that these rows went into, and their place in it.

        Requests of one key must have inputs of equal shape [rows, …] but for the rows. Who stops waiting, cancelled,
        costs nothing unless the call has begun. Raises BusyError where too much is waiting, and what the model raises.
        """
        request = Request(inputs, cost, asyncio.get_running_loop().create_future())
        if self.waiting + cost > self._waiting_cost:
            raise BusyError(
                f"Requests that cost {self.waiting} are waiting for their answers; with the {cost} of this one they "
                f"would be more than {self._waiting_cost}. Ask again in a moment."
            )
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group()
            task = asyncio.create_task(self._serve(key, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        group.requests.append(request)
        if not group.full.is_set() and self._fills(group):
            group.full.set()
        self.waiting += cost
        try:
            return await request.answer
        finally:
            self.waiting -= cost

    def close(self) -> None:
        """Wait for the running call."""
        self._thread.shutdown()

    def _fills(self, group: Group) -> bool:
        rows, cost = (sum(part) for part in zip(*((r.rows, r.cost) for r in group.requests), strict=True))
        return rows >= self._batch_rows or cost >= self._batch_cost

    async def _serve(self, key: Hashable, group: Group) -> None:
        """Answer a group batch by batch, until nobody is left in it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(group.full.wait(), self._window)
        while group.requests:
            async with self._free:  # taken late: who comes while another call runs still gets into this one
                await self._answer(key, group.take(self._batch_rows, self._batch_cost))
        del self._groups[key]

    async def _answer(self, key: Hashable, batch: list[Request]) -> None:
        if not batch:
            return
        try:
            several = zip(*(request.inputs for request in batch), self._shared or repeat(False), strict=False)
            inputs = tuple(parts[0] if same else np.concatenate(parts) for *parts, same in several)
            self._called(len(inputs[0]), len(batch))
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._model, key, inputs)
        except Exception as error:
            if len(batch) > 1:  # one's mistake is not the others'
                for request in batch:
                    await self._answer(key, [request])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        start = 0
        for request in batch:
            if not request.answer.done():
                request.answer.set_result((answer, slice(start, start + request.rows)))
            start += request.rows
