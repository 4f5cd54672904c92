"""At most one process writes a folder, and killed processes leave no locked folder."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maskclippp.errors import InputError
from maskclippp.files import lock
from maskclippp.files.lock import LOCK_NAME, Claims, folder_lock

HOST = socket.gethostname()


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "STALE_SECONDS", 1.0)


@contextmanager
def touched(path: Path) -> Iterator[None]:
    """Touch a file again and again, as its living owner does."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    yield
    ended.set()
    thread.join()


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
    with (
        touched(tmp_path / LOCK_NAME),
        pytest.raises(InputError, match=expected),
        folder_lock(tmp_path),
    ):
        pass
    assert (tmp_path / LOCK_NAME).read_text() == owner


@pytest.mark.parametrize("owner", ["elsewhere 999999999", f"{HOST} {os.getppid()}", ""])
def test_a_lock_without_a_sign_of_life_is_taken_over(tmp_path: Path, owner: str) -> None:
    """As after a kill, under another host name or with a process id that is in use again."""
    (tmp_path / LOCK_NAME).write_text(owner)
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{HOST} {os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_touched(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        os.utime(tmp_path / LOCK_NAME, (0, 0))
        threading.Event().wait(0.5)
        assert (tmp_path / LOCK_NAME).stat().st_mtime > 0


def test_the_lock_of_another_is_not_touched(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        (tmp_path / LOCK_NAME).write_text("elsewhere 12\n")
        os.utime(tmp_path / LOCK_NAME, (0, 0))
        threading.Event().wait(0.3)
        assert (tmp_path / LOCK_NAME).stat().st_mtime == 0


def test_a_lock_with_our_own_id_is_left_by_an_earlier_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that was started anew: the first process has the same id each time."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 8.0)
    (tmp_path / LOCK_NAME).write_text(f"{HOST} {os.getpid()}\n")
    start = time.monotonic()
    with folder_lock(tmp_path):
        assert time.monotonic() - start < 7


@pytest.mark.parametrize(
    "owner", [b"", b"\xff\xfe\x00 12", b"no-number one", b"\n\n", b"one two 3"]
)
def test_a_lock_that_names_no_owner_is_taken_over_after_two_beats(
    tmp_path: Path, owner: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a kill or a full disk; the user is told why the start takes its time."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 60.0)
    (tmp_path / LOCK_NAME).write_bytes(owner)
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{HOST} {os.getpid()}\n"
    assert "waiting for a sign of life of process (unknown)" in caplog.text


@pytest.mark.parametrize("process", ["999999999", "9" * 30])
def test_a_process_id_that_no_system_has_is_gone(tmp_path: Path, process: str) -> None:
    (tmp_path / LOCK_NAME).write_text(f"{HOST} {process}")
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{HOST} {os.getpid()}\n"


def test_a_lock_that_was_taken_over_is_not_released(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        (tmp_path / LOCK_NAME).write_text("elsewhere 1\n")
    assert (tmp_path / LOCK_NAME).read_text() == "elsewhere 1\n"


def test_the_new_lock_of_a_faster_starter_is_given_back(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("elsewhere 2\n")
    lock._remove(tmp_path / LOCK_NAME, ("elsewhere 1\n", 0))
    assert (tmp_path / LOCK_NAME).read_text() == "elsewhere 2\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_lock_of_a_dead_process_is_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / LOCK_NAME).write_text(f"{HOST} {dead.pid}")
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{HOST} {os.getpid()}\n"
    assert f"taking over the lock of process {dead.pid}" in caplog.text


def test_a_part_is_claimed_once_and_released(tmp_path: Path) -> None:
    with Claims(tmp_path).claim("part") as is_first:
        (tmp_path / "part").write_text(f"{HOST} {os.getppid()}\n")  # as of another process
        with Claims(tmp_path).claim("part") as is_second, Claims(tmp_path).claim("other") as other:
            assert (is_first, is_second, other) == (True, False, True)
        (tmp_path / "part").write_text(f"{HOST} {os.getpid()}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_claim_of_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    (tmp_path / "part").write_text(f"{HOST} 999999999\n")
    with Claims(tmp_path).claim("part") as is_ours:
        assert is_ours
        assert (tmp_path / "part").read_text() == f"{HOST} {os.getpid()}\n"


def test_a_claim_elsewhere_is_taken_over_without_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.3)
    claims = Claims(tmp_path)
    (tmp_path / "part").write_text("elsewhere 1\n")
    with touched(tmp_path / "part"):
        for _ in range(8):
            threading.Event().wait(0.1)
            with claims.claim("part") as is_ours:
                assert not is_ours
    threading.Event().wait(0.5)
    with claims.claim("part"):  # notices the last sign of life
        pass
    threading.Event().wait(0.5)
    with claims.claim("part") as is_ours:
        assert is_ours


def test_a_claim_is_as_old_as_its_last_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner may touch it less often than others look at it."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.4)
    claims, part = Claims(tmp_path), tmp_path / "part"
    part.write_text("elsewhere 1\n")
    for beat in range(4):
        os.utime(part, (beat, beat))
        for _ in range(2):
            with claims.claim("part") as is_ours:
                assert not is_ours
            threading.Event().wait(0.15)


def test_a_process_of_another_user_is_alive() -> None:
    """The system does not let us signal it."""
    script = (
        "import os, sys\n"
        "from maskclippp.files.lock import _is_gone\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        f"sys.exit(_is_gone({HOST!r}, '1'))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
