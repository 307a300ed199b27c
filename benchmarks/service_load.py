"""The service of examples/service under load, over loopback: every answer is compared with `predict` on its own rows.

Run: python benchmarks/service_load.py [--requests 10000] [--connections 64] [--draws 256] [--json OUT] [--write PAGE]
Starts the service in a process of its own and asks it; then asks again and sends SIGTERM in the middle: what the
service says that it answered, and what arrived, must be the same. An answer lost, wrong or another's is an error.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import torch
from environment import environment
from prometheus_client.parser import text_string_to_metric_families
from scipy.spatial import KDTree
from studies import write_section

import murho
from murho.export import to_onnx
from murho.models import Forecaster
from murho.runtime.typical import typical_inputs

SERVICE = Path(__file__).resolve().parents[1] / "examples" / "service"
START_SECONDS = 60
STOP_SECONDS = 60
TOLERANCE = 1e-5  # of the largest value: float32 arithmetic, in another order where more rows share a call
STATISTICS = ("mean", "std", "lower", "upper")
Question = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    status: int
    """0 where the connection was refused, or closed without an answer."""
    content: Any
    seconds: float


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def wait(self, pattern: str, seconds: float) -> re.Match[str]:
        """The first place in the log that matches."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.log.read_text())) is None:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The service did not say {pattern!r}:\n{self.log.read_text()}")
            time.sleep(0.05)
        return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def answered(self) -> tuple[int, int]:
        """Requests that it has answered and left open, as it says when it has stopped."""
        self.process.wait(STOP_SECONDS)
        answered, left = map(int, self.wait(r"Answered (\d+) requests, left (-?\d+) open", 0).groups())
        return answered, left


@contextmanager
def serving(artifact: Path, log: Path, **settings: object) -> Iterator[Service]:
    """The service in a process of its own, on a free port of 127.0.0.1; ended whatever happens."""
    variables = {f"MURHO_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, str(SERVICE / "service.py"), "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "MURHO_ARTIFACT": str(artifact), **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        service = Service(process, log)
        service.url = service.wait(r"running on (http://127\.0\.0\.1:\d+)", START_SECONDS)[1]
        yield service
    finally:
        process.kill()
        process.wait()


def questions(card: murho.Card, count: int, draws: int) -> list[Question]:
    """Requests of one row each, all rows different; one in eight asks for another seed, level and number of draws."""
    rows = typical_inputs(card, count)[0]
    usual, other = {"draws": draws, "level": 0.95, "seed": 0}, {"draws": draws // 2, "level": 0.5, "seed": 1}
    return [{"x": row[np.newaxis].tolist(), **(other if k % 8 == 7 else usual)} for k, row in enumerate(rows)]


def direct(model: murho.Model, asked: list[Question]) -> np.ndarray:
    """What murho itself answers to each question alone, [N, values]."""
    answers = (model.predict(np.asarray(q["x"]), q["draws"], q["level"], q["seed"]) for q in asked)
    return np.array([np.concatenate([getattr(answer, name)[0] for name in STATISTICS]) for answer in answers])


async def ask(
    url: str, asked: list[Question], connections: int, after: int = 0, then: Any = None
) -> list[Reply | None]:
    """A reply to each question, over so many connections at once; `then()` is called after that many replies.

    A connection that breaks is not opened again; None stands for questions that were never sent.
    """
    replies: list[Reply | None] = [None] * len(asked)
    left = iter(range(len(asked)))
    done = 0

    async def connection(session: aiohttp.ClientSession) -> None:
        nonlocal done
        for k in left:
            start = time.perf_counter()
            try:
                async with session.post(f"{url}/predict", json=asked[k]) as response:
                    replies[k] = Reply(response.status, await response.json(), time.perf_counter() - start)
            except aiohttp.ClientConnectionError as error:
                replies[k] = Reply(0, repr(error), time.perf_counter() - start)
                return
            done += 1
            if then is not None and done == after:
                then()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        await asyncio.gather(*(connection(session) for _ in range(connections)))
    return replies


def check(replies: list[Reply | None], expected: np.ndarray) -> float:
    """Largest difference of any answer to what was expected for it, as a share of the largest value.

    Raises AssertionError for a refusal, a wrong answer, and one that belongs to another question; replies without an
    answer (see `Reply.status`) are not looked at.
    """
    places = [k for k, reply in enumerate(replies) if reply is not None and reply.status]
    wrong = [replies[k] for k in places if replies[k].status != 200]
    assert not wrong, f"{len(wrong)} were refused: {wrong[0]}"
    answers = np.array([np.concatenate([replies[k].content[name][0] for name in STATISTICS]) for k in places])
    limit = TOLERANCE * np.abs(expected).max()
    tree = KDTree(expected)
    apart = tree.query(expected, k=2)[0][:, 1].min()
    assert apart > 2 * limit * np.sqrt(expected.shape[1]), "the questions are too alike to tell their answers apart"
    nearest = tree.query(answers)[1]
    assert (nearest == places).all(), f"{(nearest != places).sum()} answers belong to other questions"
    largest = float(np.abs(answers - expected[places]).max() / np.abs(expected).max())
    assert largest <= TOLERANCE, f"an answer is off by {largest:.1e} of the largest value"
    return largest


async def metrics(url: str) -> dict[str, float]:
    """The service's metrics, those with labels summed over them."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        text = await response.text()
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0) + sample.value
    return values


def load(service: Service, asked: list[Question], expected: np.ndarray, connections: int) -> dict[str, Any]:
    """All questions once: times, and that every answer is right."""
    start = time.perf_counter()
    replies = asyncio.run(ask(service.url, asked, connections))
    seconds = time.perf_counter() - start
    lost = sum(reply is None or not reply.status for reply in replies)
    assert not lost, f"{lost} of {len(asked)} requests got no answer"
    largest = check(replies, expected)
    seen = asyncio.run(metrics(service.url))
    p50, p99 = (1000 * float(np.quantile([reply.seconds for reply in replies if reply], q)) for q in (0.5, 0.99))
    return {
        "requests": len(asked),
        "connections": connections,
        "lost_or_wrong": lost,
        "largest_difference": largest,
        "p50_ms": p50,
        "p99_ms": p99,
        "requests_per_second": len(asked) / seconds,
        "requests_per_call": seen["murho_batch_requests_sum"] / seen["murho_batch_requests_count"],
    }


def stopping(service: Service, asked: list[Question], expected: np.ndarray, connections: int) -> dict[str, Any]:
    """The questions again, with SIGTERM after a quarter of the answers: all that it took in are answered."""
    before = int(asyncio.run(metrics(service.url)).get("murho_requests_total", 0))
    replies = asyncio.run(ask(service.url, asked, connections, len(asked) // 4, service.stop))
    answered, left = service.answered()
    check(replies, expected)
    arrived = sum(reply is not None and reply.status > 0 for reply in replies)
    assert arrived >= len(asked) // 4, f"only {arrived} answers arrived"
    assert any(reply is not None and not reply.status for reply in replies), "the stop came too late to show anything"
    assert (arrived, 0) == (answered - before, left), f"{arrived} arrived, {answered - before} answered, {left} open"
    return {"arrived": arrived, "answered_by_service": answered - before, "left_open": left}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--draws", type=int, default=256)
    parser.add_argument("--window-ms", type=float, default=2.0)
    parser.add_argument("--batch-rows", type=int, default=64)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--write", type=Path, help="put the figures into this page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        artifact = Path(name) / "tutorial.onnx"
        torch.manual_seed(0)
        to_onnx(Forecaster(), artifact, torch.randn(8, 21, 1))
        model = murho.load(artifact)
        asked = questions(model.card, options.requests, options.draws)
        expected = direct(model, asked)
        settings = {"window_ms": options.window_ms, "batch_rows": options.batch_rows}
        with serving(artifact, Path(name) / "log", **settings) as service:
            found = load(service, asked, expected, options.connections)
            found["stop"] = stopping(service, asked, expected, options.connections)
    found |= {"draws": options.draws, **settings, "environment": environment()}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))
    text = (
        f"`python benchmarks/service_load.py`: {found['requests']} requests of one row over {found['connections']} "
        f"connections, {options.draws} draws of the tutorial's network, client and service on one machine: p50 "
        f"{found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms, {found['requests_per_second']:.0f} requests a "
        f"second, {found['requests_per_call']:.1f} requests in a call of the model. {found['lost_or_wrong']} answers "
        f"lost or mixed up; largest difference to `predict` on the row alone {found['largest_difference']:.1e} of the "
        f"largest value. SIGTERM in the middle of a second run: {found['stop']['answered_by_service']} taken in, "
        f"{found['stop']['arrived']} answered."
    )
    write_section(options.write, "A service under load", text, head="# Benchmark")


if __name__ == "__main__":
    main()
