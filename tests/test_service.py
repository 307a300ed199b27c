"""The example service: batching, limits, metrics, and under load that no answer is lost, wrong or another's."""

import asyncio
import http.client
import json
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import service as program
import service_load
import torch
import uvicorn
from batching import Batcher, BusyError
from blitz.modules import BayesianLinear
from connections import Connection
from prometheus_client import CollectorRegistry
from questions import checked
from service import Metrics, Settings, Watch, create
from torch import nn

import murho
from murho.export import to_onnx

REQUESTS = 500
CONNECTIONS = 64


# Inputs that all rows share.


def test_requests_with_one_mask_share_a_call_and_others_none() -> None:
    seen = []

    def model(key: Any, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        seen.append((key, inputs[0].tolist(), inputs[1].tolist()))
        return inputs[0] * 10 + inputs[1].sum()

    async def use(batcher: Batcher) -> list[Any]:
        async def one(mask: tuple[bool, ...], *rows: int) -> list[int]:
            answer, place = await batcher.ask(mask, (np.array(rows), np.array(mask)), len(rows))
            return answer[place].tolist()

        yes, no = (True, True, True), (True, False, False)
        return await asyncio.gather(one(yes, 1), one(no, 2), one(yes, 3, 4))

    assert batched(model, use, shared=(False, True)) == [[13], [21], [33, 43]]
    assert sorted(rows for _, rows, _ in seen) == [[1, 3, 4], [2]]


def test_a_mask_is_true_and_false_in_json(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = BayesianLinear(3, 2, posterior_rho_init=-2.0)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.body(x * mask)

    x, mask = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32), np.array([True, False, True])
    card = to_onnx(Masked(), tmp_path / "a.onnx", (x, mask), shared_inputs=("mask",))

    def asked(**parts: Any) -> Any:
        body = json.dumps({"x": {"x": x.tolist(), "mask": mask.tolist(), **parts}}).encode()
        return checked(card, Settings(artifact=str(tmp_path / "a.onnx")), body)

    key, inputs, _ = asked()
    np.testing.assert_array_equal(inputs[1], mask)
    assert key == asked(x=x[:2].tolist())[0]
    assert key != asked(mask=[True, True, True])[0]
    with pytest.raises(murho.InputError, match="mask must hold true and false, but holds numbers"):
        asked(mask=[1, 0, 1])
    with pytest.raises(murho.InputError, match="x must hold numbers, but holds true or false"):
        asked(x=[[True, False, True]])


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
        batcher = Batcher(
            echo, **{"window": 0.05, "batch_rows": 64, "batch_cost": 10**6, "waiting_cost": 1000, **options}
        )
        try:
            return await asyncio.wait_for(use(batcher), 10)
        finally:
            batcher.close()

    return asyncio.run(run())


async def own(batcher: Batcher, key: Any, *rows: int) -> list[int]:
    answer, place = await batcher.ask(key, (np.array(rows),), len(rows))
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


def test_one_s_mistake_does_not_fail_those_of_the_same_call() -> None:
    def strict(key: Any, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        if 0 in inputs[0]:
            raise ValueError("a zero")
        return inputs[0]

    async def use(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(own(batcher, "a", k) for k in (1, 0, 2)), return_exceptions=True)

    one, zero, two = batched(strict, use)
    assert (one, str(zero), two) == ([1], "a zero", [2])


def test_a_call_costs_no_more_than_its_limit() -> None:
    echo = Echo()

    async def use(batcher: Batcher) -> list[Any]:
        return await asyncio.gather(*(own(batcher, "a", *rows) for rows in ([1, 2], [3, 4], [5], [6, 7, 8, 9])))

    batched(echo, use, window=60, batch_cost=4)
    assert [rows for _, rows in echo.calls] == [[1, 2, 3, 4], [5], [6, 7, 8, 9]]


def test_too_much_waiting_is_refused_at_once() -> None:
    async def use(batcher: Batcher) -> tuple[str, list[int], list[int]]:
        waiting = asyncio.create_task(own(batcher, "a", 1, 2, 3))
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as refused:
            await own(batcher, "b", 4, 5)
        fits = await own(batcher, "b", 4)
        return str(refused.value), await waiting, fits

    message = (
        "Requests that cost 3 are waiting for their answers; with the 2 of this one they would be more than 4. "
        "Ask again in a moment."
    )
    assert batched(Echo(), use, waiting_cost=4) == (message, [1, 2, 3], [4])


def test_who_has_gone_costs_nothing() -> None:
    echo = Echo()

    async def use(batcher: Batcher) -> tuple[int, list[int]]:
        gone, alone, stays = (
            asyncio.create_task(own(batcher, *question)) for question in (("a", 1), ("b", 3), ("a", 2))
        )
        await asyncio.sleep(0)
        gone.cancel()
        alone.cancel()
        await asyncio.sleep(0)
        return batcher.waiting, await stays

    assert batched(echo, use) == (1, [2])
    assert echo.calls == [("a", [2])]


# The service over loopback. One process answers all of these tests; the last one stops it.


@pytest.fixture(scope="module")
def artifact(exported) -> Any:
    return exported("demo").onnx


@pytest.fixture(scope="module")
def service(artifact, tmp_path_factory):
    limits = {
        "max_draws": 300,
        "max_rows": 5,
        "max_steps": 2000,
        "max_cost": 500_000,
        "max_values": 40,
        "max_body": 20_000,
        "window_ms": 2,
    }
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
    "text": ({"x": [[["a"]]]}, 422, "x must hold numbers, but holds text."),
    "a long text": ({"x": [["a" * 9000], *[["b"]] * 1000]}, 422, "x must hold numbers, but holds text."),
    "null": ({"x": [[[None, 1]]]}, 422, "x must hold numbers, but holds null."),
    "an object": ({"x": [[[{}, True]]]}, 422, "x must hold numbers, but holds an object and true or false."),
    "not finite": (b'{"x": [[[1e999]]]}', 422, "x must be finite, but x[0, 0, 0] is inf."),
    "ragged": ({"x": [[[1.0], 2.0]]}, 422, "x must be nested equally deeply everywhere"),
    "rows of other lengths": ({"x": [[[1.0]], [[1.0], [2.0]]]}, 422, "x must be an array [batch, time, feature = 1]"),
    "huge integer": ({"x": [[[10**300]]]}, 422, "x must "),
    "one draw": ({"x": rows(), "draws": 1}, 422, "draws must be at least 2"),
    "draws": ({"x": rows(), "draws": 301}, 422, "draws must be at most 300 in this service; got 301."),
    "very many draws": (
        {"x": rows(), "draws": 10**30},
        422,
        "draws must be at most 300 in this service; got far more.",
    ),
    "names of draws": ({"x": rows(), "draws": list(range(301))}, 422, "draws must be at most 300 in this service"),
    "true for a number": ({"x": rows(), "draws": True}, 422, "draws.int: Input should be a valid integer"),
    "level": ({"x": rows(), "level": 95}, 422, "level must lie between 0 and 1, for example 0.95 for 95 %; got 95"),
    "levels": ({"x": rows(), "level": [0.5] * 17}, 422, "There may be at most 16 levels in this service; got 17."),
    "very many levels": ({"x": rows(), "level": [0.5] * 3000}, 422, "There may be at most 16 levels in this service"),
    "seed": ({"x": rows(), "seed": 2**63}, 422, "seed must be an integer of 64 bits"),
    "rows": ({"x": rows(6)}, 422, "x must have at most 5 rows in this service, but has 6: split it"),
    "steps": ({"x": [[[1]] * 2001]}, 422, "x must have at most 2000 steps in this service, but has 2001."),
    "cost": (
        {"x": [[[1]] * 900] * 2, "draws": 300},
        422,
        "2 rows × 900 steps × 300 draws × 1 levels are 540000, and this service computes at most 500000 for a request.",
    ),
    "cost of levels": (
        {"x": rows(), "draws": 300, "level": [0.5] * 16, "seed": 1} | {"x": [[[1]] * 200]},
        422,
        "1 rows × 200 steps × 300 draws × 16 levels are 960000, and this service computes at most 500000",
    ),
    "answer": (
        {"x": rows(2), "draws": 2, "level": [k / 17 for k in range(1, 17)]},
        422,
        "The answer would hold 68 numbers, and in this service at most 40. Ask for fewer rows or levels.",
    ),
    "unknown name": ({"x": rows(), "levels": 0.9}, 422, "levels: Extra inputs are not permitted."),
    "no x": ({}, 422, "x: Field required."),
    "no object": (b"[]", 422, "The body: Input should be a valid dictionary"),
    "no JSON": (b"x = 1", 400, "The body must be JSON: Expecting value at character 0."),
    "no text": (b'"\xff"', 400, "The body must be JSON: it is no UTF-8."),
    "nothing": (b"", 400, "The body must be JSON: Expecting value at character 0."),
    "too deep": (b"[" * 15_000, 400, "The body must be JSON: it is nested too deeply."),
    "deep": (b'{"x": %s1%s}' % (b"[" * 500, b"]" * 500), 422, "x must be an array [batch, time, feature = 1]"),
    "nan": ({"x": [[[float("nan")]] * 21]}, 400, "The body must be JSON: NaN is no number of JSON."),
    "infinity": (b'{"x": [[[-Infinity]]]}', 400, "The body must be JSON: -Infinity is no number of JSON."),
    "an integer of many digits": (b'{"x": [[[%s]]]}' % (b"1" * 9000), 400, "The body must be JSON: Exceeds the limit"),
    "a name twice": (b'{"x": [[[1]]], "draws": 9, "draws": 8}', 400, "The body must be JSON: a name stands twice"),
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


# In this process, where a test holds the model, and says when a client goes.


class Client:
    """Asks an application without a server."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, path: str, body: Any = None, gone: Awaitable[Any] | None = None) -> tuple[int, Any]:
        """Status and content of an answer. Without a body it is a GET; the client leaves when `gone` is there."""
        messages = [] if body is None else [{"type": "http.request", "body": json.dumps(body).encode()}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await (gone or asyncio.Event().wait())
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST" if body is not None else "GET", "path": path, "query_string": b""}
        await self.app(scope | {"headers": [], "http_version": "1.1"}, receive, send)
        text = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], json.loads(text or "null")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Holds calls of the model until `go` is set, and keeps the rows of each."""
    predict = murho.Model.predict
    found = SimpleNamespace(began=threading.Event(), go=threading.Event(), rows=[])

    def slow(model: murho.Model, x: dict[str, np.ndarray], *arguments: Any, **options: Any) -> murho.Intervals:
        found.began.set()
        assert found.go.wait(20)
        found.rows.append(len(next(iter(x.values()))))
        return predict(model, x, *arguments, **options)

    monkeypatch.setattr(murho.Model, "predict", slow)
    return found


PATHS = Path(__file__).parent / "conformance" / "paths.onnx"  # of returns: a window that ends in 0 has no answer
WINDOW = [[[100.0], [101.0], [99.0]]]
LONG = [[[100.0]] * 99] * 50


def in_process(use: Callable[[Client], Awaitable[Any]], **settings: Any) -> Any:
    async def run() -> Any:
        return await asyncio.wait_for(use(Client(create(Settings(artifact=str(PATHS), **settings)))), 20)

    return asyncio.run(run())


def test_health_answers_while_the_model_and_the_texts_are_busy(held, monkeypatch: pytest.MonkeyPatch) -> None:
    read = program.checked
    reading, go_on = threading.Event(), threading.Event()

    def slow(*values: Any) -> Any:
        reading.set()
        assert go_on.wait(20)
        return read(*values)

    async def use(client: Client) -> tuple[list[int], list[Any]]:
        first = asyncio.create_task(client("/predict", {"x": WINDOW}))
        await asyncio.to_thread(held.began.wait, 20)
        monkeypatch.setattr(program, "checked", slow)
        second = asyncio.create_task(client("/predict", {"x": LONG, "seed": 1}))
        await asyncio.to_thread(reading.wait, 20)
        healthy = [(await client("/health"))[0] for _ in range(3)]
        assert not first.done()
        assert not second.done()
        go_on.set()
        held.go.set()
        return healthy, [(await task)[0] for task in (first, second)]

    assert in_process(use) == ([200] * 3, [200] * 2)


def test_the_answer_is_written_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    write, threads = program.content, []

    def noted(*values: Any) -> bytes:
        threads.append(threading.current_thread())
        return write(*values)

    monkeypatch.setattr(program, "content", noted)
    question = {"x": LONG, "level": [k / 100 for k in range(1, 50)], "draws": 64}
    assert in_process(lambda client: client("/predict", question), max_levels=49)[0] == 200
    assert threads != [threading.main_thread()]


def test_a_client_that_left_before_its_call_is_not_computed(held) -> None:
    async def use(client: Client) -> list[int]:
        leaving = asyncio.Event()
        tasks = [asyncio.create_task(client("/predict", {"x": WINDOW}))]
        await asyncio.to_thread(held.began.wait, 20)
        tasks += [asyncio.create_task(client("/predict", {"x": WINDOW * 2, "seed": k}, leaving.wait())) for k in (1, 2)]
        await asyncio.sleep(0.1)
        leaving.set()
        gone = [(await task)[0] for task in tasks[1:]]
        held.go.set()
        return [*gone, (await tasks[0])[0]]

    assert in_process(use) == [499, 499, 200]
    assert held.rows == [1]


def test_who_waits_too_long_is_told_to_come_again(held) -> None:
    async def use(client: Client) -> Any:
        late = await client("/predict", {"x": WINDOW})
        held.go.set()
        return late

    expected = {"detail": "There was no answer within 0.05 seconds. Ask for less, or again in a moment."}
    assert in_process(use, answer_seconds=0.05) == (503, expected)


@pytest.mark.parametrize("bad", [[[100.0], [101.0], [0.0]], [[3e38], [1e38], [3.4e38]]])
def test_rows_without_a_finite_answer_are_refused_and_spoil_nobody_s(bad: list[list[float]]) -> None:
    """The second overflows float32 for some draws: the next value may be 1.2 times the last one."""

    async def use(client: Client) -> list[Any]:
        questions = [{"x": WINDOW}, {"x": [bad]}, {"x": [[[1.0], [2.0], [3.0]]]}]
        return await asyncio.gather(*(client("/predict", question) for question in questions))

    one, refused, two = in_process(use, window_ms=200)
    assert (one[0], refused[0], two[0]) == (200, 422, 200)
    assert re.search("not finite|last value of 0", refused[1]["detail"])
    direct = murho.load(PATHS).predict(np.array(WINDOW, np.float32))
    np.testing.assert_allclose(one[1]["lower"], direct.lower, rtol=service_load.TOLERANCE)


def test_a_call_of_several_requests_stays_within_the_cost_of_one(held) -> None:
    held.go.set()

    async def use(client: Client) -> None:
        question = {"x": WINDOW, "draws": 100}  # costs 300
        await asyncio.gather(*(client("/predict", question) for _ in range(4)))

    in_process(use, max_cost=600, window_ms=200)
    assert held.rows == [2, 2]


# What a client may make the server wait for, with sockets on which it stops in the middle.

SECONDS = 1  # that the server waits


@pytest.fixture(scope="module")
def impatient(tmp_path_factory) -> Iterator[service_load.Service]:
    limits = {"client_seconds": SECONDS, "max_connections": 12, "window_ms": 500}
    with service_load.serving(PATHS, tmp_path_factory.mktemp("impatient") / "log", **limits) as service:
        yield service


@contextmanager
def connected(service: service_load.Service, sent: bytes = b"") -> Iterator[socket.socket]:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as found:
        found.sendall(sent)
        yield found


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    return b"".join(iter(lambda: connection.recv(2**16), b""))


def question(**more: Any) -> bytes:
    body = json.dumps({"x": WINDOW, "draws": 16, **more}).encode()
    return b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /pre", b"HTTP/1.1 408 "),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nX: ", b"HTTP/1.1 408 "),
        (question()[:-5], b"HTTP/1.1 408 "),
        (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 "),  # and then nothing
        (b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 200 "),  # and no body
    ],
)
def test_a_half_request_is_not_waited_for(impatient, sent: bytes, answer: bytes) -> None:
    with connected(impatient, sent) as connection:
        assert rest(connection).startswith(answer)


@pytest.mark.parametrize(
    "begin", [b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n{", b"POST /predict"]
)
def test_a_request_in_drops_is_not_waited_for_either(impatient, begin: bytes) -> None:
    with connected(impatient, begin) as connection:
        connection.settimeout(SECONDS / 8)
        for _ in range(100):
            try:
                found = connection.recv(100)
                break
            except TimeoutError:
                connection.sendall(b" ")
        assert found.startswith(b"HTTP/1.1 408 ")


def test_a_slow_body_is_told_why(impatient) -> None:
    with connected(impatient, question()[:-5]) as connection:
        assert b"The body did not come within 1 seconds: " in rest(connection)


def test_a_connection_above_the_most_is_closed_and_health_goes_on(impatient) -> None:
    with closing(http.client.HTTPConnection(urlsplit(impatient.url).netloc, timeout=30)) as early:
        early.connect()
        many = [socket.create_connection((early.host, early.port), timeout=30) for _ in range(20)]
        early.request("GET", "/health")
        assert early.getresponse().status in (200, 503)
        found = [rest(connection) for connection in many]
        assert sum(answer.startswith(b"HTTP/1.1 503 ") for answer in found) >= 20 - 12
        assert ask(impatient, "/health")[0] == 200
        for connection in many:
            connection.close()


def test_clients_that_close_their_connections_cost_no_call(impatient) -> None:
    before = asyncio.run(service_load.metrics(impatient.url))
    for seed in range(8):
        with connected(impatient, question(seed=seed)):
            pass
    assert ask(impatient, "/predict", {"x": WINDOW, "draws": 16})[0] == 200
    after = asyncio.run(service_load.metrics(impatient.url))
    assert after["murho_batch_rows_sum"] - before.get("murho_batch_rows_sum", 0) == 1
    assert after["murho_requests_open"] == 0


def test_an_answer_that_nobody_reads_is_dropped() -> None:
    class Transport:
        """Of a client that takes nothing."""

        aborted = False

        def get_extra_info(self, name: str) -> None:
            return None

        def is_closing(self) -> bool:
            return False

        def abort(self) -> None:
            self.aborted = True

        def pause_reading(self) -> None:
            pass

    async def run(read: bool) -> bool:
        config = uvicorn.Config(lambda: None, timeout_keep_alive=0.05)
        state = SimpleNamespace(connections=set(), tasks=set())
        connection, transport = Connection(config, state, {}), Transport()
        connection.connection_made(transport)
        connection.pause_writing()
        if read:
            connection.resume_writing()
        connection._clock.cancel()
        await asyncio.sleep(0.1)
        return transport.aborted

    assert asyncio.run(run(read=False))
    assert not asyncio.run(run(read=True))


def test_health_and_card(service, artifact) -> None:
    engine = murho.load(artifact).engine
    assert ask(service, "/health") == (200, {"status": "ok", "artifact": "demo", "engine": engine})
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
        asyncio.run(Watch(app, metrics)({"type": "http", "path": "/predict"}, None, None))
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
