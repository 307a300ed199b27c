"""gunicorn with preload: workers forked from a process that had used the model answer as it did, in flat memory.

`python benchmarks/gunicorn_preload.py` is the same with 20,000 requests.
"""

import gunicorn_preload
import pytest
from gunicorn_preload import MOST_GROWTH, check, measure

WORKERS = 2


def test_workers_answer_as_their_parent_and_do_not_grow() -> None:
    pytest.importorskip("gunicorn")
    check(measure(1000, WORKERS, 4), WORKERS)


def worker(growth: int) -> dict[str, int]:
    return {"requests": 500, "own_kib_first": 1, "own_kib_middle": 5000, "own_kib_most": 5000 + growth}


def test_the_check_can_fail() -> None:
    check([worker(MOST_GROWTH), worker(0)], WORKERS)
    with pytest.raises(AssertionError, match="a worker has grown by 3000 KiB"):  # 250 calls of 12 KiB
        check([worker(3000), worker(0)], WORKERS)
    with pytest.raises(AssertionError, match="1 of 2 workers answered"):
        check([worker(0)], WORKERS)


def test_another_answer_than_the_parent_s_is_an_error(tmp_path) -> None:
    pytest.importorskip("gunicorn")
    with gunicorn_preload.serving(tmp_path, 1) as (address, answers):
        assert gunicorn_preload.ask(address, 3, answers[3]).call == 1
        with pytest.raises(AssertionError, match="question 3: another answer than the parent's"):
            gunicorn_preload.ask(address, 3, answers[4])
