"""The example service: batching, limits, metrics, and under load that no answer is lost, wrong or another's."""

import asyncio
import http.client
import json
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import service_load
from batching import Batcher, BusyError
from prometheus_client import CollectorRegistry
from service import Metrics, Settings, Watch, create

import murho

REQUESTS = 500
CONNECTIONS = 64


# Batching alone, on a model that returns its rows, with what the test needs to know of a call.


class Echo:
    """Answers with the rows themselves, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, list[int]]] = []
        self.began, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, key: Any, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        self.began.set()
        self.go.wait(10)
        self.calls.append((key, inputs[0].tolist()))
        if key == "broken":
            raise ValueError("broken")
        return inputs[0]


def batched(echo: Echo, use: Callable[[Batcher], Any], **options: Any) -> Any:
    """What a coroutine that uses a batcher returns."""

    async def run() -> Any:
        batcher = Batcher(echo, **{"window": 0.05, "batch_rows": 64, "waiting_rows": 1000, **options})
        try:
            return await asyncio.wait_for(use(batcher), 10)
        finally:
            batcher.close()

    return asyncio.run(run())


async def own(batcher: Batcher, key: Any, *rows: int) -> list[int]:
    answer, place = await batcher.ask(key, (np.array(rows),))
    return answer[place].tolist()


def test_requests_of_one_key_share_a_call_and_each_gets_its_own_rows() -> None:
    echo = Echo()

    async def use(batcher: Batcher) -> list[Any]:
        asked = [("a", 1), ("b", 2, 3), ("a", 4, 5), ("b", 6), ("a", 7)]
        return await asyncio.gather(*(own(batcher, *question) for question in asked))

    assert batched(echo, use) == [[1], [2, 3], [4, 5], [6], [7]]
    assert sorted(echo.calls) == [("a", [1, 4, 5, 7]), ("b", [2, 3, 6])]


def test_a_full_batch_does_not_wait_and_a_large_request_goes_alone() -> None:
    echo = Echo()

    async def use(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(own(batcher, "a", *rows) for rows in ([1, 2], [3, 4], [5], [6, 7, 8, 9, 10])))

    # A window longer than the test's patience: only fullness can end it.
    assert batched(echo, use, window=60, batch_rows=4) == [[1, 2], [3, 4], [5], [6, 7, 8, 9, 10]]
    assert [rows for _, rows in echo.calls] == [[1, 2, 3, 4], [5], [6, 7, 8, 9, 10]]


def test_who_comes_while_a_call_runs_shares_the_next_one() -> None:
    echo = Echo()
    echo.go.clear()

    async def use(batcher: Batcher) -> list[Any]:
        first = asyncio.create_task(own(batcher, "a", 1))
        await asyncio.to_thread(echo.began.wait, 10)
        others = [asyncio.create_task(own(batcher, "a", k)) for k in (2, 3, 4, 5)]
        await asyncio.sleep(0)  # now they have asked
        echo.go.set()
        return await asyncio.gather(first, *others)

    assert batched(echo, use, window=0.001) == [[1], [2], [3], [4], [5]]
    assert [rows for _, rows in echo.calls] == [[1], [2, 3, 4, 5]]


def test_an_error_reaches_those_of_its_call_and_nobody_else() -> None:
    async def use(batcher: Batcher) -> list[Any]:
        asked = [("broken", 1), ("a", 2), ("broken", 3)]
        found = await asyncio.gather(*(own(batcher, *q) for q in asked), return_exceptions=True)
        return [*found, await own(batcher, "a", 4), batcher.waiting]

    one, fine, other, later, waiting = batched(Echo(), use)
    assert str(one) == str(other) == "broken"
    assert (fine, later, waiting) == ([2], [4], 0)


def test_inputs_that_do_not_fit_together_fail_and_do_not_hang() -> None:
    async def use(batcher: Batcher) -> list[Any]:
        asks = (batcher.ask("a", (np.zeros((1, width)),)) for width in (2, 3))
        return await asyncio.gather(*asks, return_exceptions=True)

    assert all(isinstance(error, ValueError) for error in batched(Echo(), use))


def test_too_many_waiting_rows_are_refused_at_once() -> None:
    async def use(batcher: Batcher) -> tuple[str, list[int], list[int]]:
        waiting = asyncio.create_task(own(batcher, "a", 1, 2, 3))
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as refused:
            await own(batcher, "b", 4, 5)
        fits = await own(batcher, "b", 4)
        return str(refused.value), await waiting, fits

    message = "3 rows are waiting for their answers, and at most 4 may. Ask again in a moment."
    assert batched(Echo(), use, waiting_rows=4) == (message, [1, 2, 3], [4])


def test_who_has_gone_costs_no_rows() -> None:
    echo = Echo()

    async def use(batcher: Batcher) -> list[int]:
        gone, stays = (asyncio.create_task(own(batcher, "a", k)) for k in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert batched(echo, use) == [2]
    assert echo.calls == [("a", [2])]


# The service over loopback. One process answers all of these tests; the last one stops it.


@pytest.fixture(scope="module")
def artifact(exported) -> Any:
    return exported("demo").onnx


@pytest.fixture(scope="module")
def service(artifact, tmp_path_factory):
    limits = {"max_draws": 300, "max_rows": 5, "max_body": 20_000, "window_ms": 2}
    with service_load.serving(artifact, tmp_path_factory.mktemp("service") / "log", **limits) as service:
        yield service


def ask(service: service_load.Service, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and content of an answer; a body that is not bytes is sent as JSON."""
    with closing(http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)) as connection:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if answer.headers["Content-Type"] == "application/json" else text


def rows(count: int = 1, steps: int = 21) -> list:
    return np.random.default_rng(3).uniform(90, 110, (count, steps, 1)).astype(np.float32).tolist()


def test_the_answer_is_murhos_own(service, artifact) -> None:
    x, model = rows(3), murho.load(artifact)
    for level in (0.9, [0.5, 0.9]):
        status, answer = ask(service, "/predict", {"x": x, "draws": 100, "level": level, "seed": -5})
        direct = model.predict(np.asarray(x, np.float32), 100, level, -5)
        assert (status, answer["draws"], answer["level"], answer["seed"]) == (200, 100, level, -5)
        for name in service_load.STATISTICS:
            expected = getattr(direct, name)
            assert np.asarray(answer[name]).shape == expected.shape
            np.testing.assert_allclose(answer[name], expected, rtol=service_load.TOLERANCE)


def test_what_is_left_out_comes_from_the_card(service, artifact) -> None:
    card = murho.load(artifact).card
    status, answer = ask(service, "/predict", {"x": rows()})
    assert (status, answer["draws"], answer["level"], answer["seed"]) == (200, card.draws, card.levels[0], card.seed)


WRONG = {
    "shape": ({"x": [[1.0]]}, 422, "x must have 3 axes [batch, time, feature = 1], but has 2: (1, 1)."),
    "text": ({"x": [[["a"]]]}, 422, "x must hold numbers that fit float32, not <U1."),
    "null": ({"x": [[[None]]]}, 422, "x must hold numbers that fit float32, not object."),
    "nan": ({"x": [[[float("nan")]] * 21]}, 422, "x must be finite, but x[0, 0, 0] is nan."),
    "one draw": ({"x": rows(), "draws": 1}, 422, "draws must be at least 2"),
    "draws": ({"x": rows(), "draws": 301}, 422, "draws must be at most 300 in this service; got 301."),
    "very many draws": ({"x": rows(), "draws": 10**30}, 422, "draws must be at most 300 in this service"),
    "names of draws": ({"x": rows(), "draws": list(range(301))}, 422, "draws must be at most 300 in this service"),
    "true for a number": ({"x": rows(), "draws": True}, 422, "draws.int: Input should be a valid integer"),
    "level": ({"x": rows(), "level": 95}, 422, "level must lie between 0 and 1, for example 0.95 for 95 %; got 95"),
    "seed": ({"x": rows(), "seed": 2**63}, 422, "seed must be an integer of 64 bits"),
    "rows": ({"x": rows(6)}, 422, "x must have at most 5 rows in this service, but has 6: split it"),
    "unknown name": ({"x": rows(), "levels": 0.9}, 422, "levels: Extra inputs are not permitted."),
    "no x": ({}, 422, "x: Field required."),
    "no JSON": (b"x = 1", 422, "The body must be JSON: Expecting value."),
    "too deep": (b"[" * 15_000, 400, "There was an error parsing the body"),
    "body": (b" " * 20_001, 413, "The body must be at most 20000 bytes in this service: send fewer rows."),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_why(service, name: str) -> None:
    body, status, message = WRONG[name]
    found, answer = ask(service, "/predict", body)
    assert found == status
    assert answer["detail"].startswith(message)


def test_a_body_in_chunks_without_a_length_is_limited_too(service) -> None:
    with closing(http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)) as connection:
        connection.request("POST", "/predict", iter([b" " * 15_000] * 2), {"Content-Type": "application/json"})
        assert connection.getresponse().status == 413


def test_health_and_card(service, artifact) -> None:
    assert ask(service, "/health") == (200, {"status": "ok", "artifact": "demo", "engine": "onnxruntime"})
    status, card = ask(service, "/card")
    assert (status, murho.Card.from_json(json.dumps(card))) == (200, murho.load(artifact).card)


def test_metrics_count_requests_and_calls(service) -> None:
    before = asyncio.run(service_load.metrics(service.url))
    ask(service, "/predict", {"x": rows(4)})
    ask(service, "/predict", {"x": rows(6)})
    after = asyncio.run(service_load.metrics(service.url))
    names = ("murho_requests_total", "murho_request_seconds_count", "murho_batch_requests_sum", "murho_batch_rows_sum")
    assert [after[name] - before.get(name, 0) for name in names] == [2, 2, 1, 4]
    assert after["murho_requests_open"] == 0


def test_an_unexpected_error_is_counted_as_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("unexpected")

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    with pytest.raises(RuntimeError, match="unexpected"):
        asyncio.run(Watch(app, metrics, 10)({"type": "http", "path": "/predict"}, None, None))
    assert metrics.counts() == (1, 0)
    assert registry.get_sample_value("murho_requests_total", {"status": "500"}) == 1


def test_under_load_every_answer_is_right_and_a_stop_loses_none(service, artifact) -> None:
    model = murho.load(artifact)
    asked = service_load.questions(model.card, REQUESTS, 64)
    expected = service_load.direct(model, asked)
    found = service_load.load(service, asked, expected, CONNECTIONS)
    assert found["lost_or_wrong"] == 0
    assert found["requests_per_call"] > 1
    stop = service_load.stopping(service, asked, expected, CONNECTIONS)
    assert stop["arrived"] == stop["answered_by_service"] >= REQUESTS // 4


def test_the_check_can_fail(artifact) -> None:
    model = murho.load(artifact)
    asked = service_load.questions(model.card, 20, 64)
    expected = service_load.direct(model, asked)

    def replies(answers: np.ndarray) -> list:
        parts = (np.split(answer, len(service_load.STATISTICS)) for answer in answers)
        named = (dict(zip(service_load.STATISTICS, ([p.tolist()] for p in part), strict=True)) for part in parts)
        return [service_load.Reply(200, content, 0.0) for content in named]

    assert service_load.check(replies(expected), expected) == 0
    swapped = expected.copy()
    swapped[[3, 4]] = expected[[4, 3]]
    with pytest.raises(AssertionError, match="2 answers belong to other questions"):
        service_load.check(replies(swapped), expected)
    with pytest.raises(AssertionError, match="an answer is off by"):
        service_load.check(replies(expected * (1 + 3 * service_load.TOLERANCE)), expected)
    with pytest.raises(AssertionError, match="1 were refused"):
        service_load.check([service_load.Reply(503, {}, 0.0)], expected)


def test_settings_come_from_the_environment_and_are_checked(artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MURHO_ARTIFACT", "model.onnx")
    monkeypatch.setenv("MURHO_MAX_ROWS", "7")
    assert Settings.from_environment() == Settings(artifact="model.onnx", max_rows=7)
    monkeypatch.setenv("MURHO_MAX_ROWS", "many")
    with pytest.raises(ValueError, match="max_rows\n  Input should be a valid integer"):
        Settings.from_environment()
    with pytest.raises(murho.ArtifactError, match=r"Cannot read the artifact missing\.onnx"):
        create(Settings(artifact="missing.onnx"))
    with pytest.raises(murho.InputError, match=r"GiB are returned from one call\. Ask for fewer draws or fewer rows\."):
        create(Settings(artifact=str(artifact), max_draws=10**7))
