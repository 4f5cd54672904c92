"""What a process says about a job, line by line, so that it is readable in a log file."""

import time
from collections.abc import Callable
from datetime import timedelta

_QUIET_SECONDS = 30.0


class Progress:
    """Counts images and reports.

    Args:
        total: images of the job.
        done: images that were labeled before.
        write: takes a line.
    """

    def __init__(self, total: int, done: int, write: Callable[[str], None]) -> None:
        self._total, self._done_before, self._write = total, done, write
        self._start = self._last = time.monotonic()
        self.labeled = self.unreadable = 0

    def add(self, labeled: int, unreadable: int) -> None:
        """Count images of this process, some of them unreadable."""
        self.labeled += labeled
        self.unreadable += unreadable

    def is_due(self) -> bool:
        """Whether nothing was reported for long."""
        return time.monotonic() - self._last > _QUIET_SECONDS

    def report(self, done: int) -> None:
        """Report; about ``done`` images are in finished shards, of all processes."""
        self._last, done = time.monotonic(), min(done, self._total)
        everyone = max(done - self._done_before, self.labeled)
        rate = everyone / max(self._last - self._start, 1e-3)
        left = max(self._total - max(done, self._done_before + everyone), 0)
        remaining = f"{timedelta(seconds=round(left / rate))} left" if rate else "no rate yet"
        self._write(
            f"{self._total - left:,} of {self._total:,} images "
            f"({100 * (self._total - left) / self._total:.1f} %), {rate:.1f} images/s, "
            f"{self.unreadable:,} unreadable, {remaining}"
        )

    def conclude(self) -> None:
        """Report what this process has done."""
        seconds = time.monotonic() - self._start
        self._write(
            f"finished: {self.labeled:,} images labeled here in {timedelta(seconds=round(seconds))}"
            f" ({self.labeled / max(seconds, 1e-3):.1f} images/s), {self.unreadable:,} of them "
            "unreadable"
        )
