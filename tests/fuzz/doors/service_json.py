"""The door of the example service: the body of POST /predict."""

import asyncio
import copy
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import murho

ROOT = Path(__file__).resolve().parents[3]
ABOUT = "The service's POST /predict, questions and bytes of their JSON changed: never 500, only finite answers."
ARTIFACT = ROOT / "tests" / "conformance" / "paths.onnx"
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 17, 1e-320, -0.0, 3.4e38, -3.5e38, 1e999, float("nan"), 2**31, 2**32,
    2**63, 10**400, "", "1", "a" * 3000, "\ud800", [], {}, [[]], [None], [1, 2], [[1.0], [0.0]], {"x": 1}, [0.5] * 40,
    [5, 5], [0.5, 0.5],
]  # fmt: skip
"""Put in the place of any part of a question."""


@functools.cache
def application() -> tuple[Any, murho.Model, asyncio.AbstractEventLoop]:
    sys.path.insert(0, str(ROOT / "examples" / "service"))
    from service import create
    from settings import Settings

    settings = Settings(artifact=str(ARTIFACT), window_ms=0, max_draws=64, max_rows=8, max_steps=64, max_cost=2**16)
    return create(settings), murho.load(ARTIFACT, measure=False), asyncio.new_event_loop()


def trial(random: np.random.Generator) -> str:
    app, model, loop = application()
    body = mutated(random)
    status, answer = loop.run_until_complete(asked(app, body))
    if status != 200:
        assert status in (400, 413, 422), (status, answer, body[:1000])
        assert answer["detail"], body[:1000]
        return f"refused {status}"
    question = json.loads(body)
    level = question.get("level")
    x = np.array(question["x"], np.float32)
    expected = model.predict(
        x if x.ndim == 3 else question["x"],
        question.get("draws"),
        tuple(level) if isinstance(level, list) else level,
        question.get("seed"),
        noise=question.get("noise", True),
    )
    for name in ("mean", "std", "lower", "upper"):
        found = np.array(answer[name])
        assert np.isfinite(found).all(), body[:1000]
        np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-5, err_msg=repr(body[:1000]))
    return "answered"


def mutated(random: np.random.Generator) -> bytes:
    """A question, some of its parts or of its bytes changed."""
    question = asked_rightly(random)
    for _ in range(random.integers(3)):
        question = changed(question, random)
    body = json.dumps(question).encode("utf-8", "surrogatepass")
    kind = random.integers(8)
    if kind == 0 and body:
        at = random.integers(len(body), size=1 + random.integers(4))
        changing = bytearray(body)
        for place in at:
            changing[place] = random.integers(256)
        return bytes(changing)
    if kind == 1:
        return body[: random.integers(len(body) + 1)]
    if kind == 2:
        at = int(random.integers(len(body) + 1))
        part = random.choice([b"[", b"]", b"{", b",", b'"x":', b"9" * 5000, b"[" * 3000, b"NaN", b'"', b"1e400", b"-"])
        return body[:at] + part * int(random.integers(1, 4)) + body[at:]
    return body


def asked_rightly(random: np.random.Generator) -> dict[str, Any]:
    shape = (random.integers(1, 5), random.integers(1, 9), 1)
    question: dict[str, Any] = {"x": np.round(random.uniform(90, 110, shape), 2).tolist()}
    more: dict[str, Any] = {
        "draws": [16, 33, [4, 9, 2**32 - 1]][random.integers(3)],
        "level": [0.9, [0.5, 0.95]][random.integers(2)],
        "seed": int(random.integers(-(2**63), 2**63 - 1)),
        "noise": bool(random.integers(2)),
    }
    return question | {name: value for name, value in more.items() if random.integers(2)}


def changed(value: Any, random: np.random.Generator) -> Any:
    """The value with one of its parts, at any depth, taken away, doubled or replaced."""
    if not isinstance(value, list | dict) or not value or random.random() < 0.15:
        return copy.deepcopy(HOSTILE[random.integers(len(HOSTILE))])
    if isinstance(value, dict):
        name = list(value)[random.integers(len(value))]
        if random.random() < 0.1:
            return {key: part for key, part in value.items() if key != name}
        return {**value, name: changed(value[name], random)}
    at = int(random.integers(len(value)))
    new = [[], [value[at]] * 2, [changed(value[at], random)]][random.choice(3, p=[0.1, 0.1, 0.8])]
    return [*value[:at], *new, *value[at + 1 :]]


async def asked(app: Any, body: bytes) -> tuple[int, Any]:
    """Status and content of the application's answer to a body, without a server."""
    messages = [{"type": "http.request", "body": body}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
    await app({**scope, "http_version": "1.1"}, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))
