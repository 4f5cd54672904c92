"""Where files are cached, and that only whole ones are taken."""

from pathlib import Path

import pytest
import torch

from maskclippp.files.cache import cache_folder, read_cached_tensor, write_cached_tensor


def test_the_environment_chooses_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKCLIPPP_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.setenv("MASKCLIPPP_CACHE", "here")
    assert cache_folder() == Path.cwd() / "here"
    monkeypatch.delenv("MASKCLIPPP_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "maskclippp"


def test_a_tensor_of_other_words_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, tensor = tmp_path / "text.safetensors", torch.rand(3, 4)
    write_cached_tensor(path, tensor)
    assert torch.equal(read_cached_tensor(path, 3), tensor)
    assert read_cached_tensor(path, 2) is None
    assert "its checksum or shape is wrong): computing it again" in caplog.text


def test_the_file_of_another_writer_stays(tmp_path: Path) -> None:
    """Several processes may fill the cache at the same time."""
    begun = tmp_path / ".text.safetensors.12.0123abcd.tmp"
    begun.write_bytes(b"half")
    write_cached_tensor(tmp_path / "text.safetensors", torch.rand(3, 4))
    assert begun.exists()
