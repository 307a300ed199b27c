"""Processes that fork after they used a model, as a server does that loads it once: in processes of their own."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import murho
from murho.export import proof, to_pt2
from murho.runtime import InputError, forking
from murho.runtime.forking import Working

FORMATS = ("onnx", "torchscript", "pt2")

START = """
import os, signal, sys, threading, time
import numpy as np
import murho

path, threads = sys.argv[1], int(sys.argv[2])
model = murho.load(path, threads=threads, measure=False, trusted=True)
x = np.ones((8, 3), np.float32)

def ask():
    return model.predict(x, 400, seed=7).samples

def forked(work):
    '''How a child that does this work ends: its exit code, or "hung" where it had to be killed.'''
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            code = work() or 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"
"""

WHILE_OTHERS_PREDICT = """
want, stop, calls = ask(), threading.Event(), [0] * 8

def go_on(k):
    while not stop.is_set():
        ask()
        calls[k] += 1

others = [threading.Thread(target=go_on, args=(k,)) for k in range(8)]
for other in others:
    other.start()
ends = []
for _ in range(int(sys.argv[3])):
    ends.append(forked(lambda: 0 if all(np.array_equal(ask(), want) for _ in range(2)) else 3))
    if ends[-1] != 0:
        break
stop.set()
for other in others:
    other.join()
assert all(calls), calls
print(ends.count(0), ends[-1])
"""

MEMORY = """
for _ in range(5):
    ask()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def call_often():
    for _ in range(300):
        ask()
    before = resident()
    for _ in range(int(sys.argv[3])):
        ask()
    print(resident() - before, len(os.listdir("/proc/self/task")))

assert forked(call_often) == 0
"""


@pytest.fixture(scope="module")
def artifact(exported, run_folder: Path) -> Callable[[str], Path]:
    """The smallest network, x [B, 3] -> [B, 2], in each format."""

    def made(format: str) -> Path:
        case, path = exported("mlp"), run_folder / "forked.pt2"
        if format != "pt2":
            return case.path(format)
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(proof, "law", partial(proof.law, draws=50))
                to_pt2(case.network, path, case.example)
        return path

    return made


def run(code: str, path: Path, *arguments: int) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-c", START + code, str(path), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr
    return done.stdout.split()


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")


@pytest.mark.parametrize(("format", "forks"), [("onnx", 60), ("torchscript", 20), ("pt2", 5)])
def test_forks_while_eight_threads_predict_never_hang(artifact, format: str, forks: int) -> None:
    assert run(WHILE_OTHERS_PREDICT, artifact(format), 2, forks) == [str(forks), "0"]


def test_a_child_computes_with_torch_on_one_thread(artifact) -> None:
    """With threads=1 torch's own threads computed in the parent; the child, which lacks them, must not wait."""
    code = """
import torch
torch.set_num_threads(4)
torch.randn(400, 400) @ torch.randn(400, 400)
want = ask()
print(forked(lambda: 0 if np.array_equal(ask(), want) else 3))
"""
    assert run(code, artifact("torchscript"), 1) == ["0"]


def test_a_childs_memory_is_flat_and_it_has_all_its_threads(artifact) -> None:
    """Work that no thread takes, its arrays included, was 13 kB a call."""
    grown, threads = map(int, run(MEMORY, artifact("onnx"), 2, 2000))
    assert grown < 2 * 2**20
    assert threads == 2


def test_a_grandchild(artifact) -> None:
    code = """
want = ask()
same = lambda: 0 if np.array_equal(ask(), want) else 3
print(forked(lambda: same() or forked(same)))
"""
    assert run(code, artifact("torchscript"), 2) == ["0"]


def test_a_fork_waits_for_work_and_work_for_a_fork() -> None:
    gate, order, begun, finish = Working(), [], threading.Event(), threading.Event()

    def work() -> None:
        with gate:
            begun.set()
            finish.wait()
            with gate:  # a nested one is not kept out
                order.append("first work")

    def fork() -> None:
        gate.pause()
        order.append("fork")
        gate.resume()

    def later() -> None:
        with gate:
            order.append("later work")

    first, forker, last = (threading.Thread(target=step) for step in (work, fork, later))
    first.start()
    begun.wait()
    forker.start()
    while gate._forking is None:
        time.sleep(0.001)
    last.start()
    finish.set()
    for thread in (first, forker, last):
        thread.join()
    assert order == ["first work", "fork", "later work"]


def test_a_signals_handler_may_fork_in_the_middle_of_work() -> None:
    gate = Working()
    with gate:
        gate.pause()
        gate.resume()
        gate.pause()
        gate.renew()  # as in the child
    with gate:
        pass
    assert not gate._inside


def test_a_gpu_is_refused_in_a_child(artifact, monkeypatch) -> None:
    for format in FORMATS:
        model = murho.load(artifact(format), trusted=True)
        model._engine.room = 2**30
        assert model.predict(np.ones((1, 3)), 32).samples.shape == (32, 1, 2)
        monkeypatch.setattr(model._engine, "_process", -1)
        with pytest.raises(InputError, match="loaded on a GPU before the process was forked"):
            model.predict(np.ones((1, 3)), 32)


def test_what_holds_locks_is_renewed_as_long_as_it_lives(artifact) -> None:
    model = murho.load(artifact("onnx"), threads=2)
    known = set(forking._renewed)
    assert {model, model._chunks, model._pool, model._engine._kept} <= known
    count = len(known)
    del model, known
    assert len(forking._renewed) == count - 4


ENDING = """
import os, sys, time, atexit
import murho

model = murho.load(sys.argv[1])
model.predict([[[1.0]] * 5], 16)
child = os.fork()
if not child:
    atexit.register(print, "said at the end")
    model.predict([[[1.0]] * 5], 16)
    exec(sys.argv[2])
    sys.exit(0)
for _ in range(300):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        print("ended with", os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
    print("hung")
"""


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("sys.exit(3)", 3), ("raise KeyError", 1)])
def test_a_child_that_ends_as_a_program_does_ends(end: str, code: int) -> None:
    """ONNX Runtime's destructors wait for a thread of the parent; a child that leaves by `os._exit` never met them."""
    artifact = Path(__file__).parent / "conformance" / "lstm.onnx"
    done = subprocess.run(
        [sys.executable, "-c", ENDING, artifact, end], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split("\n")[:2] == ["said at the end", f"ended with {code}"], done.stdout + done.stderr
