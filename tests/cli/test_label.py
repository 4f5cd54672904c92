"""``maskclippp label``: under a launcher, stopped by a signal, continued, and refused."""

import multiprocessing
import signal
import time
from pathlib import Path

import pytest
import torch

from maskclippp.cli.main import main
from tests.labeling.jobs import holds_claim, labeler, rows_of, save_photos

IMAGES, SHARD_SIZE = 12, 3


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    save_photos(tmp_path / "photos", IMAGES)
    return [
        *("label", str(tmp_path / "photos"), "--output", str(tmp_path / "out")),
        *("--model", "shapes", "--device", "cpu", "--shard-size", str(SHARD_SIZE)),
        *("--classes", "; ".join(labeler().predictor.names), "--batch-size", "2"),
    ]


def test_processes_of_a_launcher_begin_at_their_part(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("[1] ") for line in lines)
    assert not any("\r" in line for line in lines)
    written = sorted((tmp_path / "out" / "labels").iterdir(), key=lambda file: file.stat().st_mtime)
    assert [int(file.stem) for file in written] == [2, 3, 0, 1]
    assert [row["image"] for row in rows_of(tmp_path / "out")][-1] == f"{IMAGES - 1:03d}.png"


def test_other_words_end_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments)
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--classes", "a cat"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "error: " in error
    assert "has labels of another words, see" in error


def run_alone(arguments: list[str]) -> None:
    """In a forked process, which has only the thread that forked."""
    torch.set_num_threads(1)
    main(arguments)


@pytest.mark.processes
def test_a_signal_ends_with_status_75_and_releases_the_claim(
    arguments: list[str], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=run_alone, args=(arguments,))
    process.start()
    claims = tmp_path / "out" / "claims"
    while not holds_claim(process.pid, claims):
        assert process.is_alive()
        time.sleep(0.002)
    process.terminate()
    process.join()
    assert process.exitcode == 75
    assert not list(claims.iterdir())
    handler = signal.getsignal(signal.SIGTERM)
    main(arguments)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert len(rows_of(tmp_path / "out")) == IMAGES
