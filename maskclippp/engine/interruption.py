"""What SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 do: a run saves, and ends with a status of its own.

Training ends after the current step; everything else ends at once. :func:`interruptible` chooses.
The processes of a run agree in :mod:`maskclippp.engine.train_step`, so that all end with one step.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: the same command with --resume goes on
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_NOTICE = b"stopping after this step; press Ctrl-C again to stop at once\n"

# Of the process, like the handlers of its signals.
_requested = threading.Event()


class Interrupted(SystemExit):
    """A signal has asked the run to stop; uncaught, the process ends with INTERRUPTED_STATUS."""

    def __init__(self) -> None:
        super().__init__(INTERRUPTED_STATUS)


def stop_requested() -> bool:
    """Whether a signal has asked this process to stop."""
    return _requested.is_set()


def request_stop() -> None:
    """Let this process stop, because another one of its run was asked to."""
    _requested.set()


@contextmanager
def interruptible(*, at_once: bool) -> Iterator[None]:
    """Handle the signals in this block.

    Args:
        at_once: raise Interrupted when a signal arrives, and on entry if one has arrived before;
            else only note it, for :func:`stop_requested`. A second Ctrl-C always ends the process.
    """
    if at_once and stop_requested():
        raise Interrupted

    def handle(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _requested.set()
        if at_once:
            raise Interrupted
        if number == signal.SIGINT:
            os.write(2, _NOTICE)

    with _handled_by(handle):
        yield


@contextmanager
def forwarding_to_children() -> Iterator[None]:
    """Pass the signals of this block on to the child processes, as SIGTERM.

    Without children, they raise Interrupted.
    """

    def handle(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _requested.set()
        children = multiprocessing.active_children()
        for child in children:
            child.terminate()
        if not children:
            raise Interrupted

    with _handled_by(handle):
        yield


@contextmanager
def _handled_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only it may have handlers
        yield
        return
    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
