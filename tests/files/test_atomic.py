"""Files that are whole or absent, and standard JSON."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from maskclippp.files.atomic import atomic_write, json_value, remove_leftovers, write_json


@pytest.mark.parametrize("durable", [True, False])
def test_interrupted_write_leaves_the_old_file_and_nothing_else(
    durable: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_write(path, durable=durable) as file:
            file.write(b"half of the new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_appears_under_its_name_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with atomic_write(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("durable", [True, False])
def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_return(
    durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synchronized = tmp_path / "model.pth", []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        kind = "folder" if stat.S_ISDIR(status.st_mode) else f"file of {status.st_size} bytes"
        synchronized.append((kind, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    with atomic_write(path, durable=durable) as file:
        file.write(b"content")
    expected = [("file of 7 bytes", False), ("folder", True)]
    assert synchronized == (expected if durable else [])


def test_two_writers_of_one_path_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    with atomic_write(path) as first:
        first.write(b"first")
        with atomic_write(path) as second:
            second.write(b"the second")
        assert path.read_bytes() == b"the second"
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_json_does_not_know_become_null() -> None:
    values = {"a": [float("nan"), float("inf")], "b": {"c": (np.float64("-inf"), 1.5)}}
    assert json_value(values) == {"a": [None, None], "b": {"c": [None, 1.5]}}


def test_scalars_of_libraries_become_plain_numbers() -> None:
    values = {3: np.int64(2**40), "t": torch.tensor(0.5), "flag": True, "nothing": None}
    assert json_value(values) == {"3": 2**40, "t": 0.5, "flag": True, "nothing": None}
    assert isinstance(json_value(np.int64(7)), int)


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_truth_stays_truth() -> None:
    assert json.dumps(json_value({"a": True, "b": [False]})) == '{"a": true, "b": [false]}'


def test_only_what_killed_writers_have_left_is_removed(tmp_path: Path) -> None:
    old, young, foreign = (
        tmp_path / name
        for name in (".a.pth.12.0123abcd.tmp", ".a.pth.13.0123abcd.tmp", ".editor.tmp")
    )
    for file in (old, young, foreign):
        file.touch()
    for file in (old, foreign):
        os.utime(file, (0, 0))
    remove_leftovers(tmp_path, older_than=3600.0)
    assert set(tmp_path.iterdir()) == {young, foreign}
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {foreign}


def test_at_no_time_is_there_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between a removal and a renaming would lose the old one and the new one."""
    path, replace, found = tmp_path / "model.pth", Path.replace, []

    def record(source: Path, target: Path) -> Path:
        found.append(path.read_bytes())
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", record)
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
    assert found == [b"old"]
    assert path.read_bytes() == b"new"
