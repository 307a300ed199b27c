"""A prediction service: POST /predict answers with intervals, and requests that come together share one call.

Run: MURHO_ARTIFACT=model.onnx uvicorn --factory service:create. See README.md beside this file.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from batching import Batcher, BusyError, Inputs
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import murho
from murho.runtime.inputs import as_draws, as_inputs, as_level, as_seed, check_memory

log = logging.getLogger("uvicorn.error")  # where uvicorn says that it starts and stops


class Settings(BaseModel):
    """Each is read from the environment: `max_draws` from MURHO_MAX_DRAWS."""

    artifact: str
    """Path of an artifact of murho."""
    max_draws: int = Field(4096, ge=2)
    """Of a request."""
    max_rows: int = Field(256, ge=1)
    """Of a request."""
    max_body: int = Field(2**20, ge=1)
    """Bytes of a request."""
    max_waiting: int = Field(4096, ge=1)
    """Rows of all requests that are not answered yet; who comes on top is told to come again (503)."""
    batch_rows: int = Field(64, ge=1)
    """Rows of one call, beyond which a further request waits for the next one."""
    window_ms: float = Field(2.0, ge=0)
    """How long a first request waits for others to share its call."""

    @classmethod
    def from_environment(cls) -> "Settings":
        names = {name: f"MURHO_{name.upper()}" for name in cls.model_fields}
        return cls.model_validate({name: os.environ[key] for name, key in names.items() if key in os.environ})


class Question(BaseModel):
    """What is left out comes from the artifact's card."""

    model_config = ConfigDict(extra="forbid", strict=True)

    x: list[Any] | dict[str, list[Any]]
    """[rows, …] in raw units; of a network with several inputs an object of them by name."""
    draws: int | list[int] | None = None
    level: float | list[float] | None = None
    seed: int | None = None
    noise: bool = True


class Answer(BaseModel):
    """Of the network's first output, in raw units."""

    mean: list[Any]
    """[rows, …]"""
    std: list[Any]
    lower: list[Any]
    """[rows, …] for one level, [levels, rows, …] for several."""
    upper: list[Any]
    level: float | list[float]
    draws: int
    seed: int


class Key(NamedTuple):
    """What requests of one call have in common."""

    draws: bytes
    level: float | tuple[float, ...]
    seed: int
    noise: bool
    shapes: tuple[tuple[int, ...], ...]
    """Of a row of each input: sequences may be of any length, but of one length in a call."""


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("murho_requests", "Answered requests for /predict.", ["status"], registry=registry)
        self.open = Gauge("murho_requests_open", "Requests for /predict that are not answered yet.", registry=registry)
        self.seconds = Histogram("murho_request_seconds", "From a request to its answer.", registry=registry)
        sizes = [2**k for k in range(11)]
        self.batch = Histogram("murho_batch_requests", "Requests in a call.", registry=registry, buckets=sizes)
        self.rows = Histogram("murho_batch_rows", "Rows of a call.", registry=registry, buckets=sizes)

    def counts(self) -> tuple[int, int]:
        """Answered requests, and open ones."""
        samples = [sample for metric in (*self.requests.collect(), *self.open.collect()) for sample in metric.samples]
        answered = sum(sample.value for sample in samples if sample.name == "murho_requests_total")
        return int(answered), int(sum(sample.value for sample in samples if sample.name == "murho_requests_open"))

    def called(self, rows: int, requests: int) -> None:
        self.rows.observe(rows)
        self.batch.observe(requests)


def create(settings: Settings | None = None) -> FastAPI:
    """The application. Raises murho's ArtifactError, and InputError where the limits allow more than fits a call."""
    settings = settings or Settings.from_environment()
    model = murho.load(settings.artifact, measure=False)  # batches have many sizes: measuring each would cost more
    check_memory(model.card, max(settings.max_rows, settings.batch_rows), settings.max_draws)
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    def call(key: Key, inputs: Inputs) -> murho.Intervals:
        x = dict(zip((array.name for array in model.card.inputs), inputs, strict=True))
        return model.predict(x, np.frombuffer(key.draws, np.int64), key.level, key.seed, noise=key.noise)

    batcher = Batcher(call, settings.window_ms / 1000, settings.batch_rows, settings.max_waiting, metrics.called)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()  # uvicorn has waited for all answers before
        log.info("Answered %d requests, left %d open.", *metrics.counts())

    app = FastAPI(title="murho", lifespan=lifespan)
    app.add_middleware(Watch, metrics=metrics, max_body=settings.max_body)

    @app.post("/predict", response_model=Answer)
    async def predict(question: Question) -> Response:
        key, inputs = checked(model.card, settings, question)
        answer, rows = await batcher.ask(key, inputs)
        return JSONResponse(content(answer, rows))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "artifact": model.card.name, "engine": model.engine}

    @app.get("/card")
    async def card() -> Response:
        return Response(model.card.to_json(), media_type="application/json")

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(murho.InputError)
    async def wrong_input(request: Request, error: murho.InputError) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def wrong_json(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"detail": "; ".join(map(described, error.errors()))}, 422)

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> Response:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})

    return app


def checked(card: murho.Card, settings: Settings, question: Question) -> tuple[Key, Inputs]:
    """Check a request by itself, so that no mistake of its own spoils the call that others share with it."""
    count = question.draws if isinstance(question.draws, int) else len(question.draws or ())
    if count > settings.max_draws:
        raise murho.InputError(f"draws must be at most {settings.max_draws} in this service; got {count}.")
    inputs = as_inputs(card, question.x)
    if len(inputs[0]) > settings.max_rows:
        raise murho.InputError(
            f"x must have at most {settings.max_rows} rows in this service, but has {len(inputs[0])}: "
            "split it into several requests."
        )
    key = Key(
        as_draws(card, question.draws).tobytes(),
        as_level(card, question.level),
        as_seed(card, question.seed),
        question.noise,
        tuple(array.shape[1:] for array in inputs),
    )
    return key, inputs


def content(answer: murho.Intervals, rows: slice) -> dict[str, Any]:
    """The part of a call's answer that belongs to one request."""
    ends = (slice(None), rows) if isinstance(answer.level, tuple) else rows
    return {
        "mean": answer.mean[rows].tolist(),
        "std": answer.std[rows].tolist(),
        "lower": answer.lower[ends].tolist(),
        "upper": answer.upper[ends].tolist(),
        "level": answer.level,
        "draws": len(answer.draws),
        "seed": answer.seed,
    }


def described(mistake: dict[str, Any]) -> str:
    """What pydantic has to say of one field, or of a body that it cannot read."""
    if mistake["type"] == "json_invalid":
        return f"The body must be JSON: {mistake['ctx']['error']}."
    return f"{'.'.join(map(str, mistake['loc'][1:])) or 'The body'}: {mistake['msg']}."


class Watch:
    """Counts and times the requests for /predict, and ends every request whose body grows too large."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body: int) -> None:
        self._app, self._metrics, self._max_body = app, metrics, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self._app(scope, receive, send)
            return
        size, status, began = 0, 500, perf_counter()

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:
                raise HTTPException(
                    413, f"The body must be at most {self._max_body} bytes in this service: send fewer rows."
                )
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with self._metrics.open.track_inprogress():
                await self._app(scope, limited, noted)
        finally:  # an error that nobody expected goes on to where it is answered with 500
            self._metrics.requests.labels(status).inc()
            self._metrics.seconds.observe(perf_counter() - began)
