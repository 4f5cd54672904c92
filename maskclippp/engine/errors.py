"""Bad input ends a command with one message; bugs keep their traceback.

An error counts as bad input when this package raised it by a ``raise`` statement of its own: then
its message was written for users. Whatever an operation inside the package or a library raises is
a bug until somebody turns it into such a message.
"""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import maskclippp

_PACKAGE_FOLDER = str(Path(maskclippp.__file__).resolve().parent)
_BAD_INPUT_TYPES = (ValueError, LookupError, OSError, ArithmeticError, ImportError, RuntimeError)
# What torch makes of an exception in a loader's worker process: the traceback as text.
_WORKER_MESSAGE = re.compile(
    r'in DataLoader worker process.*\n  File "(?P<file>[^"\n]+)", line \d+, in [^\n]+\n'
    r"(?P<code>(?:    [^\n]*\n)*)[\w.]+: (?P<message>.*)",
    re.DOTALL,
)


def bad_input_message(error: BaseException) -> str | None:
    """The message for the user if the error was caused by bad input, None if it is a bug."""
    if not isinstance(error, _BAD_INPUT_TYPES):
        return None
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    worker = _WORKER_MESSAGE.search(message)
    if worker:
        deliberate = worker["code"].lstrip().startswith("raise ")
        own = _is_own_file(worker["file"])
        return worker["message"].strip().strip("'\"") if own and deliberate else None
    return message if _raised_by_package(error) else None


@contextmanager
def exit_on_bad_input(output_dir: Path | None = None, rank: int = 0) -> Iterator[None]:
    """Turn bad input into one line on stderr and exit status 1.

    Args:
        output_dir: the traceback of any error, bugs included, is added to its log file.
        rank: of this process; each has its own log file.
    """
    try:
        yield
    except Exception as error:
        if output_dir is not None:
            name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
            with (output_dir / name).open("a") as file:
                file.write(traceback.format_exc())
        message = bad_input_message(error)
        if message is None:
            raise
        sys.stderr.write(f"error: {message}\n")
        sys.exit(1)


def _raised_by_package(error: BaseException) -> bool:
    """Whether a ``raise`` statement of this package, as it stands in the source, made the error."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    innermost = frames[-1]
    return _is_own_file(innermost.filename) and (innermost.line or "").startswith("raise ")


def _is_own_file(name: str) -> bool:
    path = Path(name).resolve()
    return path.is_relative_to(_PACKAGE_FOLDER)
