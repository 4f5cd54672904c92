"""Shared by the scripts in ``datasets/``: command line, and steps that make or check files.

A script lists the steps of a split; :func:`run_script` makes missing files or checks all of them.
Files are written atomically, so an interrupted run continues where it stopped.
"""

import argparse
import errno
import functools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from maskclippp.data.layout import datasets_root
from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.atomic import atomic_write
from preparation.files import GivenImage, PreparedFile

LOGGER = logging.getLogger("prepare")
SPLITS = ("val", "train")  # the small split first, to show errors early
_SHOWN_PROBLEMS = 10

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Report:
    """The number of files of a step, and messages about what is wrong with some of them."""

    files: int
    problems: Sequence[str] = ()


class Step(Protocol):
    """A part of a split, such as its label maps; ``title`` is its name in messages."""

    @property
    def title(self) -> str: ...

    def make(self, workers: int, *, repair: bool) -> Report:
        """Make missing and empty files; with ``repair`` also those that :meth:`check` rejects."""

    def check(self, workers: int) -> Report:
        """Check every file without writing."""


@dataclass(frozen=True)
class GivenImages:
    """Original images, which are not made but may be damaged or missing."""

    title: str
    images: Sequence[GivenImage]

    def make(self, workers: int, *, repair: bool) -> Report:
        return Report(0)

    def check(self, workers: int) -> Report:
        found = map_in_processes(GivenImage.find_fault, self.images, workers, self.title)
        return Report(len(self.images), [fault for fault in found if fault is not None])


@dataclass(frozen=True)
class Files:
    """Files made independently of each other."""

    title: str
    files: Sequence[PreparedFile]

    def make(self, workers: int, *, repair: bool) -> Report:
        if repair:
            faults = self._find_faults(workers)
            todo = [file for file, fault in zip(self.files, faults, strict=True) if fault]
        else:
            todo = [file for file in self.files if not is_complete(file.target)]
        there = len(self.files) - len(todo)
        LOGGER.info("%s: %d of %d files exist", self.title, there, len(self.files))
        for folder in {file.target.parent for file in todo}:
            folder.mkdir(parents=True, exist_ok=True)
        made = map_in_processes(make_file, todo, workers, f"make {self.title}")
        return Report(len(self.files), [problem for problem in made if problem is not None])

    def check(self, workers: int) -> Report:
        found = self._find_faults(workers)
        return Report(len(self.files), [fault for fault in found if fault is not None])

    def _find_faults(self, workers: int) -> list[str | None]:
        title = f"check {self.title}"
        return map_in_processes(PreparedFile.find_fault, self.files, workers, title)


@dataclass(frozen=True)
class AnnotationFile:
    """A JSON file assembled from the entries of all images.

    Args:
        describe: an importable function that returns the entries of one of ``sources``.
        assemble: makes the file's content from all entries, in the order of ``sources``.
    """

    title: str
    target: Path
    sources: Sequence[Any]
    describe: Callable[[Any], Any]
    assemble: Callable[[list[Any]], dict[str, Any]]

    def make(self, workers: int, *, repair: bool) -> Report:
        there = not self.check(workers).problems if repair else is_complete(self.target)
        LOGGER.info("%s: %d of 1 files exist", self.title, there)
        if there:
            return Report(1)
        content, problems = self._content(workers)
        if not problems:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.target) as file:
                file.write(json.dumps(content).encode())
        return Report(1, problems)

    def check(self, workers: int) -> Report:
        try:
            found = json.loads(self.target.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return Report(1, [f"{self.target} cannot be read: {error}"])
        expected, problems = self._content(workers)
        if not problems and found != expected:
            problems = [f"{self.target}: {_first_difference(expected, found)}"]
        return Report(1, problems)

    def _content(self, workers: int) -> tuple[dict[str, Any], list[str]]:
        """The content, and messages about images that failed; if any did, the content is empty."""
        attempt = functools.partial(_attempt, self.describe)
        attempts = map_in_processes(attempt, self.sources, workers, f"read {self.title}")
        problems = [problem for _, problem in attempts if problem is not None]
        return ({} if problems else self.assemble([result for result, _ in attempts])), problems


def is_complete(path: Path) -> bool:
    """Whether the file exists and is not empty, as a power failure can leave it."""
    return path.is_file() and path.stat().st_size > 0


def make_file(file: PreparedFile) -> str | None:
    """Make one file; returns the error message, if any."""
    return _attempt(type(file).make, file)[1]


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str
) -> list[Result]:
    """``function`` of every item, in order, with a progress bar; 1 worker: in this process.

    ``function`` must be importable (not a lambda). The first exception stops the run.
    """
    bar = functools.partial(
        tqdm, desc=description, unit="file", total=len(items), mininterval=1, disable=not items
    )
    if workers <= 1 or len(items) <= 1:
        return [function(item) for item in bar(items)]
    chunk = max(1, min(64, len(items) // (4 * workers)))
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(function, items, chunksize=chunk)
        return list(bar(results))


def run_script(
    description: str,
    plan: Callable[[Path, str], Sequence[Step]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a preparation script.

    Args:
        description: the script's docstring.
        plan: returns the steps of a split (``train`` or ``val``) below the datasets' root; raises
            FileNotFoundError or ValueError if the originals are missing or bad.
        arguments: the command line; None: that of the process.

    Returns:
        The exit status: 0 if all files exist (and, with ``--check``, are correct), else 1.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parse_arguments(description, arguments)
    num_problems = 0
    for split in options.splits:
        try:
            steps = plan(options.root, split)
        except (FileNotFoundError, ValueError) as error:
            LOGGER.error("%s: %s\n(--splits chooses what to prepare)", split, error)
            num_problems += 1
            continue
        for step in steps:
            if options.check:
                report = step.check(options.workers)
            else:
                report = step.make(options.workers, repair=options.repair)
            if report.files:
                _log_report(step.title, report, "correct" if options.check else "complete")
            num_problems += len(report.problems)
    if num_problems and options.check:
        LOGGER.error("run with --repair to remake the files whose originals are intact")
    return int(num_problems > 0)


def list_files(folder: Path, pattern: str, where_to_get: str) -> list[Path]:
    """The files of a folder, sorted; a MissingFileError says where to get them."""
    found = sorted(folder.glob(pattern))
    if not found:
        state = "has no such file" if folder.is_dir() else "does not exist"
        raise MissingFileError(f"expected {folder / pattern}, but {folder} {state}: {where_to_get}")
    return found


def require_file(path: Path, where_to_get: str) -> Path:
    """``path``; if the file does not exist, a MissingFileError says where to get it."""
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: {where_to_get}")
    return path


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Prefix the message of any ValueError in the block with the file."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _attempt(function: Callable[[Any], Any], item: Any) -> tuple[Any, str | None]:
    """(result, None) or (None, error message): one bad file must not stop the others."""
    try:
        return function(item), None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS):
            raise  # no other file could be written either
        return None, str(error)


def _log_report(title: str, report: Report, adjective: str) -> None:
    for problem in report.problems[:_SHOWN_PROBLEMS]:
        LOGGER.error("%s", problem)
    if len(report.problems) > _SHOWN_PROBLEMS:
        LOGGER.error("... and %d more problems", len(report.problems) - _SHOWN_PROBLEMS)
    right = max(0, report.files - len(report.problems))
    LOGGER.info("%s: %d of %d files are %s", title, right, report.files, adjective)


def _first_difference(expected: Mapping[str, Any], found: Any) -> str:
    if not isinstance(found, dict) or any(not isinstance(found.get(k), list) for k in expected):
        return f"expected an object with the lists {sorted(expected)}"
    for key, values in expected.items():
        if len(values) != len(found[key]):
            return f"{key}: expected {len(values)} entries, found {len(found[key])}"
        for index, (value, other) in enumerate(zip(values, found[key], strict=True)):
            if value != other:
                return f"{key}[{index}]: expected {_shorten(value)}, found {_shorten(other)}"
    return f"found the keys {sorted(found)}, expected only {sorted(expected)}"


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _parse_arguments(description: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, default=datasets_root(), help="default: $DETECTRON2_DATASETS, datasets"
    )
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--check", action="store_true", help="compare every file with its original; write nothing"
    )
    mode.add_argument(
        "--repair", action="store_true", help="make missing files and those that --check rejects"
    )
    return parser.parse_args(arguments)
