"""Scoring images beside the model: in threads, in order, a bounded number at a time.

Threads, not processes: what takes time here (decoding PNGs, sorting, counting) happens in C outside
Python's lock, label maps need no copying, nothing has to be imported again, and forking a process
that uses CUDA is not allowed. Several processes (``--num-gpus``) share the images anyway.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from detectron2.utils import comm

from maskclippp.errors import InputError

Result = TypeVar("Result")

WORKERS_VARIABLE = "MASKCLIPPP_EVALUATION_WORKERS"
_MAX_DEFAULT_WORKERS = 4
_WAITING_PER_THREAD = 2


def worker_count() -> int:
    """How many workers an evaluator gets: ``$MASKCLIPPP_EVALUATION_WORKERS`` (0: none).

    By default the CPUs are shared among the processes of the run, with at most 4 for each. A
    ValueError tells of a setting that is no such number.
    """
    setting = os.environ.get(WORKERS_VARIABLE, "")
    if not setting:
        cpus = os.cpu_count() or 1
        return max(1, min(_MAX_DEFAULT_WORKERS, cpus // comm.get_world_size()))
    if not setting.isdecimal():
        raise InputError(f"{WORKERS_VARIABLE} is {setting!r}, expected a number of workers, 0..")
    return int(setting)


class ImageWork(Generic[Result]):
    """Calls of a function that run while the model works on the next images.

    ``take`` gets the results in the order of submission, in the caller's thread: sums are the same
    for any number of threads. At most two calls per thread wait, so that memory stays bounded.

    Args:
        threads: 0 runs every call at once, in the caller's thread.
    """

    def __init__(self, take: Callable[[Result], None], threads: int = 0) -> None:
        self._take = take
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[Result]] = deque()

    def submit(self, work: Callable[..., Result], *arguments: Any) -> None:
        """Call ``work(*arguments)`` soon; raises what an earlier call raised."""
        if not self._threads:
            self._take(work(*arguments))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="evaluation")
        self._waiting.append(self._pool.submit(work, *arguments))
        while self._waiting and (
            self._waiting[0].done() or len(self._waiting) > _WAITING_PER_THREAD * self._threads
        ):
            self._take_oldest()

    def finish(self) -> None:
        """Wait for all calls; raises what one of them raised."""
        while self._waiting:
            self._take_oldest()
        self.clear()

    def clear(self) -> None:
        """Drop what has not been taken."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None
        self._waiting.clear()

    def _take_oldest(self) -> None:
        try:
            self._take(self._waiting.popleft().result())
        except BaseException:
            self.clear()
            raise
