"""What the scripts in ``datasets/`` share: a command line, and steps that make or check files.

A script tells what belongs to a split as a list of steps; :func:`run_script` makes what is missing,
or checks everything. Files are written whole or not at all, so an interrupted run continues where
it stopped.
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
SPLITS = ("val", "train")  # the small one first: what is wrong shows early
_SHOWN_PROBLEMS = 10

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Report:
    """How many files a step looked after, and what is wrong with some of them, in words."""

    files: int
    problems: Sequence[str] = ()


class Step(Protocol):
    """A part of a split, such as its label maps; ``title`` names it in messages."""

    @property
    def title(self) -> str: ...

    def make(self, workers: int, *, repair: bool) -> Report:
        """Make what is missing or empty; with ``repair`` also what :meth:`check` finds wrong."""

    def check(self, workers: int) -> Report:
        """Look at every file; nothing is written."""


@dataclass(frozen=True)
class GivenImages:
    """Images that the dataset brings along: nothing to make, but they can be damaged or missing."""

    title: str
    images: Sequence[GivenImage]

    def make(self, workers: int, *, repair: bool) -> Report:
        return Report(0)

    def check(self, workers: int) -> Report:
        found = map_in_processes(GivenImage.find_fault, self.images, workers, self.title)
        return Report(len(self.images), [fault for fault in found if fault is not None])


@dataclass(frozen=True)
class Files:
    """Files that are made independently of each other."""

    title: str
    files: Sequence[PreparedFile]

    def make(self, workers: int, *, repair: bool) -> Report:
        if repair:
            faults = map_in_processes(find_fault, self.files, workers, f"check {self.title}")
            todo = [file for file, fault in zip(self.files, faults, strict=True) if fault]
        else:
            todo = [file for file in self.files if not is_complete(file.target)]
        there = len(self.files) - len(todo)
        LOGGER.info("%s: %d of %d files are there", self.title, there, len(self.files))
        for folder in {file.target.parent for file in todo}:
            folder.mkdir(parents=True, exist_ok=True)
        made = map_in_processes(make_file, todo, workers, f"make {self.title}")
        return Report(len(self.files), [problem for problem in made if problem is not None])

    def check(self, workers: int) -> Report:
        found = map_in_processes(find_fault, self.files, workers, f"check {self.title}")
        return Report(len(self.files), [fault for fault in found if fault is not None])


@dataclass(frozen=True)
class AnnotationFile:
    """One JSON with what every image contributes.

    Args:
        describe: an importable function: the contribution of one of ``sources``, in JSON's types.
        assemble: the file's content from all contributions, in the order of ``sources``.
    """

    title: str
    target: Path
    sources: Sequence[Any]
    describe: Callable[[Any], Any]
    assemble: Callable[[list[Any]], dict[str, Any]]

    def make(self, workers: int, *, repair: bool) -> Report:
        there = not self.check(workers).problems if repair else is_complete(self.target)
        LOGGER.info("%s: %d of 1 files are there", self.title, there)
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
        """The content, and for which images it could not be made; then the content is empty."""
        attempt = functools.partial(_attempt, self.describe)
        attempts = map_in_processes(attempt, self.sources, workers, f"read {self.title}")
        problems = [problem for _, problem in attempts if problem is not None]
        return ({} if problems else self.assemble([result for result, _ in attempts])), problems


def is_complete(path: Path) -> bool:
    """Whether there is a file with content: a power cut can leave an empty one."""
    return path.is_file() and path.stat().st_size > 0


def make_file(file: PreparedFile) -> str | None:
    """Make one file; returns why it could not be made, if so."""
    return _attempt(type(file).make, file)[1]


def find_fault(file: PreparedFile) -> str | None:
    """What is wrong with one file, if anything."""
    return file.find_fault()


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str
) -> list[Result]:
    """``function`` of every item, in order, with a progress bar; 1 worker means this process.

    ``function`` must be importable (no lambda). The first exception stops the run.
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
        description: its docstring.
        plan: the steps of a split (``train`` or ``val``) below the root of all datasets; it raises
            FileNotFoundError or ValueError when the originals are not as they should be.
        arguments: the command line; None: that of the process.

    Returns the exit status: 0 when everything is there (and, with ``--check``, right), else 1.
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
                _log_report(step.title, report, "right" if options.check else "there now")
            num_problems += len(report.problems)
    if num_problems and options.check:
        LOGGER.error("--repair makes anew what can be made from sound originals")
    return int(num_problems > 0)


def list_files(folder: Path, pattern: str, where_to_get: str) -> list[Path]:
    """The files of a folder, sorted.

    Raises FileNotFoundError naming the folder and where to get its content when there is none.
    """
    found = sorted(folder.glob(pattern))
    if not found:
        state = "holds no such file" if folder.is_dir() else "does not exist"
        raise MissingFileError(f"expected {folder / pattern}, but {folder} {state}: {where_to_get}")
    return found


def require_file(path: Path, where_to_get: str) -> Path:
    """``path``; raises FileNotFoundError saying where to get the file when it does not exist."""
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist: {where_to_get}")
    return path


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Put the file in front of the message of any ValueError in the block."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _attempt(function: Callable[[Any], Any], item: Any) -> tuple[Any, str | None]:
    """(result, None), or (None, why there is none): one bad file shall not stop thousands."""
    try:
        return function(item), None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS):
            raise  # neither would any other file be written
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
    return f"it has the keys {sorted(found)}, expected only {sorted(expected)}"


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
        "--check", action="store_true", help="write nothing, compare what is there with the source"
    )
    mode.add_argument(
        "--repair", action="store_true", help="make what is missing or what --check finds wrong"
    )
    return parser.parse_args(arguments)
