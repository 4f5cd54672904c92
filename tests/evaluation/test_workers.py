"""Images scored beside the model: in order, bounded, errors not lost."""

import threading
import time

import pytest

from maskclippp.evaluation.workers import WORKERS_VARIABLE, ImageWork, worker_count


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_the_order_of_submission(threads: int) -> None:
    taken: list[int] = []
    work = ImageWork(taken.append, threads)

    def square(number: int) -> int:
        time.sleep(0.01 if number % 3 == 0 else 0)
        return number * number

    for number in range(20):
        work.submit(square, number)
    work.finish()
    assert taken == [number * number for number in range(20)]


@pytest.mark.parametrize("threads", [0, 2])
def test_errors_reach_the_caller_and_end_the_work(threads: int) -> None:
    work: ImageWork[float] = ImageWork(lambda result: None, threads)

    def submit_all() -> None:
        for number in (1, 0, 1):
            work.submit(lambda n: 1 / n, number)
        work.finish()

    with pytest.raises(ZeroDivisionError):
        submit_all()
    work.finish()  # nothing is left


def test_after_a_signal_the_rest_can_still_be_taken() -> None:
    taken: list[int] = []

    def stop_at_two(number: int) -> None:
        taken.append(number)
        if number == 2:
            raise KeyboardInterrupt

    go_on = threading.Event()
    work = ImageWork(stop_at_two, threads=2)
    work.submit(lambda: go_on.wait(10) and 1)
    work.submit(lambda: 2)
    work.submit(lambda: 3)
    go_on.set()
    with pytest.raises(KeyboardInterrupt):
        work.wait()
    work.finish()
    assert taken == [1, 2, 3]


def test_few_calls_wait_at_a_time() -> None:
    go_on = threading.Event()
    started: list[int] = []
    work: ImageWork[bool] = ImageWork(lambda result: None, threads=1)

    def blocked(number: int) -> bool:
        started.append(number)
        return go_on.wait(10)

    for number in range(2):
        work.submit(blocked, number)
    release = threading.Timer(0.2, go_on.set)
    release.start()
    before = time.perf_counter()
    work.submit(blocked, 2)  # the third has to wait for the first
    assert time.perf_counter() - before > 0.05
    work.finish()
    assert started == [0, 1, 2]


def test_cleared_work_takes_nothing_more() -> None:
    taken: list[int] = []
    work = ImageWork(taken.append, threads=1)
    work.submit(lambda: time.sleep(0.05) or 1)
    work.clear()
    work.finish()
    assert taken == []


def test_the_number_of_workers_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS_VARIABLE, "7")
    assert worker_count() == 7
    monkeypatch.delenv(WORKERS_VARIABLE)
    assert 1 <= worker_count() <= 4
    monkeypatch.setenv(WORKERS_VARIABLE, "many")
    with pytest.raises(ValueError, match="'many', expected a number"):
        worker_count()
