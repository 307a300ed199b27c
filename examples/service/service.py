"""A prediction service: POST /predict answers with intervals, and requests that come together share one call.

Run: MURHO_ARTIFACT=model.onnx python service.py. See README.md beside this file.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import numpy as np
import uvicorn
from batching import Batcher, BusyError, Inputs
from connections import Connection
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel
from pydantic_core import to_json
from questions import Key, Question, checked
from settings import Settings
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import murho
from murho.runtime.memory import check_memory

log = logging.getLogger("uvicorn.error")  # where uvicorn says that it starts and stops
SMALL = (
    2**13
)  # bytes of a body or numbers of an answer: read or written in a millisecond, less than handing over may take
GONE = 499  # counted, never seen: who asked has closed the connection


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
        answered = (s for s in samples if s.name == "murho_requests_total" and s.labels["status"] != str(GONE))
        left = (s for s in samples if s.name == "murho_requests_open")
        return int(sum(s.value for s in answered)), int(sum(s.value for s in left))

    def called(self, rows: int, requests: int) -> None:
        self.rows.observe(rows)
        self.batch.observe(requests)


def create(settings: Settings | None = None) -> FastAPI:
    """The application. Raises murho's ArtifactError, and InputError where the limits allow more than fits a call."""
    settings = settings or Settings.from_environment()
    model = murho.load(settings.artifact, measure=False, trusted=settings.trusted)  # sizes vary too much to measure
    check_memory(model.card, max(settings.max_rows, settings.batch_rows), settings.max_draws)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    about = model.card.to_json()

    def call(key: Key, inputs: Inputs) -> murho.Intervals:
        x = dict(zip((array.name for array in model.card.inputs), inputs, strict=True))
        return model.predict(x, np.frombuffer(key.draws, np.int64), key.level, key.seed, noise=key.noise)

    batcher = Batcher(
        call,
        settings.window_ms / 1000,
        settings.batch_rows,
        settings.max_cost,
        settings.max_waiting,
        metrics.called,
        [array.shared for array in model.card.inputs],
    )
    texts = ThreadPoolExecutor(1, "json")

    async def aside(size: int, work: Any, *values: Any) -> Any:
        """What is done with much text or many numbers, off the event loop, which is to answer /health at once."""
        if size <= SMALL:
            return work(*values)
        return await asyncio.get_running_loop().run_in_executor(texts, work, *values)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()  # uvicorn has waited for all answers before
        log.info("Answered %d requests, left %d open.", *metrics.counts())

    app = FastAPI(title="murho", lifespan=lifespan)
    app.add_middleware(Watch, metrics=metrics)

    question = {"content": {"application/json": {"schema": Question.model_json_schema()}}, "required": True}

    @app.post("/predict", response_model=Answer, openapi_extra={"requestBody": question})
    async def predict(request: Request) -> Response:
        body = await body_of(request, settings.max_body, settings.client_seconds)
        key, inputs, cost = await aside(len(body), checked, model.card, settings, body)
        try:
            async with asyncio.timeout(settings.answer_seconds):
                answer, rows = await while_there(request, batcher.ask(key, inputs, cost))
        except TimeoutError:
            raise BusyError(
                f"There was no answer within {settings.answer_seconds:g} seconds. Ask for less, or again in a moment."
            ) from None
        size = answer.lower.size  # of the whole call: no less than this request's part
        return Response(await aside(size, content, answer, rows), media_type="application/json")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "artifact": model.card.name, "engine": model.engine}

    @app.get("/card")
    async def card() -> Response:
        return Response(about, media_type="application/json")

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(murho.InputError)
    async def wrong_input(request: Request, error: murho.InputError) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> Response:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=GONE)

    return app


async def body_of(request: Request, most: int, seconds: float) -> bytes:
    """The body. Raises HTTPException where it is too large (413) or comes too slowly (408)."""
    too_large = HTTPException(413, f"The body must be at most {most} bytes in this service: send fewer rows.")
    body = b""
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        slow = f"The body did not come within {seconds:g} seconds: {len(body)} bytes had arrived."
        raise HTTPException(408, slow, {"Connection": "close"}) from None
    return body


async def while_there(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, which is cancelled where the client goes before: ClientDisconnect."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(part) for part in (work, left())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def content(answer: murho.Intervals, rows: slice) -> bytes:
    """The part of a call's answer that belongs to one request."""
    ends = (slice(None), rows) if isinstance(answer.level, tuple) else rows
    arrays = {
        "mean": answer.mean[rows],
        "std": answer.std[rows],
        "lower": answer.lower[ends],
        "upper": answer.upper[ends],
    }
    about = {"level": answer.level, "draws": len(answer.draws), "seed": answer.seed}
    return to_json({name: array.tolist() for name, array in arrays.items()} | about)


class Watch:
    """Counts and times the requests for /predict."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self._app(scope, receive, send)
            return
        status, began = 500, perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with self._metrics.open.track_inprogress():
                await self._app(scope, receive, noted)
        finally:  # an error that nobody expected goes on to where it is answered with 500
            self._metrics.requests.labels(status).inc()
            self._metrics.seconds.observe(perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    try:
        settings = Settings.from_environment()
        app = create(settings)
    except (murho.MurhoError, ValueError) as error:
        sys.exit(str(error))
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        http=Connection,
        ws="none",
        access_log=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=settings.client_seconds,
        timeout_graceful_shutdown=int(settings.answer_seconds) + settings.client_seconds,
    )


if __name__ == "__main__":
    main()
