"""Errors that the user can fix; every message says what, where, expected, found and remedy.

A program prints the message of an :class:`InputError` and exits with status 2. Any other exception
is a bug of ours and keeps its traceback, which ends with what to report.
"""

import sys
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

INPUT_ERROR_STATUS = 2
_BUG = (
    "This is a bug in MaskCLIP++. Please report it with this traceback, the command, and the "
    "output of `maskclippp doctor`."
)


class InputError(ValueError):
    """Wrong input: a config key, a file, an annotation, a word list, an argument."""

    # Subclasses may also be KeyErrors, which would show the message in quotes.
    __str__ = Exception.__str__

    @property
    def sentence(self) -> str:
        """The message alone.

        torch re-raises an error of a data-loading worker as the same type, with the worker's
        traceback, which ends with the message, as the message.
        """
        kind = type(self)
        return str(self).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder does not exist."""


class UnreadableFileError(InputError, OSError):
    """A file exists but cannot be read or written."""


class MissingPackageError(InputError, ImportError):
    """A feature needs a Python package that is not installed."""


class UnsupportedError(InputError, NotImplementedError):
    """A combination of settings that this project does not implement."""


def check_choice(what: str, value: Any, choices: Collection[Any]) -> None:
    """Raise an InputError that names ``what`` and the choices, unless ``value`` is one of them."""
    if value not in choices:
        raise InputError(f"{what} {value!r} is not one of {list(choices)}")


@contextmanager
def exit_on_bad_input(output_dir: Path | None = None, rank: int = 0) -> Iterator[None]:
    """Print an :class:`InputError` as one sentence on stderr and exit with status 2.

    Any other error is raised again, with a note on what to report.

    Args:
        output_dir: the traceback of any error, bugs included, is appended to its log file.
        rank: of this process; each rank has its own log file.
    """
    try:
        yield
    except Exception as raised:
        error = _of_a_path(raised)
        if not isinstance(error, InputError):
            _explain_bug(error)
        if output_dir is not None:
            name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
            with suppress(OSError), (output_dir / name).open("a") as file:  # the disk may be full
                file.write(traceback.format_exc())
        if not isinstance(error, InputError):
            raise
        sys.stderr.write(f"error: {error.sentence}\n")
        sys.exit(INPUT_ERROR_STATUS)


def _of_a_path(error: Exception) -> Exception:
    """The error itself; for pathlib's of a path such as ``~unknown/x``, an InputError."""
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return InputError(
            "a path begins with ~ and the name of a user that does not exist on this machine: "
            "write the full path"
        )
    return error


def _explain_bug(error: Exception) -> None:
    """End the error's traceback with what to report, once."""
    if not hasattr(error, "add_note"):  # Python 3.10
        sys.stderr.write(f"{_BUG}\n")
    elif _BUG not in getattr(error, "__notes__", ()):
        error.add_note(_BUG)
