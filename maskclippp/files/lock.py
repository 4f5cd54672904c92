"""Files that say which process works on what: the lock of a folder, claims on parts of a job.

Such a file names its owner, which touches it again and again; without a sign of life, others take
it over.
"""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from maskclippp.errors import InputError

LOCK_NAME = "run.lock"
# The owner touches its lock this often; a lock left untouched for STALE_SECONDS is taken over.
BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0

logger = logging.getLogger(__name__)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: a file with the host name and the process id of its owner.

    A lock is taken over at once if its owner was a process of this host that no longer exists; on
    any host after STALE_SECONDS without a sign of life, or after two beats if it names no owner.

    Raises:
        InputError: another process owns the lock.
        OSError: the folder cannot be written.
    """
    path = folder / LOCK_NAME
    with _released(path):
        _acquire(path)
        with _touched(path):
            yield


class Claims:
    """Claims on the parts of a job that several processes share: each part is a file in a folder.

    Nobody waits. A claim is taken over under the conditions of :func:`folder_lock`; how long a
    claim shows no sign of life is measured by the clock of this process. A process that only slept
    may go on with a part that was taken over, so that what parts write must be atomic.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[tuple[str, int], float]] = {}

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Claim a part for this block, if no living process has it: whether it is ours."""
        path = self._folder / name
        with _released(path):
            if self._take(path):
                with _touched(path):
                    yield True
            else:
                yield False

    def _take(self, path: Path) -> bool:
        if _create(path):
            return True
        with suppress(FileNotFoundError):  # it may be released at any time
            found, now = _read(path), time.monotonic()
            last, since = self._seen.get(path, (found, now))
            self._seen[path] = found, since if found == last else now
            owner, wait = _owner(found)
            if not (_is_gone(*owner) or (found == last and now > since + wait)):
                return False
            logger.warning("%s: taking over from process %s on host %s", path, *owner[::-1])
            del self._seen[path]
            _remove(path, found)
        return _create(path)


@contextmanager
def _released(path: Path) -> Iterator[None]:
    """Release a lock at the end of the block, also if a signal arrives as soon as it is there."""
    try:
        yield
    finally:
        _release(path)


@contextmanager
def _touched(path: Path) -> Iterator[None]:
    """Touch a lock that is ours during the block."""
    ended = threading.Event()
    threading.Thread(target=_touch, args=(path, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _owner(found: tuple[str, int]) -> tuple[tuple[str, str], float]:
    """Host and process that a lock names, and for how many seconds it may show no sign of life."""
    named = re.fullmatch(r"([\w.-]+) (\d+)", found[0].strip(), re.ASCII)
    if named is None:
        return ("(unknown)", "(unknown)"), 2 * BEAT_SECONDS
    return (named[1], named[2]), STALE_SECONDS


def _acquire(path: Path) -> None:
    """Create the lock file; InputError if there is one and its owner touches it."""
    first, start = None, time.monotonic()
    while not _create(path):
        with suppress(FileNotFoundError):  # it may be released at any time
            found = _read(path)
            (host, process), seconds = _owner(found)
            owner = f"process {process} on host {host}"
            if first is None:
                first, wait = found, seconds
                if not _is_gone(host, process):
                    logger.warning("%s: waiting for a sign of life of %s", path, owner)
            if found != first:
                raise InputError(
                    f"{path.parent} is in use: {owner} writes it. Wait for that run, or choose "
                    "another --tag or OUTPUT_DIR"
                )
            if _is_gone(host, process) or time.monotonic() > start + wait:
                logger.warning("%s: taking over the lock of %s, which is gone", path, owner)
                _remove(path, found)
                continue
        time.sleep(BEAT_SECONDS / 5)


def _create(path: Path) -> bool:
    """Whether there was no lock yet, so that it is ours now."""
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(_ourselves())
    except OSError:  # the disk is full
        path.unlink(missing_ok=True)
        raise
    return True


def _remove(path: Path, stale: tuple[str, int]) -> None:
    """Remove a stale lock; give it back if another starter was faster and it is a new one.

    A file can be renamed only once, so two starters cannot remove the same lock.
    """
    taken = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
    with suppress(FileNotFoundError):
        path.rename(taken)
        if _read(taken) == stale:
            taken.unlink()
        else:
            taken.rename(path)


def _touch(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):
            if _read(path)[0] == _ourselves():
                os.utime(path)


def _release(path: Path) -> None:
    """Remove the lock if it is ours: not that of a parent, or of a run that took it over."""
    with suppress(FileNotFoundError):
        if _read(path)[0] == _ourselves():
            path.unlink()


def _read(path: Path) -> tuple[str, int]:
    """The owner, and when it last touched the file (nanoseconds)."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(), os.fstat(file.fileno()).st_mtime_ns


def _ourselves() -> str:
    return f"{socket.gethostname()} {os.getpid()}\n"


def _is_gone(host: str, process: str) -> bool:
    """Whether the owner was a process of this host, and its id is ours or unused."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):  # no system has such a large id
        return True
    except PermissionError:  # of another user
        return False
    return int(process) == os.getpid()  # left by an earlier process, perhaps of another container
