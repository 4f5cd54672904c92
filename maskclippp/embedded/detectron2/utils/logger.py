"""Logging and text tables."""

import functools
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

from tabulate import tabulate
from termcolor import colored

__all__ = [
    "create_small_table",
    "setup_logger",
]

_TIME_FORMAT = "%m/%d %H:%M:%S"


class _ColorFormatter(logging.Formatter):
    """Highlights warnings and errors; may abbreviate the logger's name."""

    def __init__(self, *, color: bool, name: str, abbreviation: str) -> None:
        prefix = "[%(asctime)s %(name)s]: "
        prefix = colored(prefix, "green") if color else prefix
        super().__init__(prefix + "%(message)s", datefmt=_TIME_FORMAT)
        self._color = color
        self._name = name
        self._abbreviation = abbreviation

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        full_name = record.name
        if full_name.startswith(self._name + "."):
            record.name = self._abbreviation + full_name[len(self._name) :]
        text = super().formatMessage(record)
        record.name = full_name
        if record.levelno < logging.WARNING:
            return text
        level = record.levelname
        if self._color:
            hue: Literal["red", "yellow"] = "red" if record.levelno >= logging.ERROR else "yellow"
            level = colored(level, hue, attrs=["blink"])
        return f"{level} {text}"


# Cached, because a second call with the same arguments must not duplicate every line.
@functools.lru_cache
def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Send all messages of the logger ``name``, from debug level, to the terminal and to a file.

    Args:
        output: a file to append to if it ends in ``.txt`` or ``.log``, else a folder for
            ``log.txt``; ranks r > 0 append ``.rank<r>`` to the name.
        distributed_rank: only rank 0 writes to standard output.
        color: use colors on the terminal.
        abbrev_name: shown in place of ``name``; default: ``d2`` for detectron2.
        enable_propagation: also pass messages to the root logger.
        configure_stdout: whether to write to standard output.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name
    if configure_stdout and distributed_rank == 0:
        stream = logging.StreamHandler(stream=sys.stdout)
        stream.setFormatter(_ColorFormatter(color=color, name=name, abbreviation=abbrev_name))
        stream.setLevel(logging.DEBUG)
        logger.addHandler(stream)
    if output is not None:
        # Each logger has its own handler, whose format contains its name; they share the open file.
        handler = logging.StreamHandler(_open_log(_log_file(output, distributed_rank)))
        handler.setFormatter(_ColorFormatter(color=False, name=name, abbreviation=abbrev_name))
        handler.setLevel(logging.DEBUG)
        logger.addHandler(handler)
    return logger


def _log_file(output: str, rank: int) -> str:
    path = Path(output)
    if path.suffix not in (".txt", ".log"):
        path = path / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path) if rank == 0 else f"{path}.rank{rank}"


@functools.lru_cache
def _open_log(file_name: str) -> TextIO:
    """A log file, opened once for all loggers of this process."""
    return Path(file_name).open("a", encoding="utf-8")


def create_small_table(small_dict: Mapping[str, Any]) -> str:
    """A text table with the keys as header and the values as the only row."""
    return tabulate(
        [tuple(small_dict.values())],
        headers=tuple(small_dict),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )
