"""At most one process writes a folder, and killed processes leave no locked folder."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from maskclippp.errors import InputError
from maskclippp.files.lock import LOCK_NAME, folder_lock

HOST = socket.gethostname()


def test_the_lock_names_its_owner_and_is_released(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{HOST} {os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folder_lock(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (f"{HOST} {os.getppid()}", f"process {os.getppid()} on host {HOST} writes it"),
        (f"{HOST} 1", f"process 1 on host {HOST} writes it"),
        ("elsewhere 999999999", "process 999999999 on host elsewhere writes it"),
        ("", r"process \(unknown\) on host \(unknown\) writes it"),
    ],
)
def test_a_lock_of_another_process_is_respected(tmp_path: Path, owner: str, expected: str) -> None:
    (tmp_path / LOCK_NAME).write_text(owner)
    with pytest.raises(InputError, match=expected), folder_lock(tmp_path):
        pass
    assert (tmp_path / LOCK_NAME).read_text() == owner


def test_the_lock_of_a_dead_process_is_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / LOCK_NAME).write_text(f"{HOST} {dead.pid}")
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{HOST} {os.getpid()}\n"
    assert f"taking over the lock of process {dead.pid}" in caplog.text
