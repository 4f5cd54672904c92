"""What a user caused ends in one line; what we caused keeps its traceback."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from maskclippp.config.merging import UnknownKeyError
from maskclippp.data.loader import images_per_process
from maskclippp.engine.optimizer import build_optimizer
from maskclippp.errors import (
    InputError,
    MissingFileError,
    UnreadableFileError,
    exit_on_bad_input,
)
from maskclippp.files.downloads import DownloadError
from maskclippp.files.weights import read_checkpoint


def caught(call: Callable[[], Any]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001  the error itself is under test
        return error
    raise AssertionError("no error was raised")


class Dataset:
    """Calls a function for each of its items."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self._function()


def bad_batch() -> Any:
    return images_per_process(3, 2)


def internal_bug() -> Any:
    return build_optimizer(None, None)


def foreign_error() -> Any:
    raise ValueError("not of this package")


def in_worker(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same, but raised in a loader's worker process."""

    def load() -> None:
        batches = iter(DataLoader(Dataset(function), num_workers=1))
        try:
            next(batches)
        finally:
            batches._shutdown_workers()  # left to the garbage collector, it takes seconds

    return load


@pytest.mark.parametrize("place", [lambda function: function, in_worker], ids=["main", "worker"])
def test_error_raised_on_purpose_gives_its_message(place: Callable) -> None:
    error = caught(place(bad_batch))
    assert isinstance(error, InputError)
    assert error.sentence == str(caught(bad_batch))
    assert error.sentence.startswith("SOLVER.IMS_PER_BATCH=3 cannot be shared equally")


@pytest.mark.parametrize(
    "kind",
    [InputError, MissingFileError, UnreadableFileError, UnknownKeyError, DownloadError],
)
def test_workers_report_the_same_kind_and_sentence(kind: type[InputError]) -> None:
    sentence = "the file a.txt: 'x' is expected,\nfound 'y'"

    def fail() -> None:
        try:
            raise KeyError("cause")
        except KeyError as cause:
            raise kind(sentence) from cause

    error = caught(in_worker(fail))
    assert type(error) is kind
    assert error.sentence == sentence
    assert "KeyError: 'cause'" in str(error)


@pytest.mark.parametrize("place", [lambda function: function, in_worker], ids=["main", "worker"])
@pytest.mark.parametrize("function", [internal_bug, foreign_error])
def test_bugs_and_errors_of_others_are_no_bad_input(place: Callable, function: Callable) -> None:
    assert not isinstance(caught(place(function)), InputError)


def test_bad_input_ends_with_one_line_and_a_failure_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped, exit_on_bad_input(tmp_path):
        read_checkpoint(tmp_path / "absent.pth")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: checkpoint {tmp_path}/absent.pth does not exist")
    assert error.count("\n") == 1


def test_traceback_of_bad_input_is_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), exit_on_bad_input(tmp_path, rank=1):
        read_checkpoint(tmp_path / "absent.pth")
    assert "Traceback" in (tmp_path / "log.txt.rank1").read_text()


def test_bugs_pass_through(tmp_path: Path) -> None:
    with pytest.raises(AttributeError), exit_on_bad_input(tmp_path):
        internal_bug()
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_a_bug_ends_with_what_to_report(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="not of this") as caught,
        exit_on_bad_input(),
        exit_on_bad_input(tmp_path),
    ):
        foreign_error()
    text = "".join(traceback.format_exception(caught.value))
    if sys.version_info >= (3, 11):  # before, it is printed ahead of the traceback
        assert text.rstrip().endswith("output of `maskclippp doctor`.")
        assert text.count("This is a bug in MaskCLIP++") == 1
    assert "not of this package" in (tmp_path / "log.txt").read_text()


def test_the_home_of_an_unknown_user_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), exit_on_bad_input():
        Path("~no-such-user/words.txt").expanduser()
    assert "error: a path begins with ~ and the name of a user" in capsys.readouterr().err
