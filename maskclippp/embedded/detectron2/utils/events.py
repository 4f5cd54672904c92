"""The storage of scalars, and the writers that report them."""

import datetime
import json
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "get_event_storage",
]

_storages: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """The storage of the innermost ``with EventStorage(...)``; AssertionError if there is none."""
    assert _storages, (
        "get_event_storage() has to be called inside a 'with EventStorage(...)' context!"
    )
    return _storages[-1]


class EventStorage:
    """Scalars by name and iteration.

    Args:
        start_iter: the first iteration.
    """

    def __init__(self, start_iter: int = 0) -> None:
        self.iter = start_iter
        self._prefix = ""
        self._histories: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._hints: dict[str, bool] = {}
        self._latest: dict[str, tuple[float, int]] = {}

    @property
    def iteration(self) -> int:
        """The same as ``iter``."""
        return self.iter

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Record a value of the current iteration (or of ``cur_iter``).

        Args:
            smoothing_hint: whether writers should smooth this scalar; must not change.

        Raises:
            AssertionError: the hint differs from that of an earlier call.
        """
        name = self._prefix + name
        iteration = self.iter if cur_iter is None else cur_iter
        value = float(value)
        self._histories[name].update(value, iteration)
        self._latest[name] = (value, iteration)
        known_hint = self._hints.setdefault(name, smoothing_hint)
        assert known_hint == smoothing_hint, (
            f"Scalar {name} was put with a different smoothing_hint!"
        )

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: Any
    ) -> None:
        """Record several values: ``put_scalars(loss=1.0, accuracy=0.5)``."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def history(self, name: str) -> HistoryBuffer:
        """All values of one scalar; KeyError if it was never recorded."""
        if name not in self._histories:
            raise KeyError(f"No history metric available for {name}!")
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """All values of all scalars."""
        return self._histories

    def latest(self) -> dict[str, tuple[float, int]]:
        """The last value and its iteration, by scalar."""
        return self._latest

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """As :meth:`latest`, with the median over the last iterations for hinted scalars."""
        return {
            name: (
                self._histories[name].median(self.count_samples(name, window_size))
                if self._hints[name]
                else value,
                iteration,
            )
            for name, (value, iteration) in self._latest.items()
        }

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values a scalar has in its last ``window_size`` iterations."""
        values = self.history(name).values()
        last = values[-1][1]
        return sum(iteration > last - window_size for _, iteration in values[-window_size:])

    def smoothing_hints(self) -> dict[str, bool]:
        """The hint, by scalar."""
        return self._hints

    def step(self) -> None:
        """Go to the next iteration."""
        self.iter += 1

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """A context in which names get the prefix ``name/``."""
        previous, self._prefix = self._prefix, name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = previous

    def __enter__(self) -> "EventStorage":
        _storages.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        assert _storages.pop() is self, "EventStorage contexts are not properly nested"


class EventWriter:
    """Base class of objects that report the content of :func:`get_event_storage`."""

    def write(self) -> None:
        """Report new values."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files."""


class _NewScalars:
    """Returns, smoothed, the scalars that were recorded since the previous call."""

    def __init__(self, window_size: int) -> None:
        self._window_size = window_size
        self._last_iteration = -1

    def take(self, storage: EventStorage) -> list[tuple[str, float, int]]:
        newest = self._last_iteration
        fresh = []
        for name, (value, iteration) in storage.latest_with_smoothing_hint(
            self._window_size
        ).items():
            if iteration > self._last_iteration:
                fresh.append((name, float(value), iteration))
                newest = max(newest, iteration)
        self._last_iteration = newest
        return fresh


class JSONWriter(EventWriter):
    """Appends one JSON object per iteration with new scalars, keys sorted, to a file.

    NaN and infinities, which JSON does not have, become null.

    Args:
        json_file: the file to append to; a partial line of a killed run is terminated first.
        window_size: iterations over which hinted scalars are smoothed.
    """

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        # Open until close(): a line is written every few steps.
        self._file: IO[str] = Path(json_file).open("a", encoding="utf-8")  # noqa: SIM115
        if _ends_within_a_line(Path(json_file)):
            self._file.write("\n")
        self._scalars = _NewScalars(window_size)

    def write(self) -> None:
        lines: dict[int, dict[str, float | None]] = defaultdict(dict)
        for name, value, iteration in self._scalars.take(get_event_storage()):
            lines[iteration][name] = value if math.isfinite(value) else None
        for iteration, line in lines.items():
            self._file.write(json.dumps({**line, "iteration": iteration}, sort_keys=True) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _ends_within_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


class TensorboardXWriter(EventWriter):
    """Writes scalars as TensorBoard events.

    Args:
        log_dir: folder of the event file, created by the first write.
        window_size: iterations over which hinted scalars are smoothed.
        kwargs: arguments of ``torch.utils.tensorboard.SummaryWriter``.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        self._log_dir = log_dir
        self._arguments = kwargs
        self._scalars = _NewScalars(window_size)

    @cached_property
    def _writer(self) -> Any:
        # Importing TensorBoard takes a second; only the main process needs it.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self._log_dir, **self._arguments)

    def write(self) -> None:
        for name, value, iteration in self._scalars.take(get_event_storage()):
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs a line: remaining time, iteration, losses, metrics, speed, learning rate, GPU memory.

    Args:
        max_iter: length of the run; None: do not estimate the remaining time.
        window_size: iterations over which losses are smoothed.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None

    def write(self) -> None:
        storage = get_event_storage()
        iteration = storage.iter
        if iteration == self._max_iter:
            # Hooks after training add nothing to this line.
            return
        remaining = self._time_left(storage)
        parts = [f"eta: {remaining}"] if remaining else []
        parts.append(f"iter: {iteration}")
        parts.append(self._medians(storage, "loss"))
        parts.append(self._medians(storage, "[metric]"))
        parts += [*self._times(storage, "time"), *self._times(storage, "data_time")]
        learning_rate = storage.latest().get("lr")
        parts.append(f" lr: {learning_rate[0]:.5g}" if learning_rate else " lr: N/A")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 1024**2:.0f}M")
        else:
            parts.append("")
        self.logger.info(" " + "  ".join(parts))

    def _medians(self, storage: EventStorage, part_of_name: str) -> str:
        medians = {
            name: history.median(storage.count_samples(name, self._window_size))
            for name, history in storage.histories().items()
            if part_of_name in name
        }
        return "  ".join(f"{name}: {median:.4g}" for name, median in medians.items())

    def _times(self, storage: EventStorage, name: str) -> list[str]:
        if name not in storage.histories():
            return []
        history = storage.history(name)
        # Workers load in bursts: the recent mean is more informative than that of the whole run.
        mean = history.avg(self._window_size) if name == "data_time" else history.global_avg()
        return [f"{name}: {mean:.4f}", f"last_{name}: {history.latest():.4f}"]

    def _time_left(self, storage: EventStorage) -> str | None:
        if self._max_iter is None:
            return None
        remaining = self._max_iter - storage.iter - 1
        now = time.perf_counter()
        if "time" in storage.histories():
            seconds = storage.history("time").median(1000) * remaining
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        elif self._last_write is None or storage.iter == self._last_write[0]:
            self._last_write = (storage.iter, now)
            return None
        else:
            last_iteration, last_time = self._last_write
            seconds = (now - last_time) / (storage.iter - last_iteration) * remaining
        self._last_write = (storage.iter, now)
        return str(datetime.timedelta(seconds=int(seconds)))
