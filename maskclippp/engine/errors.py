"""How a command ends: one sentence for errors of the user, a traceback for bugs."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskclippp.errors import InputError

INPUT_ERROR_STATUS = 2


@contextmanager
def exit_on_bad_input(output_dir: Path | None = None, rank: int = 0) -> Iterator[None]:
    """Turn an :class:`InputError` into one sentence on stderr and exit status 2.

    Args:
        output_dir: the traceback of any error, bugs included, is appended to its log file.
        rank: of this process; each rank has its own log file.
    """
    try:
        yield
    except Exception as error:
        if output_dir is not None:
            name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
            with (output_dir / name).open("a") as file:
                file.write(traceback.format_exc())
        if not isinstance(error, InputError):
            raise
        sys.stderr.write(f"error: {error.sentence}\n")
        sys.exit(INPUT_ERROR_STATUS)
