"""Chunk sizes: guessed from the card, measured once, and never seen in an answer."""

import gc
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import murho
from murho.runtime import planner
from murho.runtime.planner import Chunks, fastest

SEED = 5


def numbered(rows: slice, draws: slice) -> np.ndarray:
    """[draws, rows], every element another number, the draws padded to a whole vector."""
    names = np.arange(draws.start, draws.stop + (draws.start - draws.stop) % 16)
    return (1000 * names[:, np.newaxis] + np.arange(rows.start, rows.stop)).astype(np.float32)


@pytest.fixture
def slow_by(monkeypatch) -> Any:
    """evaluate(size) that takes these seconds, of a clock of its own."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(planner, "perf_counter", lambda: Clock.now)

    def made(seconds: dict[int, float], tried: list[int] | None = None) -> Any:
        def evaluate(size: int) -> None:
            Clock.now += seconds[size]
            if tried is not None:
                tried.append(size)

        return evaluate

    return made


def test_the_fastest_per_draw(slow_by) -> None:
    assert fastest([64, 32, 128], slow_by({64: 0.004, 32: 0.003, 128: 0.0045}))[0] == 128
    assert fastest([64, 32, 128], slow_by({64: 0.004, 32: 0.0005, 128: 0.008}))[0] == 32


def test_a_little_faster_is_not_enough(slow_by) -> None:
    assert fastest([64, 32], slow_by({64: 0.0065, 32: 0.0031}))[0] == 64


def test_measuring_ends_in_time(slow_by) -> None:
    tried: list[int] = []
    slow = planner.MEASURING_SECONDS
    assert fastest([64, 32, 128], slow_by({64: slow, 32: slow, 128: slow}, tried))[0] == 64
    assert set(tried) == {64}


def test_a_cores_share_of_the_largest_cache(tmp_path) -> None:
    for index, size, sharing in (("index0", "32K", "0"), ("index2", "2048K", "0,8"), ("index3", "32768K", "0-3,8-11")):
        (tmp_path / index).mkdir()
        (tmp_path / index / "size").write_text(f"{size}\n")
        (tmp_path / index / "shared_cpu_list").write_text(f"{sharing}\n")
    share = planner.cache_bytes.__wrapped__  # asks anew
    assert share(str(tmp_path)) == 4 * 2**20
    (tmp_path / "index3" / "size").write_text("?")
    assert share(str(tmp_path)) == 2**20
    assert share(str(tmp_path / "none")) == planner.USUAL_CACHE


@pytest.fixture
def card(exported) -> Any:
    return murho.load(exported("demo").onnx).card


def test_only_the_second_call_of_a_shape_is_measured(card, slow_by) -> None:
    tried: list[int] = []
    chunks = Chunks(card, threads=2, measured=True)
    evaluate = slow_by({512: 0.004, 256: 0.002}, tried)
    sizes, counts = [], []
    for _ in range(4):
        sizes.append(chunks.size(1, 21, 1000, evaluate))
        counts.append(len(tried))
    assert counts == [0, 4, 4, 4]
    assert tried[0] == 512  # the guess first
    assert sizes == [512] * 4


def test_measuring_can_be_switched_off(card) -> None:
    chunks = Chunks(card, threads=2, measured=False)
    assert [chunks.size(1, 21, 1000, pytest.fail) for _ in range(3)] == [512, 512, 512]


def test_work_that_threads_hardly_speed_up_is_one_chunk(card, slow_by) -> None:
    edge = planner.HANDOVER_SECONDS * 512 / 500  # of a chunk: for 1000 draws two threads save the time of 500

    def sizes(seconds: float, threads: int) -> list[int]:
        chunks = Chunks(card, threads, measured=True)
        costs = {512: seconds, 256: seconds, 1008: 2 * seconds}
        return [chunks.size(1, 21, 1000, slow_by(costs)) for _ in range(3)]

    assert sizes(0.95 * edge, threads=2) == [512, 1008, 1008]
    assert sizes(1.05 * edge, threads=2) == [512, 512, 512]
    assert sizes(0.95 * edge, threads=1)[1:] == [1008, 1008]  # as guessed


@pytest.mark.parametrize("joins", [True, False])
def test_every_chunk_is_evaluated_once(joins: bool) -> None:
    evaluated: list[int] = []
    threads: set[int] = set()

    def evaluate(rows: slice, draws: slice) -> tuple[np.ndarray, ...]:
        evaluated.append((rows.start, draws.start))
        threads.add(threading.get_ident())
        time.sleep(0.005)
        return (numbered(rows, draws),)

    with ThreadPoolExecutor(2) as pool:
        (answer,) = planner.run(evaluate, 7, 4, 100, 16, pool, helpers=2, joins=joins)
    np.testing.assert_array_equal(answer, numbered(slice(0, 7), slice(0, 100))[:100])
    assert sorted(evaluated) == [(row, draw) for row in (0, 4) for draw in range(0, 100, 16)]
    assert (threading.get_ident() in threads) == joins
    assert len(threads) == 2 + joins


def test_a_busy_pool_is_not_waited_for() -> None:
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(done.wait)
        (answer,) = planner.run(lambda *part: (numbered(*part),), 1, 1, 64, 16, pool, helpers=1)
        done.set()
    np.testing.assert_array_equal(answer, numbered(slice(0, 1), slice(0, 64)))


@pytest.mark.parametrize("joins", [True, False])
def test_an_error_of_any_thread_is_the_callers_and_ends_the_call(joins: bool) -> None:
    for bad in (1, 2, 5):
        count = iter(range(300))

        def evaluate(rows: slice, draws: slice, count: Iterator[int] = count, bad: int = bad) -> tuple[np.ndarray, ...]:
            if next(count) == bad:
                raise RuntimeError("no")
            time.sleep(0.002)
            return (numbered(rows, draws),)

        with ThreadPoolExecutor(2) as pool, pytest.raises(RuntimeError, match="no"):
            planner.run(evaluate, 3, 1, 1600, 16, pool, helpers=2, joins=joins)
        assert next(count) < 50  # parts, of 300


def test_the_first_error_wins() -> None:
    both = threading.Barrier(2)
    order = iter(("first", "second"))

    def evaluate(rows: slice, draws: slice) -> tuple[np.ndarray, ...]:
        both.wait(60)
        with threading.Lock():
            name = next(order)
        if name == "second":
            time.sleep(0.05)
        raise RuntimeError(name)

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="first"):
        planner.run(evaluate, 1, 1, 1600, 16, pool, helpers=1)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests were started in a shell's background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows sends no signal to a thread")
@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_is_not_kept_waiting_while_other_threads_work() -> None:
    """The main thread waits for others: it leaves at once, though their parts do not end before it has left."""
    count, left = iter(range(300)), threading.Event()

    def evaluate(rows: slice, draws: slice) -> tuple[np.ndarray, ...]:
        number = next(count)
        if number == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if number >= 1:
            assert left.wait(60)
        return (numbered(rows, draws),)

    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(KeyboardInterrupt):
            planner.run(evaluate, 3, 1, 1600, 16, pool, helpers=2, joins=False)
        left.set()
    assert next(count) <= 4  # each of the two threads was in a part, and may have been about to begin another


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_in_the_callers_own_part_ends_the_others_too() -> None:
    count = iter(range(300))

    def evaluate(rows: slice, draws: slice) -> tuple[np.ndarray, ...]:
        next(count)
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.002)
        return (numbered(rows, draws),)

    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        planner.run(evaluate, 3, 1, 1600, 16, pool, helpers=1)
    assert next(count) < 50


def test_an_error_keeps_no_arrays_alive() -> None:
    made: list[weakref.ref[np.ndarray]] = []

    def evaluate(rows: slice, draws: slice) -> tuple[np.ndarray, ...]:
        if draws.start:
            raise RuntimeError("no")
        part = numbered(rows, draws)
        made.append(weakref.ref(part))
        return (part,)

    gc.disable()
    try:
        with pytest.raises(RuntimeError):
            planner.run(evaluate, 1, 1, 64, 16)
        assert made[0]() is None
    finally:
        gc.enable()


def test_of_many_shapes_the_latest_are_remembered(card) -> None:
    chunks = Chunks(card, threads=2, measured=True)
    for rows in range(1, planner.REMEMBERED + 50):
        chunks.size(rows, 21, 100, pytest.fail)
    assert len(chunks._sizes) == planner.REMEMBERED
    tried: list[int] = []
    chunks.size(1, 21, 100, tried.append)  # forgotten, so a first call again
    assert not tried


def test_a_gpu_takes_few_large_chunks_that_fit_its_room(card) -> None:
    chunks = Chunks(card, threads=1, measured=True, room=2**30)
    assert [chunks.size(1, 21, 1000, pytest.fail) for _ in range(3)] == [1008] * 3
    size = chunks.size(1, 21, 10_000_000, pytest.fail)
    assert 2**29 < size * planner.bytes_per_draw(card, 1, 21) <= 2**30


def test_no_thread_is_left_without_a_chunk(card) -> None:
    tried: list[int] = []
    chunks = Chunks(card, threads=4, measured=True)
    for _ in range(2):
        chunks.size(1, 21, 200, tried.append)
    assert max(tried) == 64  # 200 draws over 4 threads, in whole vectors


@pytest.mark.parametrize("measure", [True, False])
def test_an_answer_does_not_depend_on_it(exported, format: str, measure: bool) -> None:
    case = exported("demo")
    model = murho.load(case.path(format), measure=measure, trusted=True)
    want = murho.load(case.path(format), threads=1, trusted=True).samples(case.example[:3], 500, SEED, chunk=64)
    for _ in range(4):
        np.testing.assert_array_equal(model.samples(case.example[:3], 500, SEED), want)


def test_a_thousand_calls_from_eight_threads(exported, format: str) -> None:
    case = exported("demo")
    model = murho.load(case.path(format), trusted=True)
    calls = [(rows, draws, seed) for rows in (1, 3) for draws in (20, 64, 150) for seed in (1, 2)]
    alone = murho.load(case.path(format), threads=1, keep_mb=0, measure=False, trusted=True)
    want = {call: alone.predict(case.example[: call[0]], call[1], seed=call[2]) for call in calls}

    def check(k: int) -> None:
        call = calls[k % len(calls)]
        got = model.predict(case.example[: call[0]], call[1], seed=call[2])
        for name in ("samples", "mean", "std", "lower", "upper"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want[call], name))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, range(1000)))


def test_weights_of_all_threads_fit_memory(exported, monkeypatch) -> None:
    monkeypatch.setattr(planner, "cores", lambda: 16)
    card = murho.load(exported("mlp").onnx).card
    assert planner.usual_threads(card) == 16
    for weights, threads in ((6_300_000, 2), (20_000_000, 1)):
        site = replace(card.sites[0], n=weights)
        assert planner.usual_threads(replace(card, sites=(site,))) == threads
    monkeypatch.setattr(planner, "WEIGHTS_BYTES", 1)
    assert murho.load(exported("mlp").onnx)._threads == 1
    assert murho.load(exported("mlp").onnx, threads=3)._threads == 3
