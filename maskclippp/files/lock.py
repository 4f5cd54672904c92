"""A lock on a folder that only one process at a time may write."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskclippp.errors import InputError

LOCK_NAME = "run.lock"

logger = logging.getLogger(__name__)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: a file with the host name and the process id of its owner.

    If the owner was a process of this host that no longer exists, its lock is taken over.

    Raises:
        InputError: another process owns the lock.
    """
    path = folder / LOCK_NAME
    try:
        _create(path)
    except FileExistsError:
        host, _, process = path.read_text(encoding="utf-8").strip().rpartition(" ")
        if host != socket.gethostname() or _is_running(process):
            raise InputError(
                f"{folder} is in use: process {process or '(unknown)'} on host "
                f"{host or '(unknown)'} writes it. Wait for that run, or choose another --tag or "
                f"OUTPUT_DIR; if that run no longer exists, delete {path}"
            ) from None
        logger.warning("%s: taking over the lock of process %s, which is gone", folder, process)
        path.unlink(missing_ok=True)
        _create(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _create(path: Path) -> None:
    """Create the lock file; FileExistsError if there is one."""
    with path.open("x", encoding="utf-8") as file:
        file.write(f"{socket.gethostname()} {os.getpid()}\n")


def _is_running(process: str) -> bool:
    """Whether a process id of this host, other than our own, is in use; True if unknown."""
    if not process.isdecimal():
        return True
    if int(process) == os.getpid():  # left by an earlier process, perhaps of another container
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
