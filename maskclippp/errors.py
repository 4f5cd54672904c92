"""Errors that the user can fix; every message says what, where, expected, found and remedy.

The command line prints the message of an :class:`InputError` and exits with status 2. Any other
exception is a bug of ours and keeps its traceback.
"""


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
