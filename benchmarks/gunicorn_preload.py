"""gunicorn with preload: workers that were forked from a process in which the model had been loaded and used.

Run: python benchmarks/gunicorn_preload.py [--requests 20000] [--workers 2] [--clients 4] [--json OUT]
Every answer must be, bit for bit, the one that the parent computed before it forked; no request may wait for ever;
gunicorn must stop when it is told to; and in the second half of its requests no worker's own memory may grow by more
than MOST_GROWTH.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

import murho

ARTIFACT = Path(__file__).resolve().parents[1] / "tests" / "conformance" / "lstm.onnx"
MOST_GROWTH = 2048
"""KiB: the allocator takes memory in pieces of 1 MiB. Work that is kept after each call is 12 KiB a call."""
QUESTIONS, ROWS, STEPS, DRAWS = 16, 4, 21, 600
START_SECONDS, ANSWER_SECONDS, STOP_SECONDS = 60, 60, 20


def question(k: int) -> dict[str, Any]:
    """Of several seeds, lengths and levels, each work for all threads."""
    x = np.random.default_rng(k).uniform(90, 110, (ROWS, STEPS + k % 3, 1)).astype(np.float32)
    return {"x": x, "draws": DRAWS + 16 * (k % 4), "level": (0.5, 0.9) if k % 2 else 0.9, "seed": k % 8}


def answer(model: murho.Model, k: int) -> bytes:
    found = model.predict(**question(k))
    return b"".join(part.tobytes() for part in (found.mean, found.std, found.lower, found.upper))


def own_memory() -> int:
    """KiB that this process shares with no other."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE))


# The server, in a process of its own.


def application(answers: Path) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """A WSGI application, made in the parent, which answers every question itself, on two threads, before it forks."""
    model = murho.load(ARTIFACT)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda k: answer(model, k), range(QUESTIONS)))
    answers.write_text(json.dumps([part.hex() for part in found]))
    calls = itertools.count(1)

    def respond(environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        content = answer(model, int(environment["QUERY_STRING"]))
        about = {"call": next(calls), "process": os.getpid(), "own_kib": own_memory()}
        start("200 OK", [("Content-Length", str(len(content))), ("X-About", json.dumps(about))])
        return [content]

    return respond


def serve(answers: Path, workers: int) -> None:
    from gunicorn.app.base import BaseApplication

    class Server(BaseApplication):
        def load_config(self) -> None:
            options = {"bind": "127.0.0.1:0", "workers": workers, "preload_app": True, "timeout": ANSWER_SECONDS}
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return application(answers)

    Server().run()


# The client.


@dataclass(frozen=True)
class Reply:
    process: int
    call: int
    own_kib: int


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[tuple[str, list[bytes]]]:
    """The server's address, and the parent's own answers."""
    log, answers = folder / "log", folder / "answers.json"
    command = [sys.executable, __file__, "--serve", str(answers), "--workers", str(workers)]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        end = time.monotonic() + START_SECONDS
        while not (found := re.search(r"Listening at: http://(\S+)", log.read_text())):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"gunicorn did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield found[1], [bytes.fromhex(part) for part in json.loads(answers.read_text())]
    except Exception as error:
        error.add_note(log.read_text()[-3000:])
        raise
    finally:
        server.terminate()  # its workers end first
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            raise RuntimeError(f"gunicorn did not stop:\n{log.read_text()[-3000:]}") from None


def ask(address: str, k: int, expected: bytes) -> Reply:
    connection = HTTPConnection(address, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", f"/?{k}")
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, f"question {k}: status {response.status}"
        assert content == expected, f"question {k}: another answer than the parent's"
        return Reply(**json.loads(response.headers["X-About"]))
    finally:
        connection.close()


def measure(requests: int, workers: int, clients: int) -> list[dict[str, Any]]:
    """Of each worker: its requests, and its own memory, first, in the middle and last. Raises what is wrong."""
    with (
        tempfile.TemporaryDirectory() as name,
        serving(Path(name), workers) as (address, answers),
        ThreadPoolExecutor(clients) as pool,
    ):
        replies = list(pool.map(lambda k: ask(address, k % QUESTIONS, answers[k % QUESTIONS]), range(requests)))
    found = []
    for worker in sorted({reply.process for reply in replies}):
        own = sorted((reply for reply in replies if reply.process == worker), key=lambda reply: reply.call)
        later = own[len(own) // 2 :]
        found.append(
            {
                "requests": len(own),
                "own_kib_first": own[0].own_kib,
                "own_kib_middle": later[0].own_kib,
                "own_kib_last": later[-1].own_kib,
                "own_kib_most": max(reply.own_kib for reply in later),
            }
        )
    return found


def check(found: list[dict[str, Any]], workers: int) -> None:
    assert len(found) == workers, f"{len(found)} of {workers} workers answered, or one was replaced"
    growth = max(worker["own_kib_most"] - worker["own_kib_middle"] for worker in found)
    assert growth <= MOST_GROWTH, f"a worker has grown by {growth} KiB: {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.workers)
        return
    began = time.perf_counter()
    found = measure(options.requests, options.workers, options.clients)
    result = {"requests": options.requests, "seconds": round(time.perf_counter() - began, 1), "workers": found}
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    check(found, options.workers)


if __name__ == "__main__":
    main()
