"""Errors that the user can mend; every message says what, where, expected, found and remedy.

The command line prints the message of an :class:`InputError` and exits; any other exception is a
bug of ours and keeps its traceback.
"""


class InputError(ValueError):
    """Wrong input: a config key, a file, an annotation, a word list, an argument."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that is not there."""


class UnreadableFileError(InputError, OSError):
    """A file that is there, but cannot be read."""
