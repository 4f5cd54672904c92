"""Scoring images while the model runs: in threads, in order, a bounded number at a time.

Threads, not processes: the slow steps (decoding PNGs, sorting, counting) run in C and release the
GIL, label maps are not copied, no module is imported again, and a process that uses CUDA must not
be forked. With several processes (``--num-gpus``), each scores its own share of the images.
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
    """Threads per evaluator: ``$MASKCLIPPP_EVALUATION_WORKERS`` (0: none).

    By default the processes of the run share the CPUs, with at most 4 threads each. Raises
    InputError if the variable is not a number.
    """
    setting = os.environ.get(WORKERS_VARIABLE, "")
    if not setting:
        cpus = os.cpu_count() or 1
        return max(1, min(_MAX_DEFAULT_WORKERS, cpus // comm.get_world_size()))
    if not setting.isdecimal():
        raise InputError(f"{WORKERS_VARIABLE} is {setting!r}, expected a number of workers, 0..")
    return int(setting)


class ImageWork(Generic[Result]):
    """Calls functions in threads while the model processes the next images.

    ``take`` receives the results in the order of submission, in the caller's thread: sums do not
    depend on the number of threads. At most two calls per thread wait, which bounds the memory.

    Args:
        threads: 0 runs every call immediately, in the caller's thread.
    """

    def __init__(self, take: Callable[[Result], None], threads: int = 0) -> None:
        self._take = take
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[Result]] = deque()

    def submit(self, work: Callable[..., Result], *arguments: Any) -> None:
        """Schedule ``work(*arguments)``; raises the exception of an earlier call, if any."""
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

    def wait(self) -> None:
        """Wait for all calls; raises the first exception among them."""
        while self._waiting:
            self._take_oldest()

    def finish(self) -> None:
        """Wait for all calls, and end the threads."""
        self.wait()
        self.clear()

    def clear(self) -> None:
        """Discard all pending calls and results."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None
        self._waiting.clear()

    def _take_oldest(self) -> None:
        try:
            result = self._waiting[0].result()
            self._waiting.popleft()
            self._take(result)
        except Exception:  # after a signal, the caller may finish
            self.clear()
            raise
